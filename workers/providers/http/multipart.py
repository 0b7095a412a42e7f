"""A multipart form with one file, written while the file comes in (RFC 7578)."""

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

import httpx
from typing_extensions import override

from shared.ids import new_id

_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_MEDIA_TYPE = re.compile(
    rf"{_WORD}/{_WORD}(?:; ?{_WORD}=(?:{_WORD}|\"[A-Za-z0-9 ,.+-]{{1,127}}\")){{0,4}}"
)
OCTETS = "application/octet-stream"
# As browsers write what would end a quoted name (HTML, form submission), and whatever else a reader
# could take for more than itself.
_ESCAPES = {number: f"%{number:02X}" for number in (*range(32), ord('"'), ord("\\"), 127)}

Pairs = Iterable[tuple[str, str]]


class FormBody(httpx.AsyncByteStream):
    """Fields, then the file, then the fields that are known only after it."""

    def __init__(
        self,
        fields: Pairs,
        file: AsyncIterable[bytes],
        later: Callable[[], Pairs],
        *,
        file_name: str,
        content_type: str,
    ) -> None:
        """`later` is asked once the file has been sent."""
        self._boundary = new_id()
        self._fields = fields
        self._file = file
        self._later = later
        self._file_name = file_name
        self._kind = content_type if _MEDIA_TYPE.fullmatch(content_type) else OCTETS

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._written(self._fields) + self._file_head()
        async for data in self._file:
            yield data
        yield b"\r\n" + self._written(self._later()) + f"--{self._boundary}--\r\n".encode()

    def _written(self, fields: Pairs) -> bytes:
        return "".join(
            f"--{self._boundary}\r\n{_disposition(name)}\r\n\r\n{value}\r\n"
            for name, value in fields
        ).encode()

    def _file_head(self) -> bytes:
        name = f'; filename="{self._file_name.translate(_ESCAPES)}"'
        return (
            f"--{self._boundary}\r\n{_disposition('file')}{name}\r\n"
            f"Content-Type: {self._kind}\r\n\r\n"
        ).encode()


def _disposition(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name.translate(_ESCAPES)}"'
