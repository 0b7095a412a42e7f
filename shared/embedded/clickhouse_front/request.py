"""A request as the HTTP interface means it: statement, database, settings, query parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from urllib.parse import parse_qsl
from uuid import uuid4

from shared.embedded.clickhouse_front.codec import decode
from shared.embedded.clickhouse_front.refusal import NOT_IMPLEMENTED, SYNTAX_ERROR, Refusal
from shared.embedded.clickhouse_front.statement import Statement, parse

DEFAULT_DATABASE = "default"
DEFAULT_FORMAT = "TabSeparated"

# Words of the query string that speak about the transport. Some of them are settings as well, but
# only the HTTP layer of a server heeds those; all other words are settings for the engine.
TRANSPORT_WORDS = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
PARAMETER_PREFIX = "param_"
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_FOR_A_HEADER = re.compile(r"[^\x20-\x7e]")  # the id goes back in a response header


@dataclass(frozen=True, slots=True)
class Request:
    statement: Statement
    format: str
    database: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    query_id: str


def read(query_string: str, headers: Mapping[str, str], body: bytes) -> Request:
    """Header names are in lower case. A `Refusal` says what is wrong or not provided."""
    words = dict(parse_qsl(query_string, keep_blank_values=True))
    _refuse_native_compression(words)
    text = decode(body, headers.get("content-encoding", ""))
    content_type = headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        words |= _form_fields(text, content_type)
        text = b""
    statement = parse(_sql(words, text))
    asked_format = words.get("default_format") or headers.get("x-clickhouse-format")
    return Request(
        statement=statement,
        format=statement.format or asked_format or DEFAULT_FORMAT,
        database=words.get("database") or DEFAULT_DATABASE,
        settings=_settings(words),
        parameters=_parameters(words),
        query_id=_NOT_FOR_A_HEADER.sub("?", words.get("query_id") or str(uuid4())),
    )


def _sql(words: Mapping[str, str], text: bytes) -> bytes:
    """The server reads the `query` word, a line end, then the body, as one text."""
    query = words.get("query", "")
    if not query:
        return text
    return query.encode() + b"\n" + text if text else query.encode()


def _settings(words: Mapping[str, str]) -> dict[str, str]:
    settings = {
        name: value
        for name, value in words.items()
        if name not in TRANSPORT_WORDS and not name.startswith(PARAMETER_PREFIX)
    }
    for name in settings:
        if not _SETTING_NAME.fullmatch(name):
            raise Refusal(SYNTAX_ERROR, f"Not a setting's name: {name!r}. (SYNTAX_ERROR)")
    return settings


def _parameters(words: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(PARAMETER_PREFIX): value
        for name, value in words.items()
        if name.startswith(PARAMETER_PREFIX)
    }


def _refuse_native_compression(words: Mapping[str, str]) -> None:
    """ClickHouse's own block compression: dropping the word would corrupt the data."""
    if "1" in (words.get("compress"), words.get("decompress")):
        raise Refusal(NOT_IMPLEMENTED, "Native block compression. (NOT_IMPLEMENTED)")


def _form_fields(body: bytes, content_type: str) -> dict[str, str]:
    """clickhouse-connect sends long query parameters as a form; files would be external data."""
    header = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = BytesParser().parsebytes(header + body)
    parts = form.get_payload()
    fields: dict[str, str] = {}
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, Message) or part.get_filename() is not None:
            raise Refusal(NOT_IMPLEMENTED, "External data. (NOT_IMPLEMENTED)")
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)
        fields[str(name)] = value.decode() if isinstance(value, bytes) else ""
    return fields
