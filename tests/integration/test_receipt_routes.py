"""The routes of receipts, their log and attestation sessions, over a real archive."""

import json
import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import problems
from api.aci_receipt import keyset_of
from api.attested import Attested
from api.receipt_archive import Archive
from api.routes import attestation, receipts, transparency
from shared.attestation.log_proof import LogProof, verify_log_proof
from shared.attestation.merkle import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion
from shared.attestation.report_data import keyset_digest
from shared.attestation.signing import (
    ReceiptKey,
    TreeHead,
    verify_document,
    verify_head,
    verify_signature,
)
from shared.caller import MASTER_CALLER, Caller
from shared.catalog import Catalog
from shared.clock import StillClock, utc
from shared.document import Document, Model, ModelProvider, Provider
from shared.errors import NotAuthenticated
from shared.ids import new_id
from shared.postgres.attestation_sessions import (
    SessionEvidence,
    SessionStore,
)
from shared.postgres.engine import make_engine
from shared.postgres.migrate import migrate
from shared.postgres.receipts import ReceiptStore
from shared.postgres.transparency_log import LogReader, TransparencyLog
from shared.transcript import Transcript
from tests.integration.archived import attestation_session, signed_receipt
from tests.integration.receipts import NOW, digest_of, transcript

KEY = ReceiptKey(b"\x09" * 32)
CALLERS = {
    "Bearer master": MASTER_CALLER,
    "Bearer mine": Caller(tenant="default", user="me", key_id="k"),
    "Bearer theirs": Caller(tenant="elsewhere", user="them", key_id="t"),
}
MODELS = {"near_m": Model(tier="TEE", providers=[ModelProvider("near", "org/m")])}
CATALOG = Catalog(
    Document(providers={"near": Provider(type="near", base_url="http://n")}, models=MODELS)
)
REPORT, SIGNATURE = '{"quote":"</script>\\u0000"}', '{"text":"a:b:c"}'


class Authenticator:
    """Knows its callers by heart."""

    async def caller(self, headers: Any, _address: Any = None) -> Caller:
        found = CALLERS.get(dict(headers).get(b"authorization", b"").decode())
        if found is None:
            raise NotAuthenticated("no")
        return found


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(database_url, "test")
    await migrate(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> ReceiptStore:
    return ReceiptStore(engine)


@pytest.fixture
def log(engine: AsyncEngine) -> TransparencyLog:
    return TransparencyLog(engine, KEY, StillClock(NOW))


@pytest.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    attested = Attested(
        authenticator=Authenticator(),  # type: ignore[arg-type]
        catalog=SimpleNamespace(current=CATALOG),
        archive=Archive(ReceiptStore(engine), LogReader(engine)),
        receipts=ReceiptStore(engine),
        sessions=SessionStore(engine),
        key=KEY,
    )
    app = FastAPI(redirect_slashes=False)
    for family in (receipts, transparency, attestation):
        app.include_router(family.router(attested, "/v1"))
    problems.install(app)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test/v1",
        headers={"authorization": "Bearer mine"},
    ) as client:
        yield client


async def settle(store: ReceiptStore, call: Transcript, *texts: str, **given: Any) -> bytes:
    await store.begin([call])
    made = signed_receipt(call, KEY, *texts, **given)
    assert await store.settle([made]) == {call.receipt_id}
    return made.document


async def got(client: httpx.AsyncClient, path: str, expected: int = 200, **query: Any) -> Any:
    answer = await client.get(path, params=query)
    assert answer.status_code == expected, answer.text
    return answer.json()


async def test_an_exported_receipt_proves_itself(client, store, log):
    call = transcript(endpoint="chat.completions")
    texts = (REPORT, SIGNATURE, "nras", "keys", "collateral 1", "collateral 2")
    document = await settle(store, call, *texts)
    await settle(store, transcript())
    assert (await got(client, f"/receipts/{call.receipt_id}"))["log"] is None
    await log.append(10)
    answer = await client.get(f"/receipts/{call.receipt_id}")
    assert document in answer.content  # byte for byte
    assert answer.headers["content-type"] == "application/json"
    export = answer.json()
    assert set(export) == {"receipt", "evidence", "log"}
    assert verify_document(export["receipt"], KEY.public_key)
    assert export["evidence"] == {digest_of(one): one for one in texts}
    proof = msgspec.convert(export["log"], LogProof)
    assert verify_log_proof(proof, leaf_hash(document)) == ""
    assert proof.public_key == KEY.public_key.hex()


