"""Labels are given by rule, and by nothing else."""

import pytest

from shared.attestation.factor import DECIDING, INFORMING, Factor, Status
from shared.attestation.session import Session, unproven
from shared.attestation.verdict import judge
from shared.document import DEMOTABLE
from tests.unit.attestation.minted import OF_SESSIONS

ALL_PASS = [Factor(name, "pass", "computed") for name in DECIDING]


def but(name: str, status: Status) -> list[Factor]:
    return [Factor(f.name, status if f.name == name else f.status, f.source) for f in ALL_PASS]


def test_a_call_whose_every_deciding_factor_passes_is_verified():
    assert judge(ALL_PASS, gateway_scope=False, is_over=False).label == "verified"


def test_what_a_gateway_signed_is_never_more_than_gateway_only():
    assert judge(ALL_PASS, gateway_scope=True, is_over=False).label == "gateway_only"


@pytest.mark.parametrize("name", DECIDING)
def test_one_failing_factor_fails_the_call_and_is_named(name: str):
    verdict = judge(but(name, "fail"), gateway_scope=False, is_over=False)
    assert (verdict.label, verdict.reason, verdict.detail) == ("failed", "evidence_invalid", name)


def test_what_waits_for_the_quote_is_not_named_as_the_cause():
    open_ones = ("report_nonce", "signer_bound", "quote_valid", "tcb_status")
    told = [Factor(one.name, "unknown" if one.name in open_ones else "pass", "quote")
            for one in ALL_PASS]  # fmt: skip
    assert judge(told, gateway_scope=False, is_over=True).detail == "quote_valid"


@pytest.mark.parametrize("name", INFORMING)
def test_a_factor_that_informs_decides_by_failing_alone(name: str):
    with_unknown = [*ALL_PASS, Factor(name, "unknown", "computed")]
    with_failed = [*ALL_PASS, Factor(name, "fail", "computed")]
    assert judge(with_unknown, gateway_scope=False, is_over=True).label == "verified"
    assert judge(with_failed, gateway_scope=False, is_over=True).label == "failed"


@pytest.mark.parametrize("name", DECIDING)
def test_what_is_open_is_pending_until_the_deadline_and_then_failed(name: str):
    assert judge(but(name, "unknown"), gateway_scope=False, is_over=False).label == "pending"
    late = judge(but(name, "unknown"), gateway_scope=False, is_over=True)
    assert (late.label, late.reason, late.detail) == ("failed", "evidence_unavailable", name)


@pytest.mark.parametrize("name", DECIDING)
def test_a_factor_that_nobody_checked_is_open(name: str):
    without = [one for one in ALL_PASS if one.name != name]
    assert judge(without, gateway_scope=False, is_over=False).label == "pending"


def test_a_demoted_factor_may_stay_open():
    factors = but("gpu_measurements", "unknown")
    verdict = judge(factors, gateway_scope=False, demoted=("gpu_measurements",), is_over=False)
    assert verdict.label == "verified"


@pytest.mark.parametrize("name", [name for name in DECIDING if name not in DEMOTABLE])
def test_no_other_factor_can_be_demoted(name: str):
    verdict = judge(but(name, "unknown"), gateway_scope=False, demoted=DECIDING, is_over=True)
    assert (verdict.label, verdict.detail) == ("failed", name)


def test_nor_does_a_session_count_as_verified_without_them():
    assert set(unproven(Session(factors=()), DECIDING)) == {*OF_SESSIONS} - {*DEMOTABLE}


def test_a_cut_answer_is_never_verified():
    verdict = judge(ALL_PASS, gateway_scope=False, complete=False, cause="client_disconnected",
                    is_over=False)  # fmt: skip
    assert (verdict.label, verdict.reason) == ("failed", "evidence_unavailable")
    assert verdict.detail == "client_disconnected"
