"""A worker to test against: the real runner and inference on a real Valkey, without the process."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import SecretStr
from typing_extensions import override

from shared.attestation.roots import PRODUCTION, Roots
from shared.catalog import Catalog
from shared.clock import SystemClock
from shared.errors import ErrorBody
from shared.ids import new_id
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.reply import Answer, Kind, binding, decode_answer, decode_error, unpack_frame
from shared.run import unpack
from shared.seal import KEY_BYTES, Seal
from shared.spend import SpendRow, decode_row
from shared.transcript import Transcript, decode_transcript
from shared.valkey.keys import ShardKeys
from shared.valkey.terms import Terms
from shared.valkey.uploads import UploadReader
from tests.catalogs import a_catalog
from tests.integration.queue import LIMITS, Queue, a_header
from workers.attestation.fetcher import EvidenceAway, Fetcher
from workers.attestation.sessions import HeldSession
from workers.attestation.target import Target, Targets
from workers.held import HeldJob
from workers.inference.handler import Inference
from workers.inference.permit import Attested
from workers.inference.routing import RoutingTable
from workers.outbox import Outbox
from workers.providers.registry import Credentials
from workers.providers.transport import UpstreamTransport
from workers.runner import Runner

SEAL = Seal([bytes(range(KEY_BYTES))])
ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.005
PATIENT = {"retries": {"attempts": 1}, "timeouts": {"first_byte": 5}}
PRICE = {"input": "1", "output": "2"}
LAST = (Kind.WHOLE, Kind.END, Kind.FAILED)


def one_model(*urls: str, **provider: Any) -> Catalog:
    """The model `m`, with a provider per address: `p0`, `p1` …"""
    providers = {
        f"p{number}": {"base_url": url, **PATIENT, **provider} for number, url in enumerate(urls)
    }
    return a_catalog(providers, {"m": {"providers": list(providers), "price": PRICE}})


class Shelf:
    """The catalogs a worker can find."""

    def __init__(self, *catalogs: Catalog) -> None:
        self.current = catalogs[0]
        self.known = {catalog.hash: catalog for catalog in catalogs}

    async def by_hash(self, config_hash: str) -> Catalog | None:
        return self.known.get(config_hash)


@dataclass
class StartedWorker:
    name: str
    runner: Runner
    shelf: Shelf
    stop: asyncio.Event
    task: asyncio.Task[None]
    metrics: Metrics

    async def drained(self) -> None:
        """As by SIGTERM."""
        self.stop.set()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.task

    async def killed(self) -> None:
        """It stops where it stands: nothing is posted, settled or given back."""
        self.task.cancel()
        await asyncio.wait([self.task])


SIMULATOR = "SIMULATOR"
"""The variable with the address of a simulated provider's evidence."""


def in_environment(simulator: str, variable: str | None) -> SecretStr | None:
    """Every variable is set; all but one to a key."""
    return SecretStr(simulator if variable == SIMULATOR else "key") if variable else None


class NothingAttested(Attested):
    """Nobody can prove anything."""

    @override
    async def get(self, target: Target, *, signer: str = "") -> HeldSession:
        raise EvidenceAway("there are no sessions in this test")

    @override
    async def keep(self, held: HeldSession, target: Target) -> None:
        raise AssertionError("there are no sessions in this test")

    @override
    def forget(self, target: Target) -> None:
        raise AssertionError("there are no sessions in this test")


MakeAttested = Callable[[Fetcher], Attested]


@contextlib.asynccontextmanager
async def a_worker(
    url: str,
    catalog: Catalog,
    *,
    lease_seconds: float = 15.0,
    drain_seconds: float = 5.0,
    inbox_lease_seconds: float = 30.0,
    shelf: Shelf | None = None,
    trusted: str | None = None,
    attested: MakeAttested | None = None,
    roots: Roots = PRODUCTION,
    simulator: str = "",
) -> AsyncIterator[StartedWorker]:
    """`trusted`: the authorities of providers over TLS, in PEM. `attested`: makes the sessions.
    `simulator`: where simulated providers have their evidence from, judged by `roots`."""
    tls = ssl.create_default_context(cadata=trusted) if trusted else None
    clock, metrics, transport = SystemClock(), Metrics(), UpstreamTransport(ssl_context=tls)
    shelf, name = shelf or Shelf(catalog), new_id()
    credentials = Credentials(partial(in_environment, simulator))
    fetcher = Fetcher(transport)
    table = RoutingTable(
        shelf, credentials, clock, metrics, Targets(credentials, fetcher, simulated=roots)
    )
    uploads = UploadReader.connect(url, name)
    inference = Inference(
        catalogs=table, transport=transport, seal=SEAL, clock=clock, metrics=metrics,
        uploads=uploads, sessions=attested(fetcher) if attested else NothingAttested(),
    )  # fmt: skip

    async def handle(held: HeldJob, outbox: Outbox) -> None:
        await inference.run(held, outbox, runner)

    runner = Runner(
        url=url, keys=ShardKeys(0), worker=name, seal=SEAL, clock=clock, metrics=metrics,
        lease_seconds=lease_seconds, inbox_lease_seconds=inbox_lease_seconds, delta_window_seconds=0.0,
        concurrency=100, handle=handle, give_up=inference.give_up,
    )  # fmt: skip
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run(stop, drain_seconds))
        await runner.commands.connected(ANSWER_SECONDS)
        yield StartedWorker(name, runner, shelf, stop, task, metrics)
        task.cancel()
    await transport.aclose()
    await uploads.close()