async def test_a_receipt_is_found_by_either_id_with_dashes_or_without(client, store):
    call = transcript()
    await settle(store, call, REPORT)
    for wanted in (call.receipt_id, call.request_id):
        for form in (wanted, str(uuid.UUID(wanted)), wanted.upper()):
            found = (await got(client, f"/receipts/{form}"))["receipt"]
            assert found["receipt_id"] == str(uuid.UUID(call.receipt_id))
    short = await got(client, f"/receipts/{call.receipt_id}", evidence="false")
    assert short["evidence"] == {}
    assert verify_document(short["receipt"], KEY.public_key)


async def test_a_pending_receipt_says_so(client, store):
    call = transcript()
    await store.begin([call])
    export = await got(client, f"/receipts/{call.request_id}")
    assert (export["evidence"], export["log"]) == ({}, None)
    assert export["receipt"] == {
        "receipt_id": str(uuid.UUID(call.receipt_id)),
        "request_id": str(uuid.UUID(call.request_id)),
        "kind": "tee", "provider": "near", "model": "m", "upstream_model": "org/m",
        "upstream_id": "chat-1", "endpoint": "chat", "tier": "TEE", "stream": False,
        "started_at": NOW, "ended_at": NOW + 1, "label": "pending",
    }  # fmt: skip
    for path, code in (
        ("receipts/{}/proof", "receipt_not_logged"),
        ("aci/receipts/{}", "receipt_pending"),
    ):
        found = await got(client, path.format(call.receipt_id), 404)
        assert found["error"]["code"] == code


async def test_nobody_sees_another_tenants_receipts_but_the_master_key(client, store, log):
    call = transcript()
    await settle(store, call)
    await log.append(1)
    paths = [f"/receipts/{call.receipt_id}", f"/receipts/{call.request_id}",
             f"/receipts/{call.receipt_id}/proof", f"/aci/receipts/{call.receipt_id}"]  # fmt: skip
    theirs = {"authorization": "Bearer theirs"}
    for path in paths:
        answer = await client.get(path, headers=theirs)
        unknown = await client.get(path.replace(call.receipt_id, new_id()), headers=theirs)
        assert answer.status_code == unknown.status_code == 404
        assert answer.json()["error"]["code"] == "receipt_not_found"
        assert (await client.get(path, headers={"authorization": "Bearer master"})).is_success
    listed = await client.get("/receipts", headers=theirs)
    assert listed.json() == {"object": "list", "data": [], "next_cursor": None}


async def test_who_has_no_key_is_refused_before_anything_is_read(client):
    for path in ("/receipts?limit=x", "/receipts/x", "/receipts/x/proof", "/aci/receipts/x",
                 "/log/head", "/log/consistency", "/attestation/sessions?status=x",
                 "/attestation/sessions/x"):  # fmt: skip
        answer = await client.get(path, headers={"authorization": "Bearer nobody"})
        assert answer.status_code == 401, path


