"""Requests that are wrong in every way a client gets wrong, one thing at a time."""

import gzip
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

CHAT, EMBEDDINGS, RERANK = "/v1/chat/completions", "/v1/embeddings", "/v1/rerank"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "sim_echo", "messages": [{"role": "user", "content": "x"}]},
    EMBEDDINGS: {"model": "sim_embed", "input": "x"},
    RERANK: {"model": "sim_rerank", "query": "x", "documents": ["y"]},
}
JSON = {"content-type": "application/json"}

NO_NUMBER = ["1", "x", [], {}, True]
NO_INT32 = [1.5, "1", [], {}, True, 2**31, -(2**31) - 1, 1e300]
NO_STRING = [1, 1.5, [], {}, True]
NO_BOOLEAN = ["true", "", 1, 0, [], {}]
UUID = "01890a5d-ac96-774b-bcce-b302099a8057"

WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), NO_NUMBER),
    **{cap: [*NO_INT32, -1] for cap in ("max_tokens", "max_completion_tokens")},
    "seed": NO_INT32,
    "n": [*NO_INT32, 0, 2],
    **dict.fromkeys(("reasoning_effort", "verbosity", "user", "ollm::variant_name"), NO_STRING),
    "service_tier": [*NO_STRING, "", "best", "Auto"],
    **dict.fromkeys(
        (
            "stream", "parallel_tool_calls", "ollm::dryrun", "ollm::deny_unknown_fields",
            "ollm::include_raw_usage", "ollm::include_raw_response",
        ),
        NO_BOOLEAN,
    ),
    "stream_options": [1, "x", [], {"include_usage": "x"}, {"include_usage": 1}],
    "stop": ["x", 1, {}, [1], [None], [["a"]], True],
    "tools": [
        1, "x", {}, [1], [[]], [{}], [{"type": 1}], [{"type": "function"}],
        [{"type": "function", "function": 1}], [{"type": "function", "function": {}}],
        [{"type": "function", "function": {"name": ""}}],
        [{"type": "function", "function": {"name": "f", "parameters": "x"}}],
    ],
    "tool_choice": [1, [], True, {}, {"type": 1}],
    "response_format": [
        1, "text", [], {}, {"type": 1}, {"type": "xml"}, {"type": "json_schema"},
        {"type": "json_schema", "json_schema": 1},
    ],
    "ollm::tags": [
        1, "x", True, {"a": 1}, {"a": None}, {"a": {}}, ["x"], [1], {"": "x"}, {"a": "x" * 300},
        {"a" * 300: "x"}, {str(n): "x" for n in range(33)},
    ],
    "ollm::cache_options": [1, "on", [], {"enabled": 1}, {"enabled": "x"}, {"max_age_s": -1}],
    "ollm::episode_id": [1, [], "", "x", UUID[:-1], UUID + "0", UUID.replace("a", "g")],
    "model": [1, 1.5, [], {}, True, None, "", " ", "unheard_of", "ollm::model_name::unheard_of",
              "ollm::function_name::unheard_of", "a" * 100_000, "../../etc/passwd"],
    "messages": [
        None, 1, "x", {}, [], [1], ["x"], [[]], [{}], [{"role": "user"}, 1],
        [{"role": "nobody", "content": "x"}], [{"role": 1, "content": "x"}],
        [{"role": "user", "content": 1}], [{"role": "user", "content": {"a": 1}}],
        [{"role": "user", "content": [1]}], [{"role": "user", "content": [{}]}],
        [{"role": "user", "content": [{"type": 1}]}],
    ],
}  # fmt: skip
WRONG_INPUT: list[Any] = [
    None,
    "",
    1,
    1.5,
    True,
    {},
    [],
    [""],
    ["a", 1],
    [1.5],
    [-1],
    [[]],
    [[1], ["a"]],
]
WRONG_DOCUMENTS: list[Any] = [None, "x", 1, {}, [], [1], [None], [{}], [{"text": 1}], ["a", 1]]

