"""`gateway receipts list` and `get` beside a real database."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import shared
from shared.attestation.signing import ReceiptKey
from shared.clock import SystemClock
from shared.postgres.engine import make_engine
from shared.postgres.migrate import migrate
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import TransparencyLog
from tests.integration.archived import signed_receipt
from tests.integration.receipts import NOW, digest_of, transcript

ROOT = Path(shared.__file__).parent.parent
KEY = ReceiptKey(b"\x09" * 32)
PENDING = transcript(model="slow", started_at=NOW + 1)
SETTLED = transcript(model="quick")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    store = ReceiptStore(engine)
    await store.begin([PENDING, SETTLED])
    await store.settle(
        [signed_receipt(SETTLED, KEY, "report", label="failed", reason="evidence_invalid",
                        detail="quote_valid")]
    )  # fmt: skip
    await TransparencyLog(engine, KEY, SystemClock()).append(1)
    yield engine
    await engine.dispose()


async def said(database_url: str, *arguments: str, expected: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api.cli", "receipts", *arguments, cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == expected, err.decode()
    return (err if expected else out).decode().strip()


@pytest.mark.usefixtures("engine")
async def test_receipts_are_listed_newest_first_and_filtered(database_url):
    head, *lines = (await said(database_url, "list")).splitlines()
    assert head.split() == ["receipt", "began", "label", "model", "provider", "why"]
    assert [line.split()[0] for line in lines] == [
        str(uuid.UUID(one.receipt_id)) for one in (PENDING, SETTLED)
    ]
    assert lines[1].endswith("failed   quick  near      evidence_invalid: quote_valid")
    by_request = ("list", "--json", "--request", SETTLED.request_id, "--status", "failed")
    (found,) = json.loads(await said(database_url, *by_request))
    assert (found["model"], found["tenant"], found["log_index"]) == ("quick", "default", 0)
    assert json.loads(await said(database_url, "list", "--json", "--tenant", "other")) == []
    refused = await said(database_url, "list", "--request", "x", expected=1)
    assert refused == "gateway: request: not an id"


@pytest.mark.usefixtures("engine")
async def test_a_receipt_is_exported_as_one_file(database_url, tmp_path):
    file = tmp_path / "receipt.json"
    await said(database_url, "get", SETTLED.request_id, "-o", str(file))
    export = json.loads(file.read_bytes())
    assert export["evidence"] == {digest_of("report"): "report"}
    assert export["log"]["leaf_index"] == 0
    printed = json.loads(await said(database_url, "get", SETTLED.receipt_id, "--no-evidence"))
    assert printed == {**export, "evidence": {}}
    unknown = await said(database_url, "get", "nothing", expected=1)
    assert unknown == "gateway: Receipt 'nothing' not found"
    nowhere = str(tmp_path / "no" / "where")
    assert "No such file" in await said(
        database_url, "get", SETTLED.receipt_id, "-o", nowhere, expected=1
    )
