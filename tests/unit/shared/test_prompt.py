"""A request's messages as a variant's templates render them."""

import time
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.prompt import rendered

SYSTEM = "Be {{ manner }}."
USER = "Weather in {{ city }}?"


def given(**arguments: Any) -> dict[str, Any]:
    return {"type": "text", "ollm::arguments": arguments}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_arguments_become_text_and_the_rest_stays() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    asked = [said("user", [given(city="Oslo"), image]), said("assistant", "Rain.")]
    assert rendered(asked, system="", user=USER) == [
        said("user", [{"type": "text", "text": "Weather in Oslo?"}, image]),
        said("assistant", "Rain."),
    ]
    assert asked[0]["content"][0] == given(city="Oslo"), "the request itself is left alone"


def test_a_message_of_one_part_becomes_plain_text() -> None:
    asked = [said("user", [given(city="Oslo")])]
    assert rendered(asked, system="", user=USER) == [said("user", "Weather in Oslo?")]


def test_a_text_is_the_variable_of_its_role() -> None:
    asked = [said("developer", "Be kind."), said("user", [{"type": "text", "text": "hello"}])]
    found = rendered(asked, system="{{ system_text }} Now.", user="<{{ user_text }}>")
    assert found == [said("developer", "Be kind. Now."), said("user", "<hello>")]


def test_a_system_template_comes_first_where_the_request_has_no_system_message() -> None:
    found = rendered([said("user", "hello")], system="Be kind.", user="")
    assert found == [said("system", "Be kind."), said("user", "hello")]


def test_only_the_first_system_message_is_the_templates() -> None:
    asked = [said("system", [given(manner="kind")]), said("system", "More."), said("user", "x")]
    assert rendered(asked, system=SYSTEM, user="") == [said("system", "Be kind."), *asked[1:]]


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([said("user", [given(town="Oslo")])], "messages.0.content.0.ollm::arguments", "'city' is"),
        ([said("user", "hello")], "messages.0", "has no place for"),
        ([said("user", [{"type": "text", "text": "x"}])], "messages.0.content.0", "no place for"),
        (
            [said("assistant", [given(city="Oslo")])],
            "messages.0.content.0.ollm::arguments",
            "no template",
        ),
        (
            [said("system", [given(manner="kind")])] * 2,
            "messages.1.content.0.ollm::arguments",
            "no template",
        ),
    ],
)
def test_what_does_not_fit_is_the_requests_fault(messages: Any, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        rendered(messages, system=SYSTEM, user=USER)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_a_system_template_that_wants_values_is_missed_where_nothing_is_given() -> None:
    with pytest.raises(InvalidRequest, match="'manner' is undefined"):
        rendered([said("user", "x")], system=SYSTEM, user="")


def test_arguments_cannot_pass_as_the_text_of_a_message() -> None:
    asked = [said("user", [given(user_text="{{ 1 + 1 }}")])]
    assert rendered(asked, system="", user="{{ user_text }}")[0]["content"] == "{{ 1 + 1 }}"


def test_many_messages_have_no_more_time_than_one() -> None:
    slow = "{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}"
    asked = [said("user", [given(x=[0] * 200)])] * 1000
    began = time.thread_time()
    with pytest.raises(InvalidRequest, match="too long"):
        rendered(asked, system="", user=slow)
    assert time.thread_time() - began < 2