async def test_receipts_are_listed_newest_first_and_filtered(client, store):
    calls = [transcript(started_at=NOW + n, model=f"m{n % 2}") for n in range(5)]
    calls.append(transcript(tenant="elsewhere", started_at=NOW + 9))
    for number, call in enumerate(calls):
        given = {"label": "failed", "reason": "evidence_invalid", "detail": "quote_valid"}
        if number == 1:
            await store.begin([call])
        else:
            await settle(store, call, **(given if number == 2 else {}))
    ids = [str(uuid.UUID(call.receipt_id)) for call in calls]

    async def listed(**query: Any) -> list[str]:
        return [one["receipt_id"] for one in (await got(client, "/receipts", **query))["data"]]

    assert await listed() == ids[4::-1]
    assert await listed(status="failed") == [ids[2]]
    assert await listed(status="pending") == [ids[1]]
    assert await listed(model="m1") == [ids[3], ids[1]]
    assert await listed(provider="phala") == []
    assert await listed(kind="tee") == ids[4::-1]
    assert await listed(kind="refusal") == []
    assert await listed(request_id=calls[3].request_id) == [ids[3]]
    assert await listed(**{"from": int(NOW) + 1, "to": utc(NOW + 3).isoformat()}) == ids[2:0:-1]
    first = await got(client, "/receipts", limit=3)
    then = await got(client, "/receipts", limit=3, cursor=first["next_cursor"])
    assert [one["receipt_id"] for one in first["data"] + then["data"]] == ids[4::-1]
    assert then["next_cursor"] is None
    failed = (await got(client, "/receipts", status="failed"))["data"][0]
    assert (failed["reason"], failed["detail"]) == ("evidence_invalid", "quote_valid")
    assert not {"tenant", "user_id", "key_id"} & failed.keys()
    master = {"authorization": "Bearer master"}
    everybodys = (await client.get("/receipts", headers=master)).json()["data"]
    assert [one["receipt_id"] for one in everybodys] == [ids[5], *ids[4::-1]]
    assert everybodys[0]["tenant"] == "elsewhere"
    assert everybodys[0]["user_id"] == "u"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/receipts?status=good", 422),
        ("/receipts?kind=call", 422),
        ("/receipts?limit=0", 422),
        ("/receipts?limit=1001", 422),
        ("/receipts?cursor=x", 422),
        ("/receipts?request_id=x", 422),
        ("/receipts?from=never", 422),
        ("/receipts?from=0001-01-01", 422),
        ("/receipts?model=%00", 422),
        ("/receipts/%00", 422),
        ("/receipts/nothing", 404),
        ("/receipts/nothing/proof?tree_size=0", 422),
        ("/receipts/nothing?evidence=x", 422),
        ("/log/consistency", 422),
        ("/log/consistency?first=-1", 422),
        ("/log/consistency?first=1", 400),
        ("/log/consistency?first=0&second=1", 400),
        ("/log/consistency?first=99999999999999999999", 422),
        ("/attestation/sessions?status=pending", 422),
        ("/attestation/sessions?skip=-1", 422),
        ("/attestation/sessions/nothing", 404),
        (f"/attestation/sessions/{uuid.UUID(int=7)}", 404),
    ],
)
async def test_what_is_asked_wrongly_is_refused(client, path, status):
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


async def test_the_log_is_shown_and_proven_at_every_size(client, store, log):
    empty = await got(client, "/log/head")
    own = {"key_id": KEY.key_id, "algorithm": "ed25519", "public_key": KEY.public_key.hex()}
    assert empty == {"head": None, "keys": [{**own, "first_used_at": None}]}
    nothing = await got(client, "/log/consistency", first=0)
    assert (nothing["second"], nothing["second_root"]) == (0, EMPTY_ROOT.hex())
    calls = [transcript() for _ in range(5)]
    for call in calls[:3]:
        await settle(store, call)
    await log.append(10)
    for call in calls[3:]:
        await settle(store, call)
    await log.append(10)
    told = await got(client, "/log/head")
    assert verify_head(msgspec.convert(told["head"], TreeHead), KEY.public_key)
    assert [key["first_used_at"] is not None for key in told["keys"]] == [True]
    for size in range(1, 6):
        found = await got(client, f"/receipts/{calls[0].receipt_id}/proof", tree_size=size)
        assert (found["head"] is not None) == (size in (3, 5))
        path = [bytes.fromhex(one) for one in found["inclusion_proof"]]
        leaf, root = bytes.fromhex(found["leaf_hash"]), bytes.fromhex(found["root_hash"])
        assert verify_inclusion(leaf, found["leaf_index"], size, path, root)
        grown = await got(client, "/log/consistency", first=size)
        assert grown["second"] == 5
        roots = bytes.fromhex(grown["first_root"]), bytes.fromhex(grown["second_root"])
        path = [bytes.fromhex(one) for one in grown["consistency_proof"]]
        assert verify_consistency(size, 5, *roots, path)
        assert roots == (root, bytes.fromhex(told["head"]["root_hash"]))
    assert (await got(client, f"/receipts/{calls[0].request_id}/proof"))["tree_size"] == 5
    await got(client, f"/receipts/{calls[4].receipt_id}/proof", 400, tree_size=3)
    for place, named, query in (
        (f"/receipts/{calls[0].receipt_id}/proof", "tree_size", {"tree_size": 6}),
        ("/log/consistency", "second", {"first": 1, "second": 99}),
        ("/log/consistency", "first", {"first": 4, "second": 3}),
        ("/log/consistency", "first", {"first": 6}),
    ):
        refused = await got(client, place, 400, **query)
        assert refused["error"]["param"] == named


