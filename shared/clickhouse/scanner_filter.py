"""Which requests a reader of the Scanner asks for, as conditions of a query.

What is asked for comes in as parameters alone, and nothing of it is a pattern.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Self

from shared.clickhouse.usage_filter import END_OF_TIME, EPOCH, microseconds
from shared.ids import dashed

ScannerStatus = Literal["completed", "failed", "cancelled"]
"""A request whose worker was lost has failed."""

CLOCKS = timedelta(minutes=1)
"""An id may be of a later time than its request's admission, by as much as a clock was set back."""
INTAKE = timedelta(hours=1)
"""An id is made when a request's head has come, and the request is admitted when its body has."""
FIRST_IDS = datetime(2020, 1, 1, tzinfo=EPOCH.tzinfo)
ID_DIGITS, TIME_DIGITS = 32, 12
LEAST_DIGITS = 8
"""Of an id's beginning: fewer tell no more than which quarter of an hour it is of, and might well be
of a model's name."""
_DIGITS = re.compile(f"[0-9a-f]{{{LEAST_DIGITS},{ID_DIGITS}}}")


class IdPrefix(NamedTuple):
    """An id of a request, or its beginning, and when such requests were admitted."""

    text: str
    """As ClickHouse prints ids."""
    since: datetime
    until: datetime

    @classmethod
    def read(cls, text: str) -> Self | None:
        """None for what cannot be one: ids are UUIDv7, which begin with their time."""
        digits = text.lower().replace("-", "")
        printed = dashed(digits).rstrip("-")
        if not _DIGITS.fullmatch(digits) or text.lower().rstrip("-") not in (digits, printed):
            return None
        first, last = (int(digits[:TIME_DIGITS].ljust(TIME_DIGITS, fill), 16) for fill in "0f")
        if not microseconds(FIRST_IDS) <= first * 1000 <= last * 1000 < microseconds(END_OF_TIME):
            return None
        since, until = (EPOCH + timedelta(milliseconds=moment) for moment in (first, last))
        return cls(printed, since - CLOCKS, until + INTAKE)


class Owner(NamedTuple):
    tenant: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannerFilter:
    """None: not asked for; empty: those that have none."""

    status: ScannerStatus | None = None
    model: str | None = None
    creator: str | None = None
    application: str | None = None
    text: str | None = None
    """An id or its beginning, else a part of a model's name in any case."""
    owner: Owner | None = None

    @property
    def id_prefix(self) -> IdPrefix | None:
        return None if self.text is None else IdPrefix.read(self.text)

    @property
    def conditions(self) -> list[str]:
        """Those that leave most out come first."""
        found = []
        if self.owner is not None:
            found.append("owner_hash = cityHash64({tenant:String}, {user:String})")
        found += [
            f"{name} = {{{name}:String}}" for name in _NAMES if getattr(self, name) is not None
        ]
        if self.id_prefix is not None:
            found.append(
                "created_at >= fromUnixTimestamp64Micro({id_low:Int64}, 'UTC')"
                " AND created_at < fromUnixTimestamp64Micro({id_high:Int64}, 'UTC')"
                " AND startsWith(toString(request_id), {id_prefix:String})"
            )
        elif self.text:
            found.append("positionCaseInsensitiveUTF8(model, {text:String}) > 0")
        return found

    @property
    def parameters(self) -> dict[str, object]:
        """The values for the conditions."""
        found: dict[str, object] = {
            name: value for name in _NAMES if (value := getattr(self, name)) is not None
        }
        if self.owner is not None:
            found |= self.owner._asdict()
        if (prefix := self.id_prefix) is not None:
            found |= {
                "id_prefix": prefix.text,
                "id_low": microseconds(prefix.since),
                "id_high": microseconds(prefix.until),
            }
        elif self.text:
            found["text"] = self.text
        return found


_NAMES = ("application", "model", "creator", "status")
