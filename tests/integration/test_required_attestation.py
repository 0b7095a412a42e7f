"""Where attestation is required no prompt leaves before the machine has proved itself, nor over another
TLS key than the proved one."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.catalog import Catalog
from shared.clock import SystemClock
from shared.job import JobHeader
from shared.metrics import Metrics
from shared.postgres.engine import make_engine
from shared.postgres.migrate import migrate
from tests.catalogs import a_catalog
from tests.integration.collection import Place, collecting, release
from tests.integration.queue import Queue
from tests.integration.test_simulator import simulator
from tests.integration.worker import SIMULATOR, Asker, Replies, a_worker
from workers.attestation.sessions import Sessions
from workers.simulator.tee.faults import SESSION_FAULTS

MODELS = ("tee-honest", *(f"tee-{fault}" for fault in SESSION_FAULTS))
SHOWN = {
    "debug": "not_debug",
    "revoked": "tcb_status",
    "missing-gpu": "gpu_present",
    "foreign-nonce": "report_nonce",
    "tampered-event-log": "rtmr_replay",
    "nras-false": "gpu_measurements",
}


@pytest.fixture(scope="module")
def tee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tee")
    mint = [sys.executable, "-m", "workers.simulator", "mint", str(directory)]
    subprocess.run(mint, check=True, timeout=30)
    return directory


@pytest.fixture(scope="module")
def machine(tee: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, over TLS that ends in the machine itself."""
    stderr = tmp_path_factory.mktemp("simulator") / "stderr"
    with simulator("--tee", str(tee), "--tls", stderr=stderr) as running:
        yield running.url.replace("127.0.0.1", "localhost")


def catalog_over(url: str) -> Catalog:
    models: dict[str, dict[str, object]] = {
        name: {
            "providers": [{"provider": "near-direct", "upstream_model": name}],
            "tier": "TEE",
            "attestation": "require",
        }
        for name in MODELS
    }
    models["strict"] = {
        **models["tee-honest"],
        "providers": [{"provider": "near-direct", "upstream_model": "tee-honest"}],
        "compose_hashes": ["00" * 32],
    }
    models["plain"] = {"providers": [{"provider": "near-direct", "upstream_model": "tee-honest"}]}
    provider = {
        "type": "near", "base_url": f"{url}/near-direct/v1", "evidence_url_env": SIMULATOR,
    }  # fmt: skip
    return a_catalog({"near-direct": provider}, models)


@dataclass
class Required:
    place: Place
    asker: Asker
    url: str
    trusted: str

    async def answer(self, model: str, *, stream: bool = False) -> tuple[JobHeader, Replies]:
        header = await self.asker.ask(model, attestation="require", stream=stream)
        return header, await self.asker.ended(header)

    def prompts_that_left(self) -> int:
        with httpx.Client(verify=False) as client:  # noqa: S501  a test's own machine
            calls = client.get(f"{self.url}/_sim/ledger/summary").json()
        return int(calls["calls"])


@pytest.fixture
async def required(
    machine: str, tee: Path, database_url: str, queue: Queue, valkey_db: str
) -> AsyncIterator[Required]:
    engine = make_engine(database_url, "release")
    await migrate(engine)
    catalog = catalog_over(machine)
    await release(engine, catalog)
    place = Place(engine, queue, catalog, tee, machine)
    trusted = (tee / "ca.pem").read_text()

    def sessions(fetcher):
        return Sessions(fetcher, place.sessions, clock=SystemClock(), metrics=Metrics())

    async with a_worker(
        valkey_db, catalog, trusted=trusted, attested=sessions, roots=place.roots,
        simulator=machine,
    ):  # fmt: skip
        yield Required(place, Asker(queue, catalog), machine, trusted)
    await engine.dispose()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_goes_to_the_proved_machine_over_its_own_key(
    required: Required, stream: bool
):
    _, replies = await required.answer("tee-honest", stream=stream)
    assert replies.text if stream else replies.answer.body
    [transcript] = await required.asker.transcripts(1)
    [session_id] = transcript.sessions
    session = await required.place.sessions.get(session_id)
    assert session is not None
    assert session.label == "verified"
    assert transcript.tls_spki == session.tls_spki != ""
    async with collecting(required.place, trusted=required.trusted):
        found = await required.place.settled(transcript)
    factors = {one["name"]: one["status"] for one in json.loads(found.document or b"")["factors"]}
    assert (found.row.label, factors["tls_pinned"]) == ("verified", "pass")


@pytest.mark.parametrize("fault", sorted(SHOWN))
async def test_no_prompt_leaves_for_a_machine_that_does_not_prove_itself(
    required: Required, fault: str
):
    before = required.prompts_that_left()
    _, replies = await required.answer(f"tee-{fault}")
    assert (replies.error.status, replies.error.code) == (503, "attestation_failed")
    assert required.prompts_that_left() == before
    assert await required.asker.rows() == []
    [transcript] = await required.asker.transcripts(1)
    assert (transcript.kind, len(transcript.sessions)) == ("refusal", 1)
    async with collecting(required.place, trusted=required.trusted):
        found = await required.place.settled(transcript)
    document = json.loads(found.document or b"")
    wrong = [one["name"] for one in document["factors"] if one["status"] == "fail"]
    assert (found.row.kind, found.row.label) == ("refusal", "failed")
    assert SHOWN[fault] in wrong
    assert document["evidence"]["report"] != ""


@pytest.mark.parametrize("fault", ["report-500", "nras-away", "pccs-away"])
async def test_nor_while_its_proof_cannot_be_had(required: Required, fault: str):
    before = required.prompts_that_left()
    _, replies = await required.answer(f"tee-{fault}")
    assert (replies.error.status, replies.error.code) == (503, "attestation_failed")
    assert required.prompts_that_left() == before


async def test_nor_to_another_tls_key_than_the_attested(required: Required):
    before = required.prompts_that_left()
    _, replies = await required.answer("tee-tls-not-attested")
    assert (replies.error.status, replies.error.code) == (503, "attestation_failed")
    assert required.prompts_that_left() == before
    [transcript] = await required.asker.transcripts(1)
    async with collecting(required.place, trusted=required.trusted):
        found = await required.place.settled(transcript)
    assert (found.row.kind, found.row.label, found.row.detail) == (
        "refusal",
        "failed",
        "tls_pinned",
    )


async def test_a_session_is_good_for_the_policy_it_was_examined_by(required: Required):
    """The same machine, asked for by a model that knows other software."""
    _, replies = await required.answer("tee-honest")
    assert replies.answer.body
    _, replies = await required.answer("strict")
    assert (replies.error.status, replies.error.code) == (503, "attestation_failed")
    assert "compose_known" in replies.error.message


async def test_a_key_that_requires_it_cannot_use_a_model_that_has_nothing_to_prove(
    required: Required,
):
    _, replies = await required.answer("plain")
    assert (replies.error.status, replies.error.code) == (403, "model_not_attested")


async def test_calls_share_a_session_while_it_is_fresh(required: Required):
    for _ in range(3):
        await required.answer("tee-honest")
    found = await required.asker.transcripts(3)
    assert len({one.sessions for one in found}) == 1
