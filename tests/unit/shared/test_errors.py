"""Errors keep their meaning on the way through the queue."""

import pytest

from shared import errors
from shared.errors import ErrorBody, GatewayError
from shared.reply import decode_error, encode_error

ALL = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, GatewayError) and one is not GatewayError
]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_comes_out_as_it_went_in(kind: type[GatewayError]) -> None:
    body = kind("a sentence", code="a_code").body()
    assert decode_error(encode_error(body)) == body
    assert body.status == kind.status


@pytest.mark.parametrize("kind", ALL)
def test_the_envelope_always_has_a_type_and_never_a_number_as_code(
    kind: type[GatewayError],
) -> None:
    error = kind("a sentence").body().document()["error"]
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "code", "param"}
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__
    for kind in ALL:
        assert f"{kind.__name__} " in errors.__doc__
        assert str(kind.status) in errors.__doc__


def test_a_field_an_older_release_does_not_know_is_passed_over() -> None:
    import msgspec

    newer = msgspec.msgpack.encode({"status": 500, "type": "t", "message": "m", "later": 1})
    assert decode_error(newer) == ErrorBody(status=500, type="t", message="m")
