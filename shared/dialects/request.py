"""What the requests of all endpoints have in common: a JSON document, a model, and our own fields."""

import json
from typing import Any

import msgspec

from shared.dialects.faults import (
    INT32_MAX,
    bad,
    check_depth,
    integer,
    is_object,
    missing,
    text,
    truth,
)
from shared.dialects.tags import END_USER_TAG, USER_AGENT_TAG, cut, read_tags
from shared.errors import Fault, InvalidRequest
from shared.job import CACHE_MODES, JobHeader

OURS = "ollm::"
"""Fields with this prefix are for the gateway and never leave it."""
MAX_SHOWN = 100
"""Characters of a name, and names, that an error repeats at most."""
DECISIVE = frozenset({"model", "n", "max_tokens", "max_completion_tokens", "stream", "user"})
"""What is asked of whom, how much of it, and who pays."""
MANY_BYTES = 1 << 20
MAX_VALUES = 2_000_000
"""In a body of over MANY_BYTES. Nothing but `[],[],[]` would grow thirtyfold when decoded; a body
that is large because of its text or its images has far fewer."""

_decode = msgspec.json.Decoder().decode


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request: the document as it came, and what the gateway itself needs of it."""

    fields: dict[str, Any]
    model: str
    """The selector as the client wrote it."""
    user: str | None = None
    """Whom the client says it is for: a label, or whom to bill."""
    stream: bool = False
    include_usage: bool = False
    """`stream_options.include_usage`: the client wants the usage chunk."""
    service_tier: str | None = None
    episode_id: str | None = None
    """32 lowercase hex digits."""
    tags: dict[str, str] = {}
    variant_name: str | None = None
    has_arguments: bool = False
    """For the templates of a function."""
    dryrun: bool = False
    """The provider is called, but nothing is billed and nothing is kept."""
    include_raw_usage: bool = False
    include_raw_response: bool = False
    cache: str = "off"
    """One of `CACHE_MODES`."""
    cache_max_age: int | None = None


def decode(body: bytes) -> dict[str, Any]:
    """The body as a document; nothing in it is checked but its depth. Raises InvalidRequest."""
    if len(body) > MANY_BYTES and sum(map(body.count, (b"[", b"{", b","))) > MAX_VALUES:
        raise _not_json("The body holds too many values.")
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json("The body is not valid JSON.") from error
    except RecursionError as error:
        raise _not_json("The body is nested too deeply.") from error
    if not is_object(fields):
        raise _not_json("The body must be a JSON object.")
    check_depth(body, fields)
    return fields


def refuse_twice(body: bytes, fields: dict[str, Any]) -> None:
    """A name that stands twice at the top of a document: who reads it takes the first, or the last.

    Looks closer only where a name stands twice anywhere. Raises InvalidRequest.
    """
    for name in fields:
        if name not in DECISIVE and name.lower() in DECISIVE:
            # A provider that reads names in any case would take it for the one we have checked.
            raise bad(name[:MAX_SHOWN], "is not the name of a field", "value_error")
    if len(body) > MANY_BYTES:
        return  # the last one counts, here and at the provider, who gets it once
    for name in fields:
        if body.count(b'"%b"' % name.encode()) > 1:
            names = [key for key, _ in json.loads(body, object_pairs_hook=list)]
            twice = sorted({key for key in names if names.count(key) > 1})
            if twice:
                raise bad(twice[0][:MAX_SHOWN], "stands twice in the body", "duplicate_key")
            return


def read_model(fields: dict[str, Any]) -> str:
    """The selector. Raises InvalidRequest."""
    model = fields.get("model")
    if model is None:
        raise missing("model")
    if type(model) is not str:
        raise bad("model", "must be a string", "string_type")
    if not model.strip():
        raise InvalidRequest(
            "Invalid request: model is required",
            param="model",
            faults=[Fault(("body", "model"), "model is required", "value_error")],
        )
    return model


def read_own_tags(fields: dict[str, Any]) -> dict[str, str]:
    """`ollm::tags`. Raises InvalidRequest."""
    given = fields.get("ollm::tags")
    return {} if given is None else read_tags("ollm::tags", given)


def read_user(fields: dict[str, Any]) -> str | None:
    """Raises InvalidRequest."""
    user: str | None = fields.get("user")
    if user is not None:
        text("user", user)
    return user


def check_cache_options(name: str, value: Any) -> None:
    """Raises InvalidRequest."""
    if type(value) is not dict:
        raise bad(name, "must be an object", "dict_type")
    mode = value.get("enabled", "off")
    if mode not in CACHE_MODES:
        words = ", ".join(f"'{word}'" for word in CACHE_MODES)
        raise bad(f"{name}.enabled", f"must be one of {words}", "literal_error")
    if (age := value.get("max_age_s")) is not None:
        integer(f"{name}.max_age_s", age, 0, INT32_MAX)


def read_cache(fields: dict[str, Any]) -> tuple[str, int | None]:
    """The mode that checked `ollm::cache_options` ask for, and the greatest age of an entry."""
    options = fields.get("ollm::cache_options")
    if not options:
        return "off", None
    return options.get("enabled", "off"), options.get("max_age_s")


def read_truth(fields: dict[str, Any], name: str) -> bool:
    """A boolean that may be absent or null. Raises InvalidRequest."""
    value = fields.get(name)
    if value is None:
        return False
    truth(name, value)
    return bool(value)


def deny_unknown(fields: dict[str, Any], known: frozenset[str]) -> None:
    """`ollm::deny_unknown_fields`. Raises InvalidRequest with the names, sorted."""
    unknown = [name[:MAX_SHOWN] for name in sorted(fields.keys() - known)][:MAX_SHOWN]
    if unknown:
        names = ", ".join(unknown)
        raise InvalidRequest(
            f"Unknown fields: {names}",
            code="unknown_parameter",
            param=unknown[0],
            faults=[
                Fault(("body", name), "Extra inputs are not permitted", "extra_forbidden")
                for name in unknown
            ],
        )


def of_job(header: JobHeader, body: bytes) -> dict[str, Any]:
    """The document of a job, with nothing in it that is between the client and us alone.

    Raises InvalidRequest.
    """
    fields = decode(body)
    if header.selector_is_billed:
        fields.pop("user", None)
    return fields


def without_ours(fields: dict[str, Any], upstream_model: str) -> dict[str, Any]:
    """The document for a provider: the gateway's own fields removed, the model renamed."""
    document = {name: value for name, value in fields.items() if not name.startswith(OURS)}
    document["model"] = upstream_model
    return document


def tags_or_user_agent(request: InferenceRequest, user_agent: str | None) -> dict[str, str]:
    """The request's tags; where it has none, the application its `User-Agent` names."""
    if request.tags or not user_agent:
        return request.tags
    name = user_agent.strip()
    if not name.isprintable():
        name = "".join(c if c.isprintable() else " " for c in user_agent).strip()
    return {USER_AGENT_TAG: cut(name)} if name else {}


def with_end_user(tags: dict[str, str], user: str | None) -> dict[str, str]:
    """The tags and, unless the client has set that one itself, whom the request is for."""
    return {END_USER_TAG: cut(user), **tags} if user else tags


def _not_json(message: str) -> InvalidRequest:
    return InvalidRequest(message, faults=[Fault(("body",), message, "json_invalid")])
