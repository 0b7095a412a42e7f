"""Receipts, their evidence and the attestation sessions on a real Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.attestation.factor import failed
from shared.clock import utc
from shared.ids import new_id
from shared.postgres.attestation_sessions import (
    SessionFilter,
    SessionStore,
)
from shared.postgres.engine import make_engine
from shared.postgres.migrate import migrate
from shared.postgres.receipts import Cursor, ReceiptFilter, ReceiptStore
from tests.integration.archived import attestation_session
from tests.integration.receipts import NOW, digest_of, settled, transcript


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def receipts(engine) -> ReceiptStore:
    return ReceiptStore(engine)


@pytest.fixture
def sessions(engine) -> SessionStore:
    return SessionStore(engine)


async def count(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        found: int = (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608
        return found


async def test_a_receipt_is_begun_once_and_settled_once(receipts):
    call = transcript()
    assert await receipts.begin([call, call]) == set()
    assert await receipts.begin([call]) == set()
    pending = await receipts.find(call.receipt_id)
    assert (pending.row.label, pending.document, pending.row.settled_at) == ("pending", None, None)
    first = settled(call.receipt_id, "report", session_id=new_id())
    assert await receipts.settle([first]) == {call.receipt_id}
    later = settled(call.receipt_id, "other", label="failed", reason="evidence_invalid")
    assert await receipts.settle([later]) == set()
    found = await receipts.find(call.receipt_id)
    assert (found.row.label, found.document) == ("verified", first.document)
    assert found.row.session_id.hex == first.session_id
    assert await receipts.begin([call, transcript()]) == {call.receipt_id}
    assert await receipts.evidence([digest_of("report"), digest_of("other")]) == {
        digest_of("report"): "report"
    }


async def test_what_was_not_begun_is_not_settled_and_leaves_no_evidence(receipts, engine):
    assert await receipts.settle([settled(new_id(), "report")]) == set()
    assert await receipts.settle([]) == set()
    assert await receipts.begin([]) == set()
    assert await count(engine, "evidence") == 0


async def test_a_text_is_kept_once_exactly_whatever_is_in_it(receipts, engine):
    calls = [transcript() for _ in range(3)]
    await receipts.begin(calls)
    odd = 'NUL \0, quotes ", \\u0000, a smile \U0001f600, and a lot: ' + "x" * 1_000_000
    await receipts.settle([settled(one.receipt_id, odd, "shared") for one in calls])
    assert await count(engine, "evidence") == 2
    assert await receipts.evidence([digest_of(odd)]) == {digest_of(odd): odd}
    assert await receipts.evidence([]) == {}
    for wrong in ("sha256:abc", "0" * 64, "sha256:" + "g" * 64):
        with pytest.raises(ValueError, match=r"not a digest|hex"):
            await receipts.evidence([wrong])


async def test_names_of_a_provider_may_hold_anything(receipts):
    call = transcript(upstream_id="a\0b\ud800" + "x" * 5000, model="m" * 10_000)
    await receipts.begin([call])
    row = (await receipts.find(call.receipt_id)).row
    assert row.upstream_id.startswith("a\ufffdb?xx")
    assert (len(row.upstream_id), len(row.model)) == (500, 500)


async def test_many_who_begin_and_settle_the_same_do_not_block_each_other(receipts, engine):
    calls = [transcript() for _ in range(60)]
    texts = [f"text {number}" for number in range(20)]

    async def work(order):
        mine = calls[order:] + calls[:order]
        shown = texts[::-1] if order % 2 else texts
        async with asyncio.timeout(30):
            await receipts.begin(mine)
            return await receipts.settle([settled(one.receipt_id, *shown) for one in mine])

    done = await asyncio.gather(*(work(order) for order in range(0, 60, 12)))
    assert sorted(one for some in done for one in some) == sorted(c.receipt_id for c in calls)
    assert await count(engine, "evidence") == len(texts)


async def test_a_settlement_that_fails_leaves_nothing(receipts, engine):
    good, bad = transcript(), transcript()
    await receipts.begin([good, bad])
    with pytest.raises(IntegrityError):
        await receipts.settle(
            [settled(good.receipt_id, "text"), settled(bad.receipt_id, leaf_hash=b"short")]
        )
    assert (await receipts.find(good.receipt_id)).row.label == "pending"
    assert await count(engine, "evidence") == 0


async def test_it_is_found_by_receipt_and_by_request_within_its_tenant(receipts):
    request = new_id()
    older = transcript(request_id=request)
    newer = transcript(request_id=request, started_at=NOW + 5)
    await receipts.begin([newer, older])
    for wanted in (request, str(uuid.UUID(request)), request.upper()):
        assert (await receipts.find(wanted)).row.receipt_id.hex == newer.receipt_id
    assert (await receipts.find(older.receipt_id)).row.receipt_id.hex == older.receipt_id
    assert await receipts.find(request, "default") is not None
    assert await receipts.find(request, "other") is None
    for wrong in (new_id(), "", "nothing", "\0", "ü"):
        assert await receipts.find(wrong) is None


async def test_pages_are_newest_first_filtered_and_complete(receipts):
    calls = [
        transcript(
            started_at=NOW + number // 2,  # two of each moment
            tenant="b" if number % 3 == 0 else "a",
            model=f"m{number % 2}",
            tier="ZDR" if number == 5 else "TEE",
            kind="refusal" if number == 6 else "call",
        )
        for number in range(20)
    ]
    await receipts.begin(calls)
    await receipts.settle([settled(calls[4].receipt_id)])
    newest_first = sorted(calls, key=lambda one: (one.started_at, one.receipt_id), reverse=True)
    ids = [one.receipt_id for one in newest_first]
    found, after = [], None
    while True:
        page = await receipts.page(ReceiptFilter(), limit=3, after=after)
        found += [row.receipt_id.hex for row in page.rows]
        after = page.next and Cursor.read(str(page.next))
        if after is None:
            break
    assert found == ids
    kinds = {row.kind for row in (await receipts.page(ReceiptFilter(), limit=99)).rows}
    assert kinds == {"tee", "zdr", "refusal"}
    for wanted, expected in [
        (ReceiptFilter(tenant="b"), [one for one in newest_first if one.tenant == "b"]),
        (ReceiptFilter(label="verified"), [calls[4]]),
        (ReceiptFilter(tenant="a", model="m1"), [
            one for one in newest_first if one.tenant == "a" and one.model == "m1"
        ]),
        (ReceiptFilter(provider="other"), []),
        (ReceiptFilter(kind="zdr"), [calls[5]]),
        (ReceiptFilter(kind="refusal"), [calls[6]]),
        (ReceiptFilter(kind="refusal", tenant="a"), []),
        (ReceiptFilter(request_id=uuid.UUID(calls[7].request_id)), [calls[7]]),
        (ReceiptFilter(since=utc(NOW + 3), until=utc(NOW + 4)), newest_first[12:14]),
    ]:  # fmt: skip
        page = await receipts.page(wanted, limit=100)
        assert [row.receipt_id.hex for row in page.rows] == [one.receipt_id for one in expected]
        assert page.next is None


def test_a_cursor_is_one_or_is_refused():
    for wrong in ("", "x", "1", "-" + "0" * 32, "1-" + "0" * 31, "f" * 14 + "-" + "0" * 32):
        with pytest.raises(ValueError, match="not a cursor"):
            Cursor.read(wrong)
    assert Cursor.read("f" * 13 + "-" + "0" * 32).started_at.year > 2100


async def test_the_label_of_a_request_is_that_of_its_newest_receipt(receipts):
    request = new_id()
    older = transcript(request_id=request)
    await receipts.begin([older, transcript(request_id=request, started_at=NOW + 1), transcript()])
    await receipts.settle([settled(older.receipt_id)])
    assert await receipts.labels([request, new_id(), "nothing"]) == {request: "pending"}
    assert await receipts.labels([]) == {}


async def test_a_session_is_kept_as_it_is_with_its_texts(sessions):
    made = attestation_session()
    texts = {digest_of(one): one for one in ("report", "c")}
    await sessions.add(made, texts)
    await sessions.add(made, texts)
    assert await sessions.get(made.session_id.hex) == made
    assert await sessions.get(str(made.session_id)) == made
    assert await sessions.evidence(made) == texts
    assert await sessions.get(new_id()) is None
    assert await sessions.get("nothing") is None


async def test_the_latest_session_is_of_its_model_and_sessions_are_listed(sessions):
    first = attestation_session()
    second = attestation_session(fetched_at=first.fetched_at + timedelta(seconds=1), label="failed")
    other = attestation_session(upstream_model="org/other")
    for one in (second, first, other):
        await sessions.add(one, {})
    assert await sessions.latest("near", "org/m") == second
    assert await sessions.latest("near", "nobody's") is None
    assert await sessions.latest("near", "org/m", signer="ab") == second
    assert await sessions.latest("near", "org/m", signer="cd") is None
    assert (await sessions.page(SessionFilter()))[0] == second
    assert await sessions.page(SessionFilter(label="failed")) == [second]
    assert await sessions.page(SessionFilter(upstream_models=["org/m"]), skip=1) == [first]
    assert await sessions.page(SessionFilter(provider="phala")) == []
    assert await sessions.page(SessionFilter(upstream_models=[])) == []


async def test_a_session_of_strange_words_is_kept_without_what_no_column_holds(sessions):
    made = attestation_session(
        signer="a\0" + "b" * 9999, factors=(failed("quote_valid", "quote", "x\0\ud800"),)
    )
    await sessions.add(made, {})
    found = await sessions.get(made.session_id.hex)
    assert found.factors[0].detail == "x\ufffd?"
    assert found.signer.startswith("a\ufffdbb")
    assert len(found.signer) == 500
