"""Reads a multipart form as it comes in: text fields whole, a file's bytes as they are.

The form is parsed by python-multipart; here are the bounds on what a client may put into it, and
what is made of the parts (RFC 7578).
"""

import logging
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import InvalidRequest, UnsupportedMediaType

MAX_PARTS = 64
MAX_NAME_CHARACTERS = 100
MAX_TEXT_BYTES = 1 << 20
"""Of all text fields together: what is not the file is held in memory."""
MULTIPART = b"multipart/form-data"

# It logs what it stopped at, which is a byte of the client's; its loggers are below this one.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)


class Field(NamedTuple):
    """A part that is text."""

    name: str
    value: str


class FileBegins(NamedTuple):
    """A part that has a file name; its bytes follow."""

    name: str
    file_name: str
    content_type: str


class FileBytes(NamedTuple):
    data: bytes


class FileEnds(NamedTuple):
    pass


Event = Field | FileBegins | FileBytes | FileEnds


def boundary_of(content_type: bytes) -> bytes:
    """Raises UnsupportedMediaType, or InvalidRequest where the boundary is missing."""
    kind, options = parse_options_header(content_type)
    if kind.lower() != MULTIPART:
        raise UnsupportedMediaType("The body must be multipart/form-data.")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise broken("The content type names no boundary.")
    return boundary


class FormReader:
    """Fed with the body's bytes, it gives what has become whole. Raises InvalidRequest."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[Event] = []
        self._parts = 0
        self._text_bytes = 0
        self._name = ""
        self._header_name = self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._text: list[bytes] | None = None
        self.is_over = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_begin": self._on_header_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise broken("The form's boundary cannot be used.") from error

    def feed(self, data: bytes) -> list[Event]:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise broken("The body is not a valid multipart form.") from error
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """The body has ended: so must the form have. Raises InvalidRequest where it was cut."""
        if not self.is_over:
            raise broken("The form ends too early.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise broken(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}

    def _on_header_begin(self) -> None:
        self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = _decoded(options.get(b"name", b""))
        if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable() or "\\" in name:
            raise broken("A part of the form has no usable name.")
        file_name = options.get(b"filename")
        self._text = [] if file_name is None else None
        self._name = name
        if file_name is not None:
            kind = self._headers.get(b"content-type", b"").decode("latin-1")
            self._events.append(FileBegins(name, _decoded(file_name), kind))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            self._events.append(FileBytes(data[start:end]))
            return
        self._text_bytes += end - start
        if self._text_bytes > MAX_TEXT_BYTES:
            raise broken("The form's text fields are too large.")
        self._text.append(data[start:end])

    def _on_part_end(self) -> None:
        if self._text is None:
            self._events.append(FileEnds())
        else:
            self._events.append(Field(self._name, _decoded(b"".join(self._text))))

    def _on_end(self) -> None:
        self.is_over = True


def broken(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_multipart")


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise broken("A part of the form is not UTF-8 text.") from error
