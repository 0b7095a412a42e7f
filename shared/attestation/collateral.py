"""Collateral: Intel's statements about a platform, and the time in which they are all current."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from cryptography import x509

from shared.attestation.forms import mapping, octets, text

DOCUMENTS = ("tcb_info", "qe_identity")
REVOCATION_LISTS = ("root_ca_crl", "pck_crl")


class Window(msgspec.Struct, frozen=True):
    """In epoch seconds; both ends belong to it."""

    begins_at: int
    ends_at: int

    def holds(self, now: float) -> bool:
        return self.begins_at <= int(now) <= self.ends_at

    @property
    def told(self) -> str:
        return f"current from {_date(self.begins_at)} to {_date(self.ends_at)}"


def read_window(document: str) -> Window | None:
    """Of the TCB info, the QE identity and both revocation lists; None where one cannot be read."""
    found = mapping(document)
    try:
        windows = [_of_json(mapping(found.get(one))) for one in DOCUMENTS]
        ends = [_end_of_list(octets(found.get(one))) for one in REVOCATION_LISTS]
    except (ValueError, OverflowError):
        return None
    return Window(max(w[0] for w in windows), min(*ends, *(w[1] for w in windows)))


def _of_json(document: Mapping[str, object]) -> tuple[int, int]:
    dates = [datetime.fromisoformat(text(document.get(one))) for one in ("issueDate", "nextUpdate")]
    begins_at, ends_at = (int(date.timestamp()) for date in dates if date.tzinfo)
    return begins_at, ends_at


def _end_of_list(der: bytes) -> int:
    """A list has expired at its next update, and not only after it. When it was issued does not matter:
    a later one only knows more."""
    found = x509.load_der_x509_crl(der)
    if found.next_update_utc is None:
        raise ValueError("a revocation list that never expires")
    return int(found.next_update_utc.timestamp()) - 1


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
