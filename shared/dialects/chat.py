"""The chat-completions document: checked when it comes in, cleaned when it goes out to a provider.

It is the common tongue: other dialects turn into it and back. Fields and bounds are those of
OpenAI's `POST /v1/chat/completions` as this gateway's API page states them; what neither knows is
passed on as it came. The body is decoded once, untyped, and checked in place, because it is passed
on as a document; a typed copy would have to be thrown away.
"""

import re
from collections.abc import Callable
from typing import Any

from shared.dialects.chat_messages import check_messages
from shared.dialects.faults import (
    INT32_MAX,
    INT32_MIN,
    bad,
    integer,
    missing,
    number,
    text,
    truth,
    unsupported,
)
from shared.dialects.request import (
    InferenceRequest,
    check_cache_options,
    decode,
    deny_unknown,
    read_cache,
    read_model,
    read_own_tags,
    refuse_twice,
    without_ours,
)
from shared.errors import InvalidRequest

SERVICE_TIERS = ("auto", "default", "priority", "flex")
RESPONSE_FORMATS = ("text", "json_object", "json_schema")
TOKEN_CAPS = ("max_tokens", "max_completion_tokens")
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.I)


class ChatRequest(InferenceRequest, frozen=True, kw_only=True):
    """A checked chat completion."""

    max_output: int | None = None
    """The smaller of the two token caps, where the client set one."""


def parse(
    body: bytes, *, accept_stop_string: bool = False, always_usage: bool = False
) -> ChatRequest:
    """Decodes and checks. Raises InvalidRequest with `param` set to the path of what is wrong.

    `always_usage`: streams end with usage here, asked for or not.
    """
    fields = decode(body)
    refuse_twice(body, fields)
    checks = _CHECKS
    for name, value in fields.items():
        # null is as good as absent, on every field that may be absent.
        if value is not None and (check := checks.get(name)) is not None:
            check(name, value)
    model = read_model(fields)
    if (messages := fields.get("messages")) is None:
        raise missing("messages")
    has_arguments = check_messages(messages)
    stop = fields.get("stop")
    if stop is not None:
        _check_stop(stop, accept_string=accept_stop_string)
    if fields.get("ollm::deny_unknown_fields"):
        deny_unknown(fields, KNOWN_FIELDS)
    request = _request(fields, model, read_own_tags(fields), has_arguments=has_arguments)
    if request.include_raw_usage and request.stream and not (request.include_usage or always_usage):
        raise bad(
            "ollm::include_raw_usage",
            "on a stream needs 'stream_options.include_usage' to be true",
        )
    return request


def to_upstream(
    fields: dict[str, Any], upstream_model: str, *, cap: int = 0, cap_field: str = TOKEN_CAPS[0]
) -> dict[str, Any]:
    """The document for a provider: a checked one without the gateway's own fields.

    The model is renamed, of two token caps the smaller stays, and streams always ask for usage.
    Where there is none, a `cap` above 0 is put in: more must not be spent.
    """
    document = without_ours(fields, upstream_model)
    if document.get("stream"):
        document["stream_options"] = {
            **(document.get("stream_options") or {}),
            "include_usage": True,
        }
    if isinstance(stop := document.get("stop"), str):
        document["stop"] = [stop]
    caps = [name for name in TOKEN_CAPS if document.get(name) is not None]
    if len(caps) == 2:
        del document[max(caps, key=document.__getitem__)]
    elif cap and not caps:
        document[cap_field] = cap
    return document


def output_cap(document: dict[str, Any]) -> int:
    """Of what goes to a provider; 0 where it has none."""
    return next((document[name] for name in TOKEN_CAPS if document.get(name) is not None), 0)


def _request(
    fields: dict[str, Any], model: str, tags: dict[str, str], *, has_arguments: bool
) -> ChatRequest:
    get = fields.get
    stream = bool(get("stream"))
    options = get("stream_options")
    include_usage = bool(options and options.get("include_usage"))
    episode_id = get("ollm::episode_id")
    caps = [cap for cap in (get("max_tokens"), get("max_completion_tokens")) if cap is not None]
    mode, max_age = read_cache(fields)
    return ChatRequest(
        fields=fields,
        model=model,
        stream=stream,
        include_usage=include_usage,
        service_tier=get("service_tier"),
        user=get("user"),
        max_output=min(caps) if caps else None,
        episode_id=episode_id and episode_id.replace("-", "").lower(),
        tags=tags,
        variant_name=get("ollm::variant_name"),
        has_arguments=has_arguments,
        dryrun=bool(get("ollm::dryrun")),
        include_raw_usage=bool(get("ollm::include_raw_usage")),
        include_raw_response=bool(get("ollm::include_raw_response")),
        cache=mode,
        cache_max_age=max_age,
    )