@dataclass
class Replies:
    """What one request got."""

    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """Kind, number, claim, payload."""

    @property
    def kinds(self) -> list[int]:
        return [kind for kind, _, _, _ in self.frames]

    @property
    def is_whole(self) -> bool:
        return bool(self.frames) and self.frames[-1][0] in LAST

    @property
    def bytes(self) -> bytes:
        return b"".join(payload for kind, _, _, payload in self.frames if kind in (2, 3))

    @property
    def chunks(self) -> list[Any]:
        events = [event.removeprefix(b"data: ") for event in self.bytes.split(b"\n\n")]
        return [json.loads(event) for event in events if event and event != b"[DONE]"]

    @property
    def text(self) -> str:
        return "".join(
            chunk["choices"][0]["delta"].get("content") or ""
            for chunk in self.chunks
            if chunk["choices"]
        )

    @property
    def answer(self) -> Answer:
        assert self.kinds == [Kind.WHOLE], self.frames
        return decode_answer(self.frames[0][3])

    @property
    def error(self) -> ErrorBody:
        assert self.kinds[-1] == Kind.FAILED, self.frames
        return decode_error(self.frames[-1][3])


class Asker:
    """Asks as an API process does, and reads what comes back."""

    def __init__(self, queue: Queue, catalog: Catalog) -> None:
        self.queue = queue
        self._catalog = catalog
        self._replies: dict[str, Replies] = {}
        self.bodies: dict[str, bytes] = {}
        """What its clients sent, by request id."""

    async def ask(
        self,
        model: str = "m",
        *,
        body: Mapping[str, Any] | None = None,
        terms: Terms | None = None,
        **header: Any,
    ) -> JobHeader:
        changes = {"model": model, "asked_model": model, "config_hash": self._catalog.hash}
        made = a_header(**{**changes, **header})
        await self.queue.admission.admit(
            self.queue.client, made, self._sealed(made, body or {}), LIMITS, terms
        )
        return made

    def _sealed(self, header: JobHeader, body: Mapping[str, Any]) -> bytes:
        message = {"role": "user", "content": "one two three"}
        document = {
            "model": header.asked_model, "messages": [message], "stream": header.stream, **body,
        }  # fmt: skip
        sent = self.bodies[header.request_id] = json.dumps(document).encode()
        return SEAL.seal(sent, b"job:" + header.request_id.encode())

    async def replies(self, header: JobHeader) -> Replies:
        """What has come by now. Each frame must open, and they must be numbered without gaps."""
        for request_id, frame in await self.queue.replies():
            kind, number, claim, sealed = unpack_frame(frame)
            payload = SEAL.open(sealed, binding(request_id, kind, number, claim))
            got = self._replies.setdefault(request_id, Replies())
            if number > len(got.frames) or kind == Kind.FAILED:  # else a repeat: sent again
                assert number == len(got.frames) + 1 or kind == Kind.FAILED, got.frames
                text = unpack(payload) if kind in (Kind.DELTA, Kind.END) else payload
                got.frames.append((kind, number, claim, text))
        return self._replies.setdefault(header.request_id, Replies())

    async def ended(self, header: JobHeader) -> Replies:
        return await self._when(header, lambda replies: replies.is_whole)

    async def spoken(self, header: JobHeader, text: str = "hello") -> Replies:
        """Once this much of a stream has come."""
        return await self._when(header, lambda replies: replies.text.startswith(text))

    async def _when(self, header: JobHeader, holds: Callable[[Replies], bool]) -> Replies:
        replies = self._replies.setdefault(header.request_id, Replies())
        async with asyncio.timeout(ANSWER_SECONDS):
            while not holds(replies):
                await self.replies(header)  # each look waits a little for news
        return replies

    async def rows(self, count: int | None = None) -> list[SpendRow]:
        """The spend rows, once there are so many; in the order they were written."""
        rows: list[SpendRow] = []
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                rows = [decode_row(row) for row in await self.queue.spend_rows()]
                if count is None or len(rows) >= count:
                    return rows
                await asyncio.sleep(POLL_SECONDS)

    async def transcripts(self, count: int = 0) -> list[Transcript]:
        """Those of receipts to come, once there are so many."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                found = [decode_transcript(raw) for raw in await self.queue.transcripts()]
                if len(found) >= count:
                    return found
                await asyncio.sleep(POLL_SECONDS)

    async def at_rest(self) -> None:
        """No key is left of any job but the remembrance that it is done."""
        keys = self.queue.keys
        assert await self.queue.keys_left() - {keys.sealed_bytes, keys.buried} == set()
        left = await self.queue.client.call(b"GET", keys.sealed_bytes)
        assert left in (None, b"0")


async def eventually(holds: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(POLL_SECONDS)
