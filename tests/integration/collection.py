"""A place where receipts are made: stores of its own, a synthetic TEE, and calls as a worker makes them."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.attestation.roots import Roots, load
from shared.attestation.signing import ReceiptKey
from shared.catalog import Catalog
from shared.clock import SystemClock
from shared.ids import new_id
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.catalogs import CatalogStore
from shared.postgres.receipts import ReceiptStore, StoredReceipt
from shared.transcript import Digest, Transcript, encode_transcript
from tests.catalogs import a_catalog
from tests.integration.queue import Queue
from tests.integration.worker import SIMULATOR, in_environment
from workers.providers.registry import Credentials
from workers.receipts.service import Receipts

SEED = bytes(range(32))
PROFILES = ("near", "near-direct", "phala", "aci-b", "aci-c", "chutes", "tinfoil")
"""Of the simulator, and the names of the providers here."""
SETTLE_SECONDS = 20.0


def type_of(profile: str) -> str:
    return "near" if profile.startswith("near") else "phala"


def catalog_of(url: str, *, models: tuple[str, ...] = (), **attestation: object) -> Catalog:
    """Every model at every provider; evidence services are the simulator's."""
    providers = {
        name: {
            "type": type_of(name), "base_url": f"{url}/{name}/v1", "evidence_url_env": SIMULATOR,
        }
        for name in PROFILES
    }  # fmt: skip
    asked = {
        "sim": {"providers": [{"provider": "near", "upstream_model": "sim/chat"}], "tier": "TEE"},
        "cpu": {
            "providers": [{"provider": "aci-c", "upstream_model": "sim/chat"}],
            "tier": "TEE",
            "has_gpu": False,
        },
        **{one: {"providers": ["phala"], "tier": "TEE"} for one in models},
    }
    return a_catalog(providers, asked, attestation=attestation)


class Place:
    """Everything the background process has for receipts."""

    def __init__(
        self, engine: AsyncEngine, queue: Queue, catalog: Catalog, tee: Path, url: str
    ) -> None:
        """`url`: the simulator's, which keeps its keys in `tee`."""
        self.url = url
        self.engine, self.queue, self.catalog = engine, queue, catalog
        self.receipts, self.sessions = ReceiptStore(engine), SessionStore(engine)
        self.roots: Roots = load(tee / "roots.json")
        self.metrics = Metrics()

    def service(self, *, trusted: str | None = None) -> Receipts:
        """`trusted`: the authorities of providers over TLS, in PEM."""
        return Receipts(
            ssl_context=ssl.create_default_context(cadata=trusted) if trusted else None,
            client=self.queue.client,
            shards=[self.queue.keys],
            process=new_id(),
            engine=self.engine,
            credentials=Credentials(partial(in_environment, self.url)),
            key=ReceiptKey(SEED),
            simulated=self.roots,
            clock=SystemClock(),
            metrics=self.metrics,
            lease_seconds=1.0,
            gateway_version="0",
        )

    async def add(self, *transcripts: Transcript) -> None:
        """As the settle script does."""
        for one in transcripts:
            packed = encode_transcript(one)
            await self.queue.client.call(b"XADD", self.queue.keys.receipts, b"*", b"t", packed)

    async def settled(self, transcript: Transcript) -> StoredReceipt:
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                found = await self.receipts.find(transcript.receipt_id)
                if found is not None and found.document is not None:
                    return found
                await asyncio.sleep(0.05)

    async def until_empty(self) -> None:
        """Until no transcript is left on the stream."""
        async with asyncio.timeout(SETTLE_SECONDS):
            left = 1
            while left:
                await asyncio.sleep(0.05)
                left = await self.queue.client.call(b"XLEN", self.queue.keys.receipts)

    async def export(self, found: StoredReceipt) -> bytes:
        """As it is handed out, without the log."""
        document = json.loads(found.document or b"")
        named = document["evidence"]
        digests = [named["report"], *named["collateral"].values(), named["nras"],
                   named["nras_keys"], named["signature"]]  # fmt: skip
        texts = await self.receipts.evidence([one for one in digests if one])
        return msgspec.json.encode({"receipt": document, "evidence": texts, "log": None})


@asynccontextmanager
async def collecting(place: Place, *, trusted: str | None = None) -> AsyncIterator[Receipts]:
    """The service runs meanwhile."""
    service = place.service(trusted=trusted)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await service.close()


async def release(engine: AsyncEngine, catalog: Catalog) -> None:
    await CatalogStore(engine).apply(catalog)


async def a_call(
    url: str, profile: str, catalog: Catalog, *, model: str = "sim/chat", stream: bool = True,
    said: str = "hello", changes: Mapping[str, object] | None = None,
) -> Transcript:  # fmt: skip
    """One chat completion, and its transcript as a worker would write it."""
    document = {"model": model, "stream": stream, "messages": [{"role": "user", "content": said}]}
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"authorization": "Bearer key", "x-no-aliasing": "true",
               "accept-encoding": "identity", "content-type": "application/json"}  # fmt: skip
    started_at = SystemClock().now()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{url}/{profile}/v1/chat/completions", content=body, headers=headers
        )
    assert answer.status_code == 200, answer.text
    whole = answer.content
    first = whole.split(b"data: ", 2)[1] if stream else whole
    parsed: dict[str, Any] = json.loads(first)
    transcript = Transcript(
        receipt_id=new_id(),
        request_id=new_id(),
        tenant="default",
        user="someone",
        model="sim",
        provider=profile,
        provider_type=type_of(profile),
        upstream_model=model,
        config_hash=catalog.hash,
        endpoint="chat.completions",
        tier="TEE",
        streamed=stream,
        started_at=started_at,
        ended_at=SystemClock().now(),
        complete=True,
        client_request=digest(body),
        forwarded_request=digest(body),
        upstream_response=digest(whole),
        client_response=digest(whole),
        reserialised_response=""
        if stream
        else hashlib.sha256(json.dumps(parsed).encode()).hexdigest(),
        upstream_id=str(parsed["id"]),
        upstream_receipt_id=answer.headers.get("x-receipt-id", ""),
        tls_host="127.0.0.1",
    )
    return msgspec.structs.replace(transcript, **(changes or {}))


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))
