"""`gateway receipts list` and `get` beside a real database."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from api.cli import commands
from shared.attestation.signing import ReceiptKey
from shared.clock import SystemClock
from shared.postgres.engine import make_engine
from shared.postgres.migrate import migrate
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import TransparencyLog
from tests.integration.archived import signed_receipt
from tests.integration.receipts import NOW, digest_of, transcript

Said = Callable[..., Awaitable[str]]
KEY = ReceiptKey(b"\x09" * 32)
PENDING = transcript(model="slow", started_at=NOW + 1)
SETTLED = transcript(model="quick")
REFUSED = transcript(model="other", started_at=NOW + 2, kind="refusal")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    store = ReceiptStore(engine)
    await store.begin([PENDING, SETTLED, REFUSED])
    await store.settle(
        [signed_receipt(SETTLED, KEY, "report", label="failed", reason="evidence_invalid",
                        detail="quote_valid")]
    )  # fmt: skip
    await TransparencyLog(engine, KEY, SystemClock()).append(1)
    yield engine
    await engine.dispose()


@pytest.fixture
def said(engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs a command in a thread, where it can have a loop of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*arguments: str, expected: int = 0) -> str:
        invoke = partial(CliRunner().invoke, commands(["receipts"]), ["receipts", *arguments])
        async with asyncio.timeout(60):
            result = await asyncio.to_thread(invoke)
        assert result.exit_code == expected, result.output
        return (result.stderr if expected else result.stdout).strip()

    return run


async def test_receipts_are_listed_newest_first_and_filtered(said):
    head, *lines = (await said("list")).splitlines()
    names = ["receipt", "request", "began", "kind", "label", "model", "provider", "why"]
    assert head.split() == names
    assert [line.split()[0] for line in lines] == [
        str(uuid.UUID(one.receipt_id)) for one in (REFUSED, PENDING, SETTLED)
    ]
    assert lines[1].split()[1] == str(uuid.UUID(PENDING.request_id))
    assert lines[2].endswith("tee      failed   quick  near      evidence_invalid: quote_valid")
    (refusal,) = (await said("list", "--kind", "refusal")).splitlines()[1:]
    assert refusal.split()[4] == "refusal"
    by_request = ("list", "--json", "--request", SETTLED.request_id, "--status", "failed")
    (found,) = json.loads(await said(*by_request))
    assert (found["model"], found["tenant"], found["log_index"]) == ("quick", "default", 0)
    assert json.loads(await said("list", "--json", "--tenant", "other")) == []
    refused = await said("list", "--request", "x", expected=1)
    assert refused == "gateway: request: not an id"
    for option in ("from", "to"):
        refused = await said("list", f"--{option}", "yesterday", expected=1)
        assert refused.startswith(f"gateway: {option}: ")


async def test_a_receipt_is_exported_as_one_file(said, tmp_path):
    file = tmp_path / "receipt.json"
    await said("get", SETTLED.request_id, "-o", str(file))
    export = json.loads(file.read_bytes())
    assert export["evidence"] == {digest_of("report"): "report"}
    assert export["log"]["leaf_index"] == 0
    printed = json.loads(await said("get", SETTLED.receipt_id, "--no-evidence"))
    assert printed == {**export, "evidence": {}}
    unknown = await said("get", "nothing", expected=1)
    assert unknown.startswith("gateway: Receipt 'nothing' not found. A receipt appears within")
    nowhere = str(tmp_path / "no" / "where")
    assert "No such file" in await said("get", SETTLED.receipt_id, "-o", nowhere, expected=1)
