"""A permit: a prompt leaves for a proved machine alone, and only over a key that is attested."""

import pytest

from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION
from shared.attestation.session import Session, unproven
from shared.attestation.verify import TLS_KEY_NOT_ATTESTED
from tests.unit.attestation.minted import (
    NOW,
    SPKI,
    Machine,
    aci,
    evidence,
    examined,
    keyset,
    near_direct,
)
from tests.unit.workers.test_evidence_clients import provider
from workers.attestation.sessions import HeldSession
from workers.attestation.target import Target
from workers.inference.permit import NotPermitted, Permit, permit

OTHER, DEFAULT = "d8" * 32, Policy()


class Held:
    """Knows one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, target: Target, *, signer: str = "") -> HeldSession:
        return HeldSession(
            session_id="1", session=self._session, evidence=evidence(""), verified_at=NOW,
            unproven=unproven(self._session),
        )  # fmt: skip

    async def keep(self, held: HeldSession, target: Target) -> None:
        assert held.session is self._session

    def forget(self, target: Target) -> None:
        raise AssertionError


async def asked(session: Session, policy: Policy = DEFAULT) -> Permit:
    target = Target(
        provider="p", base_url="https://our.host/v1", upstream_model="m", may_be_aci=True,
        asked=provider({})[0], policy=policy, roots=PRODUCTION, pccs_url="", nras_url="", deadline_seconds=1.0,
        host="our.host",
    )  # fmt: skip
    return await permit(Held(session), target)


def aci_session(*tls: tuple[str, str]) -> Session:
    return examined(aci("c", workload_keyset=keyset(tls=tls)), policy=Policy(has_gpu=False))


@pytest.mark.parametrize("tls", [
    [("our.host", SPKI)], [("our.host", SPKI), ("other.host", OTHER)],
    [("other.host", OTHER), ("our.host", SPKI)],
])  # fmt: skip
async def test_of_several_attested_tls_keys_the_one_for_the_host_is_pinned(
    tls: list[tuple[str, str]],
):
    assert (await asked(aci_session(*tls))).pins == {SPKI}


@pytest.mark.parametrize("tls", [
    [("other.host", OTHER)], [("other.host", OTHER), ("another.host", SPKI)],
])  # fmt: skip
async def test_where_no_attested_tls_key_is_for_the_host_nothing_leaves(
    tls: list[tuple[str, str]],
):
    with pytest.raises(NotPermitted) as refused:
        await asked(aci_session(*tls))
    assert (refused.value.cause, refused.value.session_id) == (TLS_KEY_NOT_ATTESTED, "1")


async def test_a_report_without_a_tls_key_pins_none_unless_one_is_required():
    stripped = examined(near_direct(Machine()))
    assert (await asked(stripped)).pins == frozenset()
    required = Policy(tls_key_required=True)
    with pytest.raises(NotPermitted) as refused:
        await asked(stripped, required)
    assert refused.value.cause == TLS_KEY_NOT_ATTESTED
    whole = examined(near_direct(Machine(tls_spki=SPKI)))
    assert (await asked(whole, required)).pins == {SPKI}