BROKEN: dict[str, bytes] = {
    "empty": b"",
    "white": b" \r\n\t",
    "half": b'{"model":',
    "array": b"[]",
    "string": b'"x"',
    "null": b"null",
    "number": b"1",
    "true": b"true",
    "single quotes": b"{'model':'m'}",
    "comment": b'{"model":"m"/* x */}',
    "trailing comma": b'{"model":"m",}',
    "no colon": b'{"model" "m"}',
    "unended string": b'{"model":"m',
    "bare word": b'{"model":m}',
    "deep arrays": b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
    "never closed": b"[" * 100_000,
    "utf-16": '{"model":"m"}'.encode("utf-16"),
    "utf-32": '{"model":"m"}'.encode("utf-32"),
    "latin-1": '{"model":"é"}'.encode("latin-1"),
    "byte order mark": b'\xef\xbb\xbf{"model":"m"}',
    "gzip": gzip.compress(b'{"model":"m"}'),
    "gzip bomb": gzip.compress(b"\0" * (64 << 20)),
    "form": b"model=m&messages=x",
    "xml": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>",
    "binary": bytes(range(256)),
}
SPOILT: dict[str, bytes] = {
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "5,000 digits": b"9" * 5000,
    "leading zero": b"01",
    "plus": b"+1",
    "hex": b"0x10",
    "NUL": b'"\0"',
    "line end in a string": b'"\n"',
    "lone surrogate": b'"\\ud800"',
    "bad escape": b'"\\x41"',
    "cut escape": b'"\\u00"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "stray byte": b'"\xff"',
}


class Case(NamedTuple):
    name: str
    path: str
    body: bytes
    headers: dict[str, str] = JSON
    method: str = "POST"
    with_key: bool = True


def cases() -> Iterator[Case]:
    """Over three hundred."""
    for field, values in WRONG.items():
        for value in values:
            yield _with(CHAT, field, value)
    for value in WRONG_INPUT:
        yield _with(EMBEDDINGS, "input", value)
    for value in [0, -1, 1.5, "1", True, 2**31]:
        yield _with(EMBEDDINGS, "dimensions", value)
    for value in ["int8", 1, [], True]:
        yield _with(EMBEDDINGS, "encoding_format", value)
    for value in WRONG_DOCUMENTS:
        yield _with(RERANK, "documents", value)
    for value in [None, "", 1, [], {}]:
        yield _with(RERANK, "query", value)
    for value in [0, -1, 1.5, "1", True]:
        yield _with(RERANK, "top_n", value)
    for path, good in GOOD.items():
        yield from _documents(path, good)
    yield from _forms()
    yield from _requests()


def _with(path: str, field: str, value: Any) -> Case:
    shown = json.dumps(value)[:40]
    return Case(f"{path} {field}={shown}", path, json.dumps({**GOOD[path], field: value}).encode())


def _documents(path: str, good: dict[str, Any]) -> Iterator[Case]:
    text = json.dumps(good).encode()
    for field in good:
        less = {name: value for name, value in good.items() if name != field}
        yield Case(f"{path} without {field}", path, json.dumps(less).encode())
        again = json.dumps({field: good[field]}).encode()[1:]
        yield Case(f"{path} {field} twice", path, text[:-1] + b"," + again)
    yield _with(path, "ollm::deny_unknown_fields", "yes")
    denied = {**good, "ollm::deny_unknown_fields": True, "unheard_of": 1}
    yield Case(f"{path} denied field", path, json.dumps(denied).encode())
    for name, body in BROKEN.items():
        yield Case(f"{path} {name}", path, body)
    for name, value in SPOILT.items():
        yield Case(f"{path} {name}", path, text[:-1] + b',"x":' + value + b"}")
    for more in (b"x", b"{}", b",", b"\0", b"]"):
        yield Case(f"{path} followed by {more!r}", path, text + more)
    for kind in ("text/plain", "multipart/form-data", "application/xml", "", "json"):
        yield Case(f"{path} as {kind!r}", path, text, {"content-type": kind})
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        yield Case(f"{method} {path}", path, b"", method=method)


