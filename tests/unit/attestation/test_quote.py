"""Quotes: recorded ones under Intel's root, minted ones under a root of ours, and what is refused."""

import json

import dcap_qvl
import pytest

from shared.attestation import quote as quotes
from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION, Roots
from tests.unit.attestation.minted import KEY, NOW, Machine, collateral_text, pki
from tests.vectors import vector
from workers.simulator.tee.pki import Pki

RECORDED_AT = 1750414563
FIRST, LAST = 1750329147, 1752919234
NEAR_FIRST, NEAR_AT, NEAR_LAST = 1781052995, 1781056027, 1783643788
FACTORS = ("quote_valid", "collateral_current", "tcb_status", "not_debug")


def told(checked: quotes.Checked) -> dict[str, str]:
    return {one.name: one.status for one in checked.factors}


def reason(checked: quotes.Checked, name: str) -> str:
    return next(one.detail for one in checked.factors if one.name == name)


def expect(valid: str, current: str, level: str, debug: str) -> dict[str, str]:
    return dict(zip(FACTORS, (valid, current, level, debug), strict=True))


ALL_PASS = expect("pass", "pass", "pass", "pass")


def recorded(name: str, now: float = RECORDED_AT, raw: bytes | None = None) -> quotes.Checked:
    quote = vector(f"dcap-qvl/{name}") if raw is None else raw
    document = vector(f"dcap-qvl/{name}_collateral.json").decode()
    parsed = quotes.parse(quote)
    key = parsed.collateral_key if parsed else ""
    return quotes.check(quote, {key: document}, policy=Policy(), roots=PRODUCTION, now=now)


def near(now: float = NEAR_AT, raw: bytes | None = None) -> quotes.Checked:
    report = json.loads(vector("near-model-ecdsa-addr/attestation_report.json"))
    document = vector("near-model-ecdsa-addr/collateral_90C06F000000.json").decode()
    quote = bytes.fromhex(report["intel_quote"]) if raw is None else raw
    return quotes.check(quote, {KEY: document}, policy=Policy(), roots=PRODUCTION, now=now)


def minted(
    raw: bytes | None = None,
    *,
    document: str | None = None,
    policy: Policy | None = None,
    roots: Roots | None = None,
    now: float = NOW,
) -> quotes.Checked:
    quote = Machine().quote(bytes(64)) if raw is None else raw
    documents = {KEY: collateral_text() if document is None else document}
    return quotes.check(
        quote, documents, policy=policy or Policy(), roots=roots or pki().roots, now=now
    )


def test_a_recorded_quote_is_verified_under_intels_root():
    checked = recorded("tdx_quote")
    assert told(checked) == ALL_PASS
    assert (checked.is_verified, checked.tcb_status, checked.advisories) == (True, "UpToDate", ())
    assert checked.quote
    assert checked.quote.collateral_key == "B0C06F000000/platform"


@pytest.mark.parametrize("now", [FIRST, LAST, LAST + 0.9])
def test_collateral_is_current_to_the_second(now: float):
    assert told(recorded("tdx_quote", now)) == ALL_PASS


@pytest.mark.parametrize("now", [FIRST - 1, LAST + 1, 0, 2**40])
def test_outside_its_time_collateral_fails_and_the_quote_stays_open(now: float):
    checked = recorded("tdx_quote", now)
    assert told(checked) == expect("unknown", "fail", "unknown", "unknown")
    assert not checked.is_verified
    assert "2025-06-19T10:32:27Z to 2025-07-19T10:00:34Z" in reason(checked, "collateral_current")


@pytest.mark.parametrize("now", [FIRST - 1, LAST + 1])
def test_the_verifier_itself_refuses_what_we_call_out_of_date(now: int):
    document = dcap_qvl.QuoteCollateralV3.from_json(
        vector("dcap-qvl/tdx_quote_collateral.json").decode()
    )
    with pytest.raises(ValueError, match=r"in the future|CrlExpired"):
        dcap_qvl.verify(vector("dcap-qvl/tdx_quote"), document, now)


@pytest.mark.parametrize(
    ("now", "status"),
    [(NEAR_FIRST, "pass"), (NEAR_LAST, "pass"), (NEAR_FIRST - 1, "fail"), (NEAR_LAST + 1, "fail")],
)
def test_a_nodes_collateral_has_the_window_that_was_found(now: float, status: str):
    assert told(near(now))["collateral_current"] == status


@pytest.mark.parametrize(
    "name", ["near-model-ecdsa-addr/attestation_report.json", "dstack/quote-report.json",
             "dstack/tdx-lite-getquote.json"],
)  # fmt: skip
def test_other_recorded_quotes_of_the_same_platform_are_verified(name: str):
    document = json.loads(vector(name))
    shown = document.get("compose_manager_attestation", document)
    assert told(near(raw=bytes.fromhex(shown["quote"]))) == ALL_PASS


