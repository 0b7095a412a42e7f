"""What the requests of all endpoints have in common: whom they are for."""

import json
from typing import Any

import pytest

from shared.dialects import chat, embeddings, rerank
from shared.dialects.request import of_job, with_end_user
from shared.dialects.tags import MAX_TAG_BYTES
from shared.errors import InvalidRequest
from tests.integration.queue import a_header

BODIES: list[tuple[Any, dict[str, Any]]] = [
    (chat.parse, {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    (embeddings.parse, {"model": "m", "input": "x"}),
    (rerank.parse, {"model": "m", "query": "x", "documents": ["y"]}),
]


@pytest.mark.parametrize(("parse", "body"), BODIES)
def test_every_document_may_name_a_user(parse, body):
    for given, found in (({}, None), ({"user": None}, None), ({"user": "ann"}, "ann")):
        document = {**body, **given, "ollm::deny_unknown_fields": True}
        assert parse(json.dumps(document).encode()).user == found
    wrongs: list[Any] = [1, ["ann"], {}, True]
    for wrong in wrongs:
        with pytest.raises(InvalidRequest) as refused:
            parse(json.dumps({**body, "user": wrong}).encode())
        assert refused.value.param == "user"


def test_a_label_is_kept_as_a_tag_unless_the_client_has_set_it():
    assert with_end_user({"a": "b"}, "ann") == {"a": "b", "end_user": "ann"}
    assert with_end_user({"end_user": "bob"}, "ann") == {"end_user": "bob"}
    assert with_end_user({"a": "b"}, None) == with_end_user({"a": "b"}, "") == {"a": "b"}


def test_a_long_label_is_cut_between_two_characters():
    tag = with_end_user({}, "ä" * MAX_TAG_BYTES)["end_user"]
    assert tag == "ä" * (MAX_TAG_BYTES // 2)
    assert with_end_user({}, "x" + "€" * MAX_TAG_BYTES)["end_user"] == "x" + "€" * 85


def test_who_is_billed_is_no_business_of_the_provider():
    body = b'{"model":"m","user":"ann","input":"x"}'
    assert of_job(a_header(), body)["user"] == "ann"
    assert "user" not in of_job(a_header(selector_is_billed=True), body)
    assert "user" not in of_job(a_header(selector_is_billed=True), b"{}")