def _part(name: str, value: bytes = b"x", more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def _forms() -> Iterator[Case]:
    form = {"content-type": "multipart/form-data; boundary=b"}
    model, end = _part("model", b"sim_transcribe"), b"--b--\r\n"
    file = _part("file", b"hello", '; filename="a.wav"')
    good = model + file + end
    for size in range(0, len(good) - 4, 6):
        yield Case(f"form cut at {size}", TRANSCRIPTIONS, good[:size], form)
    bodies = {
        "no model": file + end,
        "no file": model + end,
        "nothing": end,
        "model twice": model * 2 + file + end,
        "file twice": model + file * 2 + end,
        "empty file": model + _part("file", b"", '; filename="a.wav"') + end,
        "text for a file": model + _part("file") + end,
        "another file": model + file + _part("other", b"x", '; filename="b"') + end,
        "no such model": _part("model", b"unheard_of") + file + end,
        "a model without it": _part("model", b"near_sim_chat") + file + end,
        "wrong format": model + file + _part("response_format", b"mp3") + end,
        "wrong number": model + file + _part("temperature", b"1e400") + end,
        "streamed": model + file + _part("stream", b"true") + end,
        "wrong tags": model + file + _part("ollm::tags", b"[" * 10_000) + end,
        "denied": model + file + _part("ollm::deny_unknown_fields", b"true") + _part("q") + end,
        "no text": _part("model", b"\xff") + file + end,
        "NUL in a name": _part("a\0b") + model + file + end,
        "no name": b"--b\r\n\r\nx\r\n" + good,
        "many parts": _part("a") * 70 + good,
        "large text": _part("prompt", b"x" * (2 << 20)) + good,
        "large header": b"--b\r\n" + b"x" * 9000 + b": y\r\n\r\n\r\n" + good,
        "other boundary": good.replace(b"--b", b"--c"),
        "JSON": b'{"model": "sim_transcribe"}',
        "gzip bomb": gzip.compress(b"\0" * (64 << 20)),
    }
    for name, body in bodies.items():
        yield Case(f"form: {name}", TRANSCRIPTIONS, body, form)
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=",
                 "multipart/mixed; boundary=b", "multipart/form-data; boundary=" + "b" * 300):  # fmt: skip
        yield Case(f"form as {kind[:60]!r}", TRANSCRIPTIONS, good, {"content-type": kind})
    yield Case("form without a key", TRANSCRIPTIONS, good, form, with_key=False)


def _requests() -> Iterator[Case]:
    good = json.dumps(GOOD[CHAT]).encode()
    for path in ("/", "/v1", "/v1/", "/v1/nothing", "/v1/chat", f"{CHAT}/", "/v1/../v1/nothing",
                 "/v1/models/unheard_of", "/%00", "/v1/files", "/v1/assistants"):  # fmt: skip
        method = "GET" if "models" in path else "POST"
        yield Case(f"{method} {path}", path, good, method=method)
    for query in ("allow_tee=", "allow_tee=maybe", "allow_zdr=1"):
        yield Case(f"models?{query}", f"/v1/models?{query}", b"", method="GET")
    for value in ("", "Bearer", "Basic eDp5", "sk-ollm-x", "Bearer sk-ollm-x", "Bearer x" * 99,
                  "Bearer sk-ollm-000000000000-" + "0" * 48):  # fmt: skip
        yield Case(
            f"authorization {value[:24]!r}", CHAT, good, {**JSON, "authorization": value},
            with_key=False,
        )  # fmt: skip
    yield Case("no key", CHAT, good, with_key=False)
    yield Case("large headers", CHAT, good, {**JSON, "x-large": "x" * 70_000})
    yield Case("many headers", CHAT, good, {**JSON, **{f"x-{n}": "x" for n in range(3000)}})
