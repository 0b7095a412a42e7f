"""Which part of the ledger a reader asks for, as conditions of a query."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2106, 1, 1, tzinfo=UTC)
"""ClickHouse's hours end a month later."""
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)

EntryStatus = Literal["success", "error"]
SAME_IN_ALL_ATTEMPTS = ("tenant", "user", "key_id", "tier", "endpoint")
OF_AN_ATTEMPT = ("model", "provider")
"""Fallback may change them: which ones a request has is only known of the attempt that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """None: not asked for. Times are those of admission; `until` is exclusive."""

    since: datetime = EPOCH
    until: datetime = END_OF_TIME
    tenant: str | None = None
    user: str | None = None
    key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    tier: str | None = None
    endpoint: str | None = None
    status: EntryStatus | None = None
    tag: tuple[str, str] | None = None

    @property
    def looks_at_attempts(self) -> bool:
        """Whether a row alone does not say if its request is meant."""
        return self.status is not None or any(
            getattr(self, name) is not None for name in OF_AN_ATTEMPT
        )

    @property
    def parameters(self) -> dict[str, object]:
        """The values for the conditions below."""
        found = {
            name: value
            for name in (*SAME_IN_ALL_ATTEMPTS, *OF_AN_ATTEMPT)
            if (value := getattr(self, name)) is not None
        }
        if self.tag is not None:
            found |= {"tag": self.tag[0], "tag_value": self.tag[1]}
        return found

    @property
    def of_a_request(self) -> list[str]:
        """Conditions on what all attempts of a request have in common."""
        found = [
            f"{name} = {{{name}:String}}"
            for name in SAME_IN_ALL_ATTEMPTS
            if getattr(self, name) is not None
        ]
        if self.tag is not None:
            found.append(
                "mapContains(tags, {tag:String}) AND tags[{tag:String}] = {tag_value:String}"
            )
        return found

    @property
    def of_a_line(self) -> list[str]:
        """Conditions on a line of sums, which has one status for all its requests."""
        found = [
            f"{name} = {{{name}:String}}"
            for name in (*SAME_IN_ALL_ATTEMPTS, *OF_AN_ATTEMPT)
            if getattr(self, name) is not None
        ]
        return found if self.status is None else [*found, f"status = '{self.status}'"]

    @property
    def of_an_attempt(self) -> list[str]:
        """Conditions on the attempt that counts."""
        found = [
            f"{name} = {{{name}:String}}"
            for name in OF_AN_ATTEMPT
            if getattr(self, name) is not None
        ]
        if self.status is not None:
            found.append(f"status {'=' if self.status == 'success' else '!='} 'completed'")
        return found


def microseconds(moment: datetime) -> int:
    """Since the epoch, exactly: a time given as a parameter would lose its fraction."""
    return (moment - EPOCH) // MICROSECOND


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def hour_at_or_after(moment: datetime) -> datetime:
    return hour_of(moment + HOUR - MICROSECOND)