# ---- one check per field


def _one_of(*allowed: str) -> Callable[[str, Any], None]:
    words = ", ".join(f"'{word}'" for word in allowed)

    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise bad(name, f"must be one of {words}", "literal_error")

    return check


def _int32(low: int = INT32_MIN) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        integer(name, value, low, INT32_MAX)

    return check


def _check_n(name: str, value: Any) -> None:
    integer(name, value, INT32_MIN, INT32_MAX)
    if value != 1:
        raise unsupported(name, "must be 1: one completion per request")


def _check_stop(value: Any, *, accept_string: bool) -> None:
    if accept_string and type(value) is str:
        return
    if type(value) is not list:
        raise bad("stop", "must be an array of strings", "list_type")
    for at, item in enumerate(value):
        if type(item) is not str:
            raise bad(f"stop.{at}", "must be a string", "string_type")


def _object(name: str, value: Any) -> None:
    if type(value) is not dict:
        raise bad(name, "must be an object", "dict_type")


def _check_stream_options(name: str, value: Any) -> None:
    _object(name, value)
    if (include := value.get("include_usage")) is not None:
        truth(f"{name}.include_usage", include)


def _check_response_format(name: str, value: Any) -> None:
    _object(name, value)
    kind = value.get("type")
    if kind not in RESPONSE_FORMATS:
        words = ", ".join(f"'{word}'" for word in RESPONSE_FORMATS)
        raise bad(f"{name}.type", f"must be one of {words}", "literal_error")
    if kind == "json_schema":
        schema = value.get("json_schema")
        if schema is None:
            raise missing(f"{name}.json_schema")
        _object(f"{name}.json_schema", schema)


def _check_tools(name: str, value: Any) -> None:
    if type(value) is not list:
        raise bad(name, "must be an array", "list_type")
    for at, tool in enumerate(value):
        if type(tool) is not dict:
            raise bad(f"{name}.{at}", "must be an object", "dict_type")
        kind = tool.get("type")
        if type(kind) is not str:
            raise _wanted(f"{name}.{at}.type", kind)
        if kind == "function":
            _check_function(f"{name}.{at}.function", tool.get("function"))


def _check_function(path: str, function: Any) -> None:
    if function is None:
        raise missing(path)
    _object(path, function)
    called = function.get("name")
    if type(called) is not str or not called:
        raise _wanted(f"{path}.name", called)
    if (parameters := function.get("parameters")) is not None:
        _object(f"{path}.parameters", parameters)


def _wanted(path: str, value: Any) -> InvalidRequest:
    """For a string that must be there: it is missing, or is something else, or empty."""
    if value is None:
        return missing(path)
    return bad(path, "must be a non-empty string", "string_type")


def _check_tool_choice(name: str, value: Any) -> None:
    if type(value) is dict:
        if type(value.get("type")) is not str:
            raise _wanted(f"{name}.type", value.get("type"))
    elif type(value) is not str:
        raise bad(name, "must be a string or an object", "string_type")


def _not_yet(name: str, value: Any) -> None:
    truth(name, value)
    if value:
        raise unsupported(name, "is not supported yet")


def _check_episode(name: str, value: Any) -> None:
    if type(value) is not str or not _UUID.fullmatch(value):
        raise bad(name, "must be a UUID", "uuid_parsing")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "temperature": number,
    "top_p": number,
    "presence_penalty": number,
    "frequency_penalty": number,
    "max_tokens": _int32(0),
    "max_completion_tokens": _int32(0),
    "n": _check_n,
    "seed": _int32(),
    "reasoning_effort": text,
    "verbosity": text,
    "user": text,
    "service_tier": _one_of(*SERVICE_TIERS),
    "stream": truth,
    "stream_options": _check_stream_options,
    "tools": _check_tools,
    "tool_choice": _check_tool_choice,
    "parallel_tool_calls": truth,
    "response_format": _check_response_format,
    "ollm::cache_options": check_cache_options,
    "ollm::dryrun": truth,
    "ollm::resumable": _not_yet,
    "ollm::variant_name": text,
    "ollm::episode_id": _check_episode,
    "ollm::deny_unknown_fields": truth,
    "ollm::include_raw_usage": truth,
    "ollm::include_raw_response": truth,
}

KNOWN_FIELDS = frozenset(_CHECKS) | frozenset(
    # Checked elsewhere, and those of OpenAI's that are only passed on.
    "model messages stop ollm::tags"
    " logprobs top_logprobs logit_bias metadata store prediction modalities audio"
    " web_search_options safety_identifier prompt_cache_key prompt_cache_retention"
    " functions function_call".split()
)
"""What `ollm::deny_unknown_fields` lets through."""