async def test_acis_verifiers_can_read_a_receipt(client, store):
    call = transcript(endpoint="chat.completions", ended_at=NOW + 1.75)
    await settle(store, call)
    chat_id = f"chatcmpl-{call.request_id}"
    found = await got(client, f"/aci/receipts/{call.receipt_id}")
    for wanted in (call.request_id, chat_id):
        assert await got(client, f"/aci/receipts/{wanted}") == found
    signature = found.pop("signature")
    assert verify_signature(found, signature, KEY.public_key)
    assert found == {
        "api_version": "aci/1",
        "receipt_id": str(uuid.UUID(call.receipt_id)),
        "chat_id": chat_id,
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "method": "POST",
        "served_at": int(NOW) + 1,
        "key_id": KEY.key_id,
        "workload_keyset_digest": keyset_digest(keyset_of(KEY)),
        # What nobody saw, as the answer to a client who was gone, has no event.
        "event_log": [
            {"type": "request.received", "body_hash": "sha256:" + 64 * "a"},
            {"type": "request.forwarded", "body_hash": "sha256:" + 64 * "b"},
            {"type": "response.received", "body_hash": "sha256:" + 64 * "c"},
        ],
    }
    other = transcript(endpoint="embeddings")
    await settle(store, other)
    found = await got(client, f"/aci/receipts/{other.receipt_id}")
    assert found["chat_id"] == str(uuid.UUID(other.request_id))


async def test_attestation_sessions_are_shown_to_every_key(client, engine):
    store, sessions = SessionStore(engine), []
    for number, label in enumerate(("verified", "failed")):
        made = attestation_session(
            label=label,
            fetched_at=utc(NOW + number),
            evidence=SessionEvidence(report=digest_of(REPORT)),
        )
        await store.add(made, {digest_of(REPORT): REPORT})
        sessions.append(str(made.session_id))

    async def listed(**query: Any) -> list[str]:
        found = (await got(client, "/attestation/sessions", **query))["data"]
        return [one["session_id"] for one in found]

    assert await listed() == sessions[::-1]
    assert await listed(model="near_m") == await listed(model="org/m") == sessions[::-1]
    assert await listed(model="nobody's") == []
    assert await listed(status="verified", provider="near") == sessions[:1]
    assert await listed(skip=1, limit=5) == sessions[:1]
    found = await got(client, f"/attestation/sessions/{sessions[0]}")
    assert found["evidence"] == {digest_of(REPORT): REPORT}
    assert found["session"]["label"] == "verified"
    assert found["session"]["evidence"]["report"] == digest_of(REPORT)
    short = await got(client, f"/attestation/sessions/{sessions[0]}", evidence="false")
    assert short == {"session": found["session"], "evidence": {}}


async def test_an_archive_that_is_away_is_503_and_says_nothing_of_why(database_url, client):
    engine = make_engine(database_url, "test")
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE receipts RENAME TO gone"))
    answer = await client.get(f"/receipts/{new_id()}")
    await engine.dispose()
    assert answer.status_code == 503
    assert "gone" not in answer.text
    assert "SELECT" not in answer.text


async def test_evidence_never_leaves_as_anything_but_a_json_string(client, store):
    call = transcript()
    hostile = '"}],"receipt":{"label":"verified"},"x":"\u2028<script>\0'
    await settle(store, call, hostile)
    answer = await client.get(f"/receipts/{call.receipt_id}")
    assert json.loads(answer.content)["evidence"] == {digest_of(hostile): hostile}
    assert list(answer.json()) == ["receipt", "evidence", "log"]
