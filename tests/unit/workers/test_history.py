"""What is told of a machine that is not as it was: a signer is compared with its own last session."""

from collections.abc import Sequence
from typing import cast

import pytest

from shared.attestation.session import Session
from shared.metrics import Metrics
from shared.postgres.attestation_sessions import AttestationSession, SessionStore
from tests.integration.archived import attestation_session
from workers.attestation.history import History
from workers.attestation.target import Target

A, B = "aa" * 20, "bb" * 20


class Stored:
    """Sessions of one model, the newest first, as the store answers for them."""

    def __init__(self, *sessions: AttestationSession) -> None:
        self.sessions = sessions

    async def latest(
        self, provider: str, upstream_model: str, *, signer: str | None = None
    ) -> AttestationSession | None:
        assert (provider, upstream_model) == ("near", "org/m")
        return next((one for one in self.sessions if signer in (None, one.signer)), None)


class Place:
    provider, upstream_model = "near", "org/m"


def before(
    signer: str, compose_hash: str = "c", tcb_status: str = "UpToDate"
) -> AttestationSession:
    return attestation_session(signer=signer, compose_hash=compose_hash, tcb_status=tcb_status)


async def compared(
    earlier: Sequence[AttestationSession], signer: str = A, compose_hash: str = "c",
    tcb_status: str = "UpToDate",
) -> tuple[str, str, list[str]]:  # fmt: skip
    """Status, sentence, and the alarms."""
    metrics = Metrics()
    history = History(cast("SessionStore", Stored(*earlier)), metrics)
    now = Session(factors=(), signer=signer, compose_hash=compose_hash, tcb_status=tcb_status)
    found = await history.compare(cast("Target", Place()), now)
    samples = next(iter(metrics.attestation_alarms.collect())).samples
    return found.status, found.detail, [sample.labels["kind"] for sample in samples]


async def test_the_first_session_has_nothing_to_be_compared_with():
    assert await compared([]) == ("unknown", "this is the first session of the model", [])


async def test_signers_that_take_turns_are_no_news():
    same = "signer, compose hash and TCB status are as last time"
    assert await compared([before(B), before(A)]) == ("pass", same, [])


async def test_a_signer_that_was_never_seen_is_told():
    told = "changed since last time: signer"
    assert await compared([before(B)]) == ("unknown", told, ["new_signer"])


@pytest.mark.parametrize(("changes", "told", "alarm"), [
    ({"compose_hash": "d"}, "compose hash", "new_compose_hash"),
    ({"tcb_status": "OutOfDate"}, "TCB status", "new_tcb_status"),
])  # fmt: skip
async def test_a_known_signer_on_other_software_is_told(changes, told: str, alarm: str):
    """Whatever another signer's machine ran meanwhile."""
    others = before(B, compose_hash="d", tcb_status="OutOfDate")
    found = await compared([others, before(A)], **changes)
    assert found == ("unknown", f"changed since last time: {told}", [alarm])


async def test_a_new_signer_on_other_software_is_told_of_both():
    found = await compared([before(B)], compose_hash="d")
    assert found[1:] == (
        "changed since last time: signer, compose hash", ["new_signer", "new_compose_hash"]
    )  # fmt: skip


async def test_what_a_report_does_not_show_raises_no_alarm():
    found = await compared([before(A)], signer="", tcb_status="")
    assert found == ("unknown", "not shown this time: signer, TCB status", [])


async def test_a_change_is_told_once_while_it_lasts_and_again_when_it_comes_again():
    """Whether or not anybody stores the sessions meanwhile."""
    metrics = Metrics()
    history = History(cast("SessionStore", Stored(before(A))), metrics)
    told = metrics.attestation_alarms.labels("new_tcb_status")
    for status, alarms in (
        ("OutOfDate", 1), ("OutOfDate", 1), ("Revoked", 2), ("UpToDate", 2), ("OutOfDate", 3),
    ):  # fmt: skip
        now = Session(factors=(), signer=A, compose_hash="c", tcb_status=status)
        await history.compare(cast("Target", Place()), now)
        assert told.value == alarms
