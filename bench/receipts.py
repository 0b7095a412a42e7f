"""`python -m bench.receipts`: many confidential streams at once, and how soon each has its receipt.

One gateway over the simulator's machines, and two models of one provider, the second with receipts. Each
round runs all streams on one, then on the other. CPU is of api and worker, for a stream; how long a
receipt took is from its stream's end to when it was stored.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from sqlalchemy import text

from bench.gateway import Gateway, running_gateway
from bench.instruments import BenchFailed
from bench.process import cpu_by_role
from shared.postgres.engine import make_engine

PLAIN, ATTESTED = "bench_plain", "bench_attested"
REQUEST_PATH = ("api", "worker")
COLLECTION = "background"
CATALOG = """\
[providers.bench]
type = "phala"
base_url_env = "GATEWAY_SIMULATOR_URL"
base_path = "/phala/v1"
api_key_env = "GATEWAY_SIMULATOR_KEY"
evidence_url_env = "GATEWAY_SIMULATOR_URL"

[models.bench_plain]
tier = "TEE"
attestation = "off"
price = {{ input = 0.5, output = 1.5 }}
providers = [{{ provider = "bench", upstream_model = "sim/chat" }}]

[models.bench_attested]
tier = "TEE"
price = {{ input = 0.5, output = 1.5 }}
providers = [{{ provider = "bench", upstream_model = "sim/chat" }}]
"""
TOKENS = 40
TOKENS_PER_SECOND = 8
STREAM_SECONDS = 60.0
AFTERWARDS_SECONDS = 1.0
"""For what a worker has to do after the last byte, and for the first transcripts to be seen."""
SETTLE_SECONDS = 60.0
MOST_SETTLE_SECONDS = 5.0
"""The bar: the 99th percentile."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.receipts", description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        with running_gateway(None, catalog=CATALOG) as gateway:
            return asyncio.run(run(gateway, streams=options.streams, rounds=options.rounds))
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


async def run(gateway: Gateway, *, streams: int, rounds: int) -> int:
    await pace(gateway)
    for model in (PLAIN, ATTESTED):
        await burst(gateway, model, streams)  # warm
    ratios = [await compared(gateway, streams, number) for number in range(rounds)]
    before = await settled(gateway, (rounds + 1) * streams)
    await burst(gateway, ATTESTED, streams)
    found = await settled(gateway, (rounds + 2) * streams)
    late = found.late[len(before.late) :]
    p50, p99 = statistics.median(late), statistics.quantiles(late, n=100)[98]
    wanted = {"verified": (rounds + 2) * streams}
    print(
        f"{found.labels} of {wanted}; settled after p50 {p50:.2f} s, p99 {p99:.2f} s, "
        f"at most {max(late):.2f} s; CPU of the request path {statistics.median(ratios):.3f} x"
    )
    return 0 if found.labels == wanted and p99 <= MOST_SETTLE_SECONDS else 1


async def compared(gateway: Gateway, streams: int, number: int) -> float:
    """CPU with receipts over CPU without, while nothing is collected."""
    costs: dict[str, float] = {}
    with held(gateway):
        for model in (PLAIN, ATTESTED) if number % 2 else (ATTESTED, PLAIN):
            costs[model] = await burst(gateway, model, streams)
    # What collects them must not cost the next burst.
    await settled(gateway, (number + 2) * streams)
    ratio = costs[ATTESTED] / costs[PLAIN]
    print(
        f"round {number + 1}: {costs[PLAIN]:.2f} ms of CPU a stream without receipts, "
        f"{costs[ATTESTED]:.2f} with: {ratio:.3f} x",
        flush=True,
    )
    return ratio


@contextmanager
def held(gateway: Gateway) -> Iterator[None]:
    """The process that collects stands still."""
    pids = gateway.ready.pids[COLLECTION]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Settled(NamedTuple):
    """How many have each label, and after how many seconds, in the order their calls ended."""

    labels: Counter[str]
    late: list[float]


async def pace(gateway: Gateway) -> None:
    async with httpx.AsyncClient() as client:
        url = f"{gateway.ready.simulator_url}/_sim/config"
        answer = await client.post(url, json={"tokens_per_second": TOKENS_PER_SECOND})
        answer.raise_for_status()


async def burst(gateway: Gateway, model: str, streams: int) -> float:
    """All at once; milliseconds of CPU on the request path for each."""
    before = cpu_by_role(gateway.roles())
    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(one_stream(gateway, model, number))
    await asyncio.sleep(AFTERWARDS_SECONDS)
    after = cpu_by_role(gateway.roles())
    used = sum(after[role] - before[role] for role in REQUEST_PATH)
    return used * 1000 / streams


async def one_stream(gateway: Gateway, model: str, number: int) -> None:
    """Raises BenchFailed unless it comes to its end."""
    ready = gateway.ready
    said = " ".join(f"w{number}x{word}" for word in range(TOKENS))
    body = json.dumps(
        {"model": model, "stream": True, "messages": [{"role": "user", "content": said}]}
    )
    host = urlsplit(ready.base_url)
    async with asyncio.timeout(STREAM_SECONDS):
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n"
            f"authorization: Bearer {ready.api_key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        answer = await reader.read(-1)
        writer.close()
    if b"data: [DONE]" not in answer[-40:]:
        raise BenchFailed(f"a stream was cut: {answer[:300]!r}")


async def settled(gateway: Gateway, expected: int) -> Settled:
    """Once there are so many, and none is pending."""
    engine = make_engine(gateway.ready.database_url, "test")
    query = text(
        "SELECT label, extract(epoch FROM settled_at - ended_at) AS late FROM receipts"
        " ORDER BY ended_at"
    )
    deadline = time.monotonic() + SETTLE_SECONDS
    try:
        while True:
            async with engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            is_done = len(rows) >= expected and all(late is not None for _, late in rows)
            if is_done or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
    finally:
        await engine.dispose()
    return Settled(Counter(label for label, _ in rows), [float(late or 0) for _, late in rows])


if __name__ == "__main__":
    sys.exit(main())
