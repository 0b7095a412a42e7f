"""Sessions of recorded evidence: it passes as it is, and no change of it adds a pass or a fall."""

import hashlib
import json
import random
import string
from typing import Any

import msgspec
import pytest

from shared.attestation import quote as quotes
from shared.attestation.evidence import Evidence
from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION
from shared.attestation.session import Session, collateral_needed, examine
from tests.unit.attestation.minted import DIRECT, FMSPC, KEY, details, statuses
from tests.vectors import vector

NEAR = "near-model-ecdsa-addr"
NEAR_SIGNER = "6525e128afcffebf7eed05d485d7be983cdae934"
NEAR_AT = 1781056027.0


def near_evidence(**changes: Any) -> Evidence:
    def text(name: str) -> str:
        return vector(f"{NEAR}/{name}").decode()

    whole = Evidence(
        nonce=json.loads(text("meta.json"))["nonce"],
        report=text("attestation_report.json"),
        reported_at=NEAR_AT - 20,
        collateral={KEY: text("collateral_90C06F000000.json")},
        nras=text("nras_response.json"),
        nras_keys=text("nras_jwks_used_keys.json"),
    )
    return msgspec.structs.replace(whole, **changes)


def near(evidence: Evidence | None = None, *, signer: str = "0x" + NEAR_SIGNER.upper()) -> Session:
    return examine(
        evidence or near_evidence(), signer=signer, upstream_model="Qwen/Qwen3.5-122B-A10B",
        policy=Policy(), roots=PRODUCTION, now=NEAR_AT,
    )  # fmt: skip


def test_recorded_evidence_passes_in_every_factor():
    session = near()
    assert statuses(session) == DIRECT
    assert (session.shape, session.scope, session.gpus) == ("near-direct", "model", 8)
    assert (session.signer, session.algorithm) == (NEAR_SIGNER, "ecdsa")
    assert (session.tcb_status, session.fmspc) == ("UpToDate", FMSPC)
    assert session.compose_hash.startswith("4676ec04")
    quote = quotes.parse(bytes.fromhex(json.loads(near_evidence().report)["intel_quote"]))
    assert quote is not None
    measured = b"".join((quote.mr_td, *quote.rtmrs[:3]))
    assert session.os_image_hash == hashlib.sha256(measured).hexdigest()
    assert "9b69bb16" in details(session)["os_image_known"]
    assert not session.synthetic


def test_the_signer_of_a_recorded_chat_is_the_attested_one():
    signature = json.loads(vector("near-chat-stream-ecdsa/signature.json"))
    assert statuses(near(signer=signature["signing_address"])) == DIRECT


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"nonce": "00" * 32}, {"report_nonce", "gpu_nonce", "gpu_measurements"}),
        ({"nonce": ""}, {"report_nonce"}),
        ({"reported_at": NEAR_AT - 301}, {"report_nonce"}),
        ({"nras": "[]"}, {"gpu_measurements"}),
    ],
)
def test_recorded_evidence_fails_where_it_is_changed(changes: dict[str, Any], failing: set[str]):
    told = statuses(near(near_evidence(**changes)))
    assert {name for name, status in told.items() if status == "fail"} == failing


@pytest.mark.parametrize(("at", "name"), [(600, "report_nonce"), (700, "quote_valid")])
def test_a_flipped_byte_of_a_recorded_quote_fails(at: int, name: str):
    report = json.loads(near_evidence().report)
    raw = bytearray.fromhex(report["intel_quote"])
    raw[at] ^= 1
    told = statuses(near(near_evidence(report=json.dumps({**report, "intel_quote": raw.hex()}))))
    assert told[name] == told["quote_valid"] == "fail"


def test_what_a_report_says_of_itself_counts_for_nothing():
    report = json.loads(near_evidence().report)
    report["info"] = {"tcb_info": {"app_compose": report["info"]["tcb_info"]["app_compose"]}}
    for name in ("request_nonce", "nonce", "verified", "server_verification", "report_data"):
        report[name] = "something else"
    assert statuses(near(near_evidence(report=json.dumps(report)))) == DIRECT


def test_a_changed_event_payload_of_a_recorded_log_fails():
    report = json.loads(near_evidence().report)
    event = next(one for one in report["event_log"] if one["event"] == "app-id")
    event["event_payload"] = "00" * 20
    told = statuses(near(near_evidence(report=json.dumps(report))))
    assert told["rtmr_replay"] == "fail"


def test_recorded_evidence_names_its_roots_and_its_collateral():
    assert details(near())["trust_root"] == PRODUCTION.name
    assert collateral_needed(near_evidence().report) == (KEY,)


def paths(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [before] if before else []
    if isinstance(document, dict):
        for name, value in document.items():
            found += paths(value, (*before, name))
    elif isinstance(document, list):
        for at, value in enumerate(document[:3]):
            found += paths(value, (*before, at))
    return found


def mutated(document: Any, path: tuple[Any, ...], chance: random.Random) -> Any:
    if not path:
        return chance.choice(
            [
                None, True, -1, 1 << 70, 1.5e300, "", "0x", "zz", "00" * 31, [], {}, [document],
                {"a": document}, str(document)[: chance.randrange(2000)], json.dumps(document),
                "".join(chance.choices(string.printable, k=50)), [None] * 3, "é" * 9,
            ]
        )  # fmt: skip
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = mutated(document[path[0]], path[1:], chance)
    return copy


def test_no_change_of_a_recorded_report_makes_the_examination_fall_over_or_adds_a_pass():
    report = json.loads(near_evidence().report)
    chance, all_paths = random.Random(5), paths(report)
    for _ in range(25):
        changed = mutated(report, chance.choice(all_paths), chance)
        session = near(near_evidence(report=json.dumps(changed)))
        assert {k for k, v in statuses(session).items() if v == "pass"} <= {
            k for k, v in DIRECT.items() if v == "pass"
        } | {"gateway_attested"}
        assert [one.name for one in session.factors] == list(statuses(near()))


def test_no_cut_or_flip_of_a_recorded_reports_text_makes_the_examination_fall_over():
    report, chance = near_evidence().report, random.Random(6)
    for _ in range(60):
        at = chance.randrange(len(report))
        letter = chance.choice('0f"{}[],:\\\ud800\x00')
        for text in (report[:at], report[:at] + letter + report[at + 1 :]):
            assert len(near(near_evidence(report=text)).factors) == len(DIRECT)
