"""Forms as they come in: split anywhere, cut, malformed, or too large."""

import pytest

from api.multipart import (
    MAX_PARTS,
    MAX_TEXT_BYTES,
    Event,
    Field,
    FileBegins,
    FileBytes,
    FileEnds,
    FormReader,
    boundary_of,
)
from shared.errors import InvalidRequest, UnsupportedMediaType

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\xc3\xb6del\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nhello\r\n--wor\r\n--bld\r\n"
    b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\n\r\n--b--\r\n'
)


def part(name: str, value: bytes = b"x", more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def joined(events: list[Event]) -> list[Event]:
    """With a file's bytes in one piece."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, FileBytes) and out and isinstance(out[-1], FileBytes):
            out[-1] = FileBytes(out[-1].data + event.data)
        else:
            out.append(event)
    return out


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_form_is_the_same_however_it_was_split(size: int) -> None:
    reader = FormReader(b"b")
    events: list[Event] = []
    for start in range(0, len(FORM), size):
        events += reader.feed(FORM[start : start + size])
    reader.end()
    assert joined(events) == [
        Field("model", "mödel"),
        FileBegins("file", "a.wav", "audio/wav"),
        FileBytes(b"hello\r\n--wor\r\n--bld"),
        FileEnds(),
        Field("language", ""),
    ]


@pytest.mark.parametrize("at", range(0, len(FORM) - 4, 9))
def test_a_form_that_was_cut_anywhere_is_refused_at_its_end(at: int) -> None:
    reader = FormReader(b"b")
    reader.feed(FORM[:at])
    with pytest.raises(InvalidRequest) as refused:
        reader.end()
    assert refused.value.code == "invalid_multipart"


@pytest.mark.parametrize(
    "body",
    [
        b"model=m&file=x",
        b"--other\r\n\r\n",
        b"--b\r\n\r\nno name\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name=""\r\n\r\nx\r\n--b--\r\n',
        b"--b\r\nbad header\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"x" * 10_000 + b": y\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"".join(b"h%d: y\r\n" % n for n in range(20)) + b"\r\nx\r\n--b--\r\n",
        part("n" * 101) + b"--b--\r\n",
        part("a\x07b") + b"--b--\r\n",
        part("a\\\\b") + b"--b--\r\n",
        part("a", b"\xff\xfe") + b"--b--\r\n",
        part("a") * (MAX_PARTS + 1) + b"--b--\r\n",
        part("a", b"x" * (MAX_TEXT_BYTES + 1)) + b"--b--\r\n",
        part("a", b"x" * (MAX_TEXT_BYTES // 2)) * 3 + b"--b--\r\n",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_is_no_form_or_too_much_of_one_is_refused(body: bytes) -> None:
    def read() -> None:
        reader = FormReader(b"b")
        for start in range(0, len(body), 4096):
            reader.feed(body[start : start + 4096])
        reader.end()

    with pytest.raises(InvalidRequest) as refused:
        read()
    assert refused.value.code == "invalid_multipart"


def test_a_path_in_a_files_name_is_left_out() -> None:
    reader = FormReader(b"b")
    (begins, *_) = reader.feed(part("file", b"x", r'; filename="C:\music\a.wav"') + b"--b--\r\n")
    assert begins == FileBegins("file", "a.wav", "")


def test_the_boundary_is_read_from_the_content_type() -> None:
    assert boundary_of(b'Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"


@pytest.mark.parametrize(
    "kind", [b"", b"application/json", b"multipart/mixed; boundary=b", b"\xff"]
)
def test_another_media_type_is_refused(kind: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        boundary_of(kind)


@pytest.mark.parametrize("kind", [b"multipart/form-data", b"multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(kind: bytes) -> None:
    with pytest.raises(InvalidRequest):
        boundary_of(kind)


def test_a_boundary_of_any_length_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        FormReader(b"b" * 300)


def test_the_parser_says_nothing_in_any_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidRequest):
        FormReader(b"b").feed(b"--b\r\nbad\xffheader: x\r\n\r\n")
    assert caplog.records == []
