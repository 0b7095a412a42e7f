"""Words of prompts and answers are looked for in every byte that a gateway leaves behind."""

import asyncio
import base64
import json
import os
import signal
import uuid
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import asyncpg
import clickhouse_connect
import httpx
import redis

from tests.e2e.chaos import pace
from tests.e2e.load import ECHOES, FAULTS, MENDED, UNENDED, Load, Order, Outcome
from tests.e2e.started import StartedGateway, until
from tests.e2e.stillness import KEYS, until_still

NO_HEX = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
Part = tuple[str, tuple[str | None, str | bytes]]
QUOTING = ("sim_fault_400", "sim_fault_422")
"""Providers whose error repeats the prompt: it reaches the client, and nothing else."""


def secret() -> str:
    """Of letters that no id has: a compressed file would hold only pieces of what resembles one."""
    return "canary" + uuid.uuid4().hex.translate(NO_HEX)


def disguises(word: str) -> list[bytes]:
    """The word as it is, and as it may look once something has encoded it."""
    plain = word.encode()
    shifted = [base64.b64encode(b"x" * shift + plain) for shift in range(3)]
    # The first and the last characters depend on what stands around the word.
    return [plain, plain.hex().encode(), *(text[4:-4] for text in shifted)]


async def speak(gateway: StartedGateway, canary: str) -> None:
    """Says the canary in every way a request can go."""
    load = Load(gateway.ready.base_url, gateway.ready.api_key)
    text = " ".join([canary, *(f"w{n:03d}" for n in range(60)), canary])
    models = [*ECHOES, *FAULTS, UNENDED, *MENDED, *QUOTING]
    wanted = [
        Order(number=n, model=model, text=text, stream=stream, cancel_after=cancel_after)
        for n, (model, stream, cancel_after) in enumerate(
            [
                *((model, stream, None) for model in models for stream in (True, False)),
                *((model, stream, 0.4) for model in ECHOES for stream in (True, False)),
                *(("sim_fault_endless", stream, 0.5) for stream in (True, False)),
            ]
        )
    ]
    async with pace(gateway, first_token_ms=50, tokens_per_second=60), asyncio.TaskGroup() as all_:
        all_.create_task(load.run(wanted, per_second=40.0))
        await asyncio.sleep(1.0)
        # Its jobs are taken over, and run again or ended: other paths, the same care.
        os.kill(gateway.ready.pids["worker"][0], signal.SIGKILL)
    assert load.of(Outcome.WRONG) == []
    assert load.counts()[Outcome.COMPLETE] > len(ECHOES)


def say_it_wrong(gateway: StartedGateway, canary: str) -> None:
    """Bodies that are refused before they are jobs."""
    message = {"role": "user", "content": canary}
    bodies = [
        f'{{"model": "sim_echo", "messages": [{{"role": "user", "content": "{canary}'.encode(),
        canary.encode(),
        json.dumps({"model": "sim_echo", "messages": canary}).encode(),
        json.dumps({"model": "sim_echo", "messages": [{"role": canary}]}).encode(),
        json.dumps(
            {"model": "sim_echo", "messages": [{**message, "content": {canary: 1}}]}
        ).encode(),
        json.dumps({"model": "no_such_model", "messages": [message]}).encode(),
        json.dumps({"model": "sim_echo", "messages": [message], "temperature": canary}).encode(),
    ]
    with client(gateway) as http:
        for body in bodies:
            answer = http.post("/v1/chat/completions", content=body)
            assert 400 <= answer.status_code < 500, answer.text


def call_a_tool(gateway: StartedGateway, canary: str, control: str) -> None:
    """A word that only the tool's schema holds, and so the answer; and one that may be stored."""
    parameters = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": [canary]}},
        "required": ["word"],
    }
    tool = {"name": "say", "description": canary, "parameters": parameters}
    with client(gateway) as http:
        answer = http.post(
            "/v1/chat/completions",
            headers={"x-request-id": control},
            json={
                "model": "sim_echo",
                "messages": [
                    {"role": "system", "content": canary},
                    {"role": "user", "content": "say the word"},
                ],
                "tools": [{"type": "function", "function": tool}],
            },
        )
    assert answer.status_code == 200, answer.text
    assert canary in answer.text


def upload(gateway: StartedGateway, canary: str) -> None:
    """As a file that is sent on in chunks, and one that waits for its model; names and prompts too."""
    speech = " ".join([canary] * 20_000).encode()
    file: Part = ("file", (f"{canary}.wav", speech))
    model: Part = ("model", (None, "sim_transcribe"))
    prompt: Part = ("prompt", (None, canary))
    key = {"authorization": f"Bearer {gateway.ready.api_key}"}
    with httpx.Client(base_url=gateway.ready.base_url, headers=key, timeout=30) as http:
        for parts in ([model, prompt, file], [file, prompt, model]):
            answer = http.post("/v1/audio/transcriptions", files=parts)
            assert answer.status_code == 200, answer.text
            assert canary in answer.text
        wrong: Part = ("response_format", (None, canary))
        answer = http.post("/v1/audio/transcriptions", files=[model, file, wrong])
        assert answer.status_code == 400, answer.text


