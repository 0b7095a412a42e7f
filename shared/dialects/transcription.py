"""The form of `POST /v1/audio/transcriptions`: its text fields, each checked as it comes in."""

import math

import msgspec

from shared.dialects.faults import bad, unsupported
from shared.dialects.request import OURS, InferenceRequest, read_model, read_own_tags
from shared.errors import InvalidRequest

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
DEFAULT_FORMAT = "json"
JSON_FORMATS = frozenset({"json", "verbose_json"})
"""The others are text, passed on as it is."""
DENY_UNKNOWN = "ollm::deny_unknown_fields"
OWN_TRUTHS = ("ollm::dryrun", DENY_UNKNOWN)
MODEL = "model"
USER = "user"
TAGS = "ollm::tags"
ONE_TAG = "ollm::tags["
REPEATABLE = "[]"
"""A name that ends with it may stand several times."""

KNOWN_FIELDS = frozenset(
    "model language prompt response_format temperature timestamp_granularities[] include[] stream"
    " user ollm::tags ollm::dryrun ollm::deny_unknown_fields".split()
)


class Fields:
    """The text fields of one form, in the order they came."""

    def __init__(self) -> None:
        self._given: list[tuple[str, str]] = []
        self._is_admitted = False
        self._selector_is_billed = False
        self._passed_on = 0

    @property
    def has_model(self) -> bool:
        return self._value(MODEL) is not None

    def add(self, name: str, value: str) -> None:
        """Raises InvalidRequest where the value is not what its name asks for."""
        if _looks_like_model(name):
            raise bad(name, "is not the name of a field", "value_error")
        if self._is_admitted and self._is_ours(name) and name != DENY_UNKNOWN:
            raise bad(name, "must stand before the file", "value_error")
        if not name.endswith(REPEATABLE) and self._value(name) is not None:
            raise bad(name, "stands twice in the form", "duplicate_key")
        _check(name, value)
        self._given.append((name, value))

    def fresh(self) -> tuple[tuple[str, str], ...]:
        """What the provider is to have and was not taken before: all but `model` and our own."""
        fresh, self._passed_on = self._given[self._passed_on :], len(self._given)
        return tuple(
            (name, value) for name, value in fresh if name != MODEL and not self._is_ours(name)
        )

    def _is_ours(self, name: str) -> bool:
        """Whether it is between the client and us alone."""
        return name.startswith(OURS) or (name == USER and self._selector_is_billed)

    def request(self, *, selector_is_billed: bool = False) -> InferenceRequest:
        """What the gateway needs to know. What it has not heard of by now comes too late.

        `selector_is_billed`: `user` names the billed user.

        Raises InvalidRequest.
        """
        self._is_admitted, self._selector_is_billed = True, selector_is_billed
        own = {name: value for name, value in self._given if name in (MODEL, *OWN_TRUTHS)}
        return InferenceRequest(
            fields={},
            model=read_model(own),
            user=self._value(USER),
            tags=read_own_tags({TAGS: self._tags()}),
            dryrun=own.get("ollm::dryrun") == "true",
        )

    def _tags(self) -> object:
        """JSON, or a field for each, as OpenAI's clients write an object into a form."""
        whole = self._value(TAGS)
        if whole:
            return _json(TAGS, whole)
        return {name[len(ONE_TAG) : -1]: value for name, value in self._given if _is_tag(name)}

    def deny_unknown(self) -> None:
        """At the form's end. Raises InvalidRequest."""
        if self._value(DENY_UNKNOWN) != "true":
            return
        names = {name for name, _ in self._given if not _is_tag(name)}
        unknown = sorted(names - KNOWN_FIELDS)
        if unknown:
            raise InvalidRequest(
                f"Unknown fields: {', '.join(unknown)}", code="unknown_parameter", param=unknown[0]
            )

    def _value(self, name: str) -> str | None:
        return next((value for given, value in self._given if given == name), None)


def _is_tag(name: str) -> bool:
    return name.startswith(ONE_TAG) and name.endswith("]")


def _looks_like_model(name: str) -> bool:
    """Another reader may take such a name for the model's, and call what nobody pays for."""
    return name != MODEL and name.strip().casefold().removesuffix(REPEATABLE) == MODEL


def _check(name: str, value: str) -> None:
    if name == "file":
        raise bad("file", "must be a file, with a name", "value_error")
    if name == "response_format" and value not in FORMATS:
        raise bad(name, f"must be one of {', '.join(map(repr, FORMATS))}", "literal_error")
    if name == "temperature":
        _check_number(name, value)
    if name in OWN_TRUTHS and value not in ("true", "false"):
        raise bad(name, "must be 'true' or 'false'", "bool_type")
    if name == "stream" and value.lower() not in ("false", "0", ""):
        raise unsupported(name, "is not supported: transcriptions come whole")


def _check_number(name: str, value: str) -> None:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in value:
        raise bad(name, "must be a number", "float_type")


def _json(name: str, text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad(name, "must be JSON", "json_invalid") from error
