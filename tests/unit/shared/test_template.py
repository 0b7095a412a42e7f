"""Templates: what they put in, what they refuse, and that none of them can run away."""

import time
from typing import Any

import pytest

from shared.template import (
    MAX_ARGUMENT_BYTES,
    Allowance,
    ArgumentsMisfit,
    Template,
    TemplateInvalid,
)


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("Weather in {{ city }}.\n", {"city": "Oslo"}, "Weather in Oslo.\n"),
        ("{{ city }}", {"city": "{{ 1 + 1 }}{% raw %}"}, "{{ 1 + 1 }}{% raw %}"),
        ("{{ city }}", {"city": "<b>&"}, "<b>&"),
        ("{{ order.items[0].name }}", {"order": {"items": [{"name": "tea"}]}}, "tea"),
        ("{% for a in list %}{{ loop.index }}{{ a|upper }} {% endfor %}", {"list": "ab"}, "1A 2B "),
        ("{% if n > 1 %}many{% else %}one{% endif %}", {"n": 2}, "many"),
        ("{{ who|default('you') }}", {}, "you"),
        ("{% if who is defined %}{{ who }}{% endif %}!", {}, "!"),
        ("{{ [true, none, 'é', x] }}", {"x": {"a": 1.5}}, '[true,null,"é",{"a":1.5}]'),
        ("{{ x|tojson }}", {"x": "<'>"}, '"<\'>"'),
    ],
)
def test_a_template_is_rendered(text: str, arguments: dict[str, Any], expected: str) -> None:
    assert Template(text).render(arguments, Allowance()) == expected


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("{{ city }}", {}, "'city' is undefined"),
        ("{{ a.city }}", {"a": {}}, "no attribute 'city'"),
        ("{{ a.b.c }}", {}, "'a' is undefined"),
        ("{{ a|tojson }}", {}, "'a' is undefined"),
        ("{% for x in a %}{% endfor %}", {}, "'a' is undefined"),
        ("{{ a[b] }}", {"a": {}, "b": "a secret"}, "not there"),
        ("{{ a.upper }}", {"a": "x"}, "no attribute 'upper'"),
        ("{{ a.__class__ }}", {"a": "x"}, "no attribute '__class__'"),
        ("{{ loop.changed }}", {}, "'loop' is undefined"),
        ("{{ a + 1 }}", {"a": "a secret"}, "not of the kind"),
        ("{{ range }}", {}, "'range' is undefined"),
    ],
)
def test_arguments_that_do_not_fit_are_named_and_not_repeated(
    text: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentsMisfit, match=said) as refused:
        Template(text).render(arguments, Allowance())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% if %}", "line 1"),
        ("a\nb\n{{ x ", "line 3"),
        ("\n{% for %}{% endfor %}", "line 2"),
        ("{{ x|shout }}", "line 1: No filter named 'shout'"),
        ("\n{{ range(9) }}", "line 2: 'call'"),
        ("{{ x.format(1) }}", "'call'"),
        ("{% set x = 1 %}", "'assign'"),
        ("{% set x %}{% endset %}", "'assignblock'"),
        ("{% with x = y ~ y %}{{ x }}{% endwith %}", "'with'"),
        ("{% macro m() %}{% endmacro %}", "'macro'"),
        ("{% include 'x' %}", "'include'"),
        ("{% extends 'x' %}", "'extends'"),
        ("{% import 'x' as y %}", "'import'"),
        ("{{ 'a' * 1000000000 }}", "'mul'"),
        ("{{ 2 ** 100000000 }}", "'pow'"),
        ("{{ '%999999999d' % 1 }}", "'mod'"),
        ("{{ x|join(x) }}", "must be constants"),
        ("{{ x|join(*x) }}", "must be constants"),
        ("{% for x in y recursive %}{% endfor %}", "recursive"),
        ("{{ x|center(1000000000) }}", "No filter"),
        ("{% for x in y %}" * 30 + "{% endfor %}" * 30, "nested too deeply"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
    ],
)
def test_what_could_run_away_or_reach_out_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(TemplateInvalid, match=said):
        Template(text)


def test_a_loop_within_a_loop_over_the_clients_list_is_stopped_in_time() -> None:
    text = "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}"
    began = time.thread_time()
    with pytest.raises(ArgumentsMisfit, match="too long"):
        Template(text).render({"x": [0] * 100_000}, Allowance())
    assert time.thread_time() - began < 2


def test_all_texts_of_a_request_have_a_largest_size_and_so_have_arguments() -> None:
    template, allowance = Template("{% for a in x %}{{ y }}{% endfor %}"), Allowance()
    values = {"x": [0] * 3000, "y": "y" * 1000}
    assert len(template.render(values, allowance)) == 3_000_000
    with pytest.raises(ArgumentsMisfit, match="text would be larger"):
        template.render(values, allowance)
    with pytest.raises(ArgumentsMisfit, match="values are larger"):
        template.render({"x": [], "y": "y" * MAX_ARGUMENT_BYTES}, allowance)
