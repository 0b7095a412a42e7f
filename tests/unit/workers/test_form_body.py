"""A form as it is written for a provider, read back by a parser of another hand."""

from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest

from workers.providers.http.multipart import OCTETS, FormBody


async def file(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def written(body: FormBody) -> list[tuple[str, str | None, str, Any]]:
    """Name, file name, media type and bytes of each part."""
    data = b"".join([part async for part in body])
    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + data)
    return [
        (
            str(part.get_param("name", header="content-disposition")),
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def a_body(**changes: object) -> FormBody:
    given = {"file_name": "a.wav", "content_type": "audio/wav", **changes}
    return FormBody([("model", "m")], file(b"hel", b"lo"), lambda: [("language", "de")], **given)  # type: ignore[arg-type]


async def test_fields_stand_before_and_after_the_file() -> None:
    assert await written(a_body()) == [
        ("model", None, "text/plain", b"m"),
        ("file", "a.wav", "audio/wav", b"hello"),
        ("language", None, "text/plain", b"de"),
    ]


@pytest.mark.parametrize("name", ['a"b.wav', "a\r\nX-Evil: 1", 'a"; name="model', "a\\"])
async def test_a_name_cannot_leave_its_quotes(name: str) -> None:
    parts = await written(a_body(file_name=name))
    assert [part[0] for part in parts] == ["model", "file", "language"]
    assert "\n" not in str(parts[1][1])


@pytest.mark.parametrize(
    "kind", ["", "audio", "audio/wav\r\nX-Evil: 1", 'a/b; c="', "a/b;", "a/" * 9]
)
async def test_a_media_type_that_is_none_is_replaced(kind: str) -> None:
    _, (_, _, shown, _), _ = await written(a_body(content_type=kind))
    assert shown == OCTETS


async def test_what_comes_later_is_asked_for_only_after_the_file() -> None:
    asked: list[str] = []

    def later() -> list[tuple[str, str]]:
        asked.append("later")
        return []

    body = FormBody([], file(b"a", b"b"), later, file_name="a", content_type="")
    parts = aiter(body)
    for _ in range(3):
        await anext(parts)
        assert asked == []
    await anext(parts)
    assert asked == ["later"]


async def test_a_media_type_keeps_its_parameters() -> None:
    data = b"".join([part async for part in a_body(content_type="audio/webm;codecs=opus")])
    assert b"Content-Type: audio/webm;codecs=opus\r\n" in data