def keep(gateway: StartedGateway, canary: str) -> None:
    """Answers that outlive their requests: kept, and given again."""
    made = gateway.run("keys", "create", "--name=keeps", "--scope=cache")
    assert made.returncode == 0, made.stderr
    body = {
        "messages": [{"role": "user", "content": f"keep {canary}"}],
        "ollm::cache_options": {"enabled": "on"},
    }
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    with client(gateway) as http:
        for model, stream in product(ECHOES, (False, True)):
            asked = {**body, "model": model, "stream": stream}
            ask = partial(http.post, "/v1/chat/completions", json=asked, headers=headers)
            until(lambda ask=ask: _is_hit(ask()), 10)  # type: ignore[misc]


def _is_hit(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return "hit" in answer.headers.get_list("x-ollm-cache")


def client(gateway: StartedGateway) -> httpx.Client:
    return httpx.Client(
        base_url=gateway.ready.base_url,
        headers={
            "authorization": f"Bearer {gateway.ready.api_key}",
            "content-type": "application/json",
        },
        timeout=30,
    )


# ---- where to look


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the data directory: AOF, Postgres' and ClickHouse's data, logs, the ledger."""
    for path in sorted(folder.rglob("*")):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue  # the server has just merged or recycled it
        yield str(path.relative_to(folder)), data


def in_valkey(url: str) -> Iterator[tuple[str, bytes]]:
    """Each key: its name, its dump, and its value as commands return it (dumps may be packed)."""
    ask = {
        b"string": lambda store, key: store.get(key),
        b"hash": lambda store, key: store.hgetall(key),
        b"stream": lambda store, key: store.xrange(key),
        b"set": lambda store, key: store.smembers(key),
        b"zset": lambda store, key: store.zrange(key, 0, -1, withscores=True),
        b"list": lambda store, key: store.lrange(key, 0, -1),
    }
    with redis.Redis.from_url(url) as store:
        for key in store.scan_iter(count=1000):
            kind = store.type(key)
            if kind != b"none":  # it has just expired
                value = repr(ask[kind](store, key)).encode()
                yield f"valkey {key!r}", b"\n".join([key, store.dump(key) or b"", value])


async def in_postgres(url: str) -> list[tuple[str, bytes]]:
    """Every row of every table, as text."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        tables = await connection.fetch(
            "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r'"
        )
        return [
            (
                f"postgres {table['name']}",
                "\n".join(
                    row[0] or ""
                    for row in await connection.fetch(f"SELECT t::text FROM {table['name']} t")  # noqa: S608
                ).encode(),
            )
            for table in tables
        ]
    finally:
        await connection.close()


def in_clickhouse(url: str) -> Iterator[tuple[str, bytes]]:
    """Every column of every table, the server's own logs included."""
    store = clickhouse_connect.get_client(dsn=url)
    try:
        tables = store.query(
            "SELECT database || '.' || name FROM system.tables"
            " WHERE engine LIKE '%MergeTree' OR database = currentDatabase()"
        ).result_rows
        for (name,) in tables:
            # As bytes: states of aggregate functions have no other form.
            yield f"clickhouse {name}", store.raw_query(f"SELECT * FROM {name}", fmt="RowBinary")  # noqa: S608
    finally:
        store.close()


async def places(gateway: StartedGateway) -> list[tuple[str, bytes]]:
    ready = gateway.ready
    return [
        *files(gateway.data_dir),
        (gateway.output.name, gateway.output.read_bytes()),
        *in_valkey(ready.valkey_url),
        *await in_postgres(ready.database_url),
        *in_clickhouse(ready.clickhouse_url),
    ]


async def test_no_word_of_a_prompt_or_an_answer_is_left_anywhere(gateway: StartedGateway):
    canary, control = secret(), secret()
    until_still(gateway.ready)
    # What may be stored must be found, or the search proves nothing.
    assert gateway.run("keys", "create", f"--name={control}").returncode == 0
    await speak(gateway, canary)
    say_it_wrong(gateway, canary)
    call_a_tool(gateway, canary, control)
    upload(gateway, canary)
    keep(gateway, canary)
    until_still(gateway.ready)

    searched = await places(gateway)
    wanted = disguises(canary)
    leaks = [where for where, data in searched if any(word in data for word in wanted)]
    found = {
        where.partition("/")[0].partition(" ")[0] + (" file" if "/" in where else "")
        for where, data in searched
        if control.encode() in data
    }
    print(
        f"\n{len(searched)} places, {sum(len(data) for _, data in searched) / 1e6:.0f} MB: "
        f"the canary in {len(leaks)}, the control in {sorted(found)}"
    )
    assert leaks == []
    assert sum(KEYS.cache_entry("") in where.encode() for where, _ in searched) >= 2 * len(ECHOES)
    assert {"valkey file", "postgres", "postgres file", "clickhouse", "clickhouse file"} <= found
    logs = [data for where, data in searched if where.startswith("logs/")]
    assert len(logs) >= 8
    assert any(b'"action"' in data for data in logs)