def test_a_quote_of_version_5_is_parsed_and_its_level_is_refused():
    checked = recorded("tdx_quote_outdated", 1772000000)
    assert told(checked) == expect("unknown", "unknown", "fail", "unknown")
    assert reason(checked, "tcb_status") == "No matching TCB level found"
    assert checked.quote
    assert checked.quote.collateral_key == "90C06F000000/platform"


@pytest.mark.parametrize("name", ["quote-from-tappd.hex", "tdx-quote.hex"])
def test_hex_quotes_are_parsed_and_match_no_level_of_anothers_collateral(name: str):
    text = vector(f"dcap-qvl/{name}").decode().strip()
    checked = recorded("tdx_quote", raw=bytes.fromhex(text.removeprefix("0x")))
    assert told(checked) == expect("unknown", "unknown", "fail", "unknown")


def test_an_sgx_quote_is_refused_though_its_signatures_are_right():
    quote, document = (
        vector("dcap-qvl/sgx_quote"),
        vector("dcap-qvl/sgx_quote_collateral.json").decode(),
    )
    found = dcap_qvl.verify(quote, dcap_qvl.QuoteCollateralV3.from_json(document), RECORDED_AT)
    assert found.status == "ConfigurationAndSWHardeningNeeded"
    assert found.advisory_ids == ["INTEL-SA-00289", "INTEL-SA-00615"]
    checked = recorded("sgx_quote")
    assert told(checked) == expect("fail", "unknown", "unknown", "unknown")
    assert checked.quote is None


@pytest.mark.parametrize(
    ("at", "cause"),
    [(600, "ISV enclave report signature is invalid"), (700, "QE report hash mismatch")],
)
def test_a_flipped_byte_is_found(at: int, cause: str):
    raw = bytearray(vector("dcap-qvl/tdx_quote"))
    raw[at] ^= 1
    checked = recorded("tdx_quote", raw=bytes(raw))
    assert told(checked) == expect("fail", "unknown", "unknown", "unknown")
    assert reason(checked, "quote_valid") == cause


def test_a_minted_quote_is_verified_under_its_own_root_alone():
    assert told(minted()) == ALL_PASS
    for roots in (PRODUCTION, Pki.mint(NOW).roots):
        assert told(minted(roots=roots)) == expect("fail", "unknown", "unknown", "unknown")


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"])
def test_a_status_passes_only_where_an_operator_allows_it(status: str):
    document = collateral_text(status)
    checked = minted(document=document)
    assert told(checked) == expect("pass", "pass", "fail", "pass")
    assert reason(checked, "tcb_status") == f"{status} (INTEL-SA-00615, INTEL-SA-00837)"
    allowed = Policy(allowed_tcb=("UpToDate", status))
    assert told(minted(document=document, policy=allowed)) == ALL_PASS


def test_a_revoked_platform_fails_whatever_an_operator_allows():
    checked = minted(document=collateral_text("Revoked"), policy=Policy(allowed_tcb=("Revoked",)))
    assert told(checked) == expect("unknown", "unknown", "fail", "unknown")


def test_a_machine_in_debug_mode_fails_with_and_without_collateral():
    raw = Machine(debug=True).quote(bytes(64))
    assert told(minted(raw)) == expect("unknown", "unknown", "unknown", "fail")
    assert told(minted(raw, document="")) == expect("unknown", "unknown", "unknown", "fail")


def test_missing_collateral_leaves_everything_open():
    checked = minted(document="")
    assert told(checked) == expect("unknown", "unknown", "unknown", "unknown")
    assert reason(checked, "quote_valid") == f"no collateral for {KEY}"
    assert not checked.is_verified


@pytest.mark.parametrize("document", ["{}", "[]", "no JSON", '{"tcb_info": 1}', "null"])
def test_collateral_that_cannot_be_read_fails(document: str):
    assert told(minted(document=document)) == expect("unknown", "fail", "unknown", "unknown")


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl"])
def test_each_document_has_its_say_on_the_window(member: str):
    document = json.loads(collateral_text())
    document[member] = ""
    assert told(minted(document=json.dumps(document)))["collateral_current"] == "fail"


def test_collateral_that_somebody_changed_does_not_verify():
    document = json.loads(collateral_text("OutOfDate"))
    document["tcb_info"] = document["tcb_info"].replace("OutOfDate", "UpToDate")
    checked = minted(document=json.dumps(document))
    assert told(checked) == expect("fail", "unknown", "unknown", "unknown")


@pytest.mark.parametrize("raw", [b"", b"\0", bytes(5000), b"\4\0\2\0\x81\0\0\0" + bytes(40)])
def test_what_is_no_quote_is_refused(raw: bytes):
    assert told(minted(raw)) == expect("fail", "unknown", "unknown", "unknown")


def test_every_cut_of_a_quote_is_refused():
    raw = Machine().quote(bytes(64))
    for size in range(0, len(raw) - 1, 97):
        assert told(minted(raw[:size]))["quote_valid"] == "fail"
