"""A catalog file is revised in place: what lists say goes in, what people wrote stays."""

import json
from decimal import Decimal
from typing import Any

import pytest

from api.cli.catalog_draft import Draft
from api.cli.model_list import ModelList, read_list
from shared.catalog import Catalog
from shared.catalog_checks import CatalogInvalid
from shared.price import UNPRICED

TEXT = """\
# Ours.
[providers.one]
type = "vercel"
base_url = "https://one/v1"  # theirs
[providers.two]
type = "vercel"
base_url = "https://two/v1"

[models.first]  # the first
tier = "ZDR"
price = { input = 3, output = 15.0 }  # by hand
providers = [{ provider = "one", upstream_model = "a/first" }]

[models.waiting]
active = false  # unconfirmed
providers = [{ provider = "one", upstream_model = "a/waiting" }]

[models.off]
active = false  # too dear
providers = [{ provider = "one", upstream_model = "a/off" }]

[models.both]
price = { input = 1, output = 2 }
providers = [
  { provider = "one", upstream_model = "a/both" },
  { provider = "two", upstream_model = "b/both" },
]

[models.table]
providers = [{ provider = "one", upstream_model = "a/table" }]
[models.table.price]
input = 1  # in
"""


def models(**named: dict[str, Any]) -> ModelList:
    data = [{"id": name.replace("__", "/"), **members} for name, members in named.items()]
    return read_list(json.dumps({"data": data}).encode(), "vercel")


def per_token(input: str, output: str, **others: str) -> dict[str, Any]:
    return {"pricing": {"input": input, "output": output, **others}}


def synced(text: str = TEXT, **lists: ModelList) -> tuple[list[str], list[str]]:
    """The lines that differ, and the notes."""
    draft = Draft(text)
    draft.sync(lists)
    lines = draft.diff("gateway.toml").splitlines()[2:]
    return [line for line in lines if line[0] in "+-"], draft.notes


def test_a_changed_price_changes_its_line_and_keeps_its_comment() -> None:
    said = per_token("0.000003", "0.0000175", input_cache_read="0.0000003")
    assert synced(one=models(a__first=said))[0] == [
        "-price = { input = 3, output = 15.0 }  # by hand",
        "+price = { input = 3, output = 17.5, cached_input = 0.3 }  # by hand",
    ]


def test_what_a_list_says_as_the_file_does_is_no_difference() -> None:
    assert synced(one=models(a__first=per_token("0.000003", "0.000015")))[0] == []


def test_a_price_in_a_table_of_its_own_stays_there() -> None:
    said = {**per_token("0.000002", "0.00000425"), "context_window": 4096}
    assert synced(one=models(a__table=said))[0] == [
        "+max_input_tokens = 4096", "+",
        "-input = 1  # in", "+input = 2  # in", "+output = 4.25",
    ]  # fmt: skip


def test_a_listed_model_is_switched_on_if_that_was_all_it_waited_for() -> None:
    lines, notes = synced(one=models(a__waiting={}, a__off={}))
    assert lines == ["-active = false  # unconfirmed", "+active = true"]
    assert "models.off: inactive, though its provider lists it" in notes


def test_a_name_that_is_not_listed_is_told_with_the_closest() -> None:
    lines, notes = synced(one=models(**{"a__first-2": {}, "x": {}}))
    assert lines == []
    assert notes[0] == (
        "models.first: one does not list 'a/first'; the closest it lists: 'a/first-2'"
    )
    assert len(notes) == 5


def test_a_second_provider_that_charges_otherwise_gets_a_price_of_its_own() -> None:
    one = models(a__both={**per_token("0.000001", "0.000002"), "context_window": 9000})
    two = models(b__both={**per_token("0.000001", "0.000003"), "context_window": 8000})
    lines, _ = synced(one=one, two=two)
    assert lines == [
        '-  { provider = "two", upstream_model = "b/both" },',
        '+  { provider = "two", upstream_model = "b/both", price = { input = 1, output = 3 } },',
        "+max_input_tokens = 8000",
    ]


def test_a_second_provider_that_charges_the_same_gets_none() -> None:
    same = per_token("0.000004", "0.000005")
    lines, _ = synced(one=models(a__both=same), two=models(b__both=same))
    assert [line for line in lines if "price" in line] == [
        "-price = { input = 1, output = 2 }",
        "+price = { input = 4, output = 5 }",
    ]


def test_a_provider_that_was_not_asked_changes_nothing_and_confirms_nothing() -> None:
    assert synced(two=models(b__other={}))[0] == []
    text = TEXT.replace('"one", upstream_model = "a/waiting"', '"two", upstream_model = "w"')
    assert synced(text, one=models(a__waiting={}))[0] == []


def test_what_cannot_be_used_is_told() -> None:
    _, notes = synced(one=models(a__first=per_token("-1", "0")))
    assert "models.first: what one says of price.input cannot be used" in notes


def test_a_synced_file_is_in_step() -> None:
    lists = {"one": models(a__first=per_token("0.00000123", "0.000015"), a__waiting={})}
    draft = Draft(TEXT)
    draft.sync(lists)
    assert draft.text != TEXT
    assert synced(draft.text, **lists)[0] == []
    assert Catalog.from_toml(draft.text).document.models["waiting"].active


def test_line_endings_are_kept() -> None:
    text = TEXT.replace("\n", "\r\n")
    draft = Draft(text)
    draft.sync({"one": models(a__first=per_token("0.000001", "0.000015"))})
    assert draft.text == text.replace("input = 3, output = 15.0", "input = 1, output = 15.0")


def test_a_patch_says_where_the_last_line_has_no_end() -> None:
    draft = Draft(TEXT.rstrip())
    draft.sync({"one": models(a__table=per_token("0.000002", "0"))})
    assert draft.diff("x").endswith(
        "-input = 1  # in\n\\ No newline at end of file\n"
        "+input = 2  # in\n\\ No newline at end of file\n"
    )


def test_what_is_no_catalog_is_refused() -> None:
    with pytest.raises(CatalogInvalid):
        Draft("[models.m]\nproviders = []\n")


PROVIDER = '[providers.one]\ntype = "vercel"\nbase_url = "https://one/v1"\n'
ROUTE = '{ provider = "one", upstream_model = "a" }'
ROUTE_TABLE = '[[models.a.providers]]\nprovider = "one"\nupstream_model = "a"\n'


@pytest.mark.parametrize(
    "text",
    [
        f"models = {{ a = {{ active = true, providers = [{ROUTE}] }} }}\n{PROVIDER}",
        f"{PROVIDER}[models.a]\n{ROUTE_TABLE}price = {{input = 1}}\n{ROUTE_TABLE}",
        f"{PROVIDER}[models.a]\nprice = {{}}\n{ROUTE_TABLE}[models.a.providers.price]\ninput = 1\n",
        f"{PROVIDER}[models]\n  [models.a]\n  providers = [{ROUTE}] # end\n\n# tail\n",
        f"{PROVIDER}[models.a]\nproviders = [{ROUTE.replace(' }', ', price.input = 1 }')}]\n",
    ],
    ids=["inline", "tables", "tables of tables", "indented", "dotted inline"],
)
def test_every_way_to_write_a_model_is_revised(text: str) -> None:
    lists = {"one": models(a={**per_token("0.000002", "0.000004"), "context_window": 5})}
    draft = Draft(text)
    draft.sync(lists)
    model = Catalog.from_toml(draft.text).document.models["a"]
    prices = [route.price or model.price or UNPRICED for route in model.providers]
    assert {(price.input, price.output) for price in prices} == {(Decimal(2), Decimal(4))}
    assert model.max_input_tokens == 5
    assert synced(draft.text, **lists)[0] == []


@pytest.mark.parametrize(
    "text",
    [
        f"{PROVIDER}[models.a]\nproviders = [{ROUTE}]\n[auth]\n[models.a.price]\ninput = 1\n",
        f"{PROVIDER}[models.a.price]\ninput = 1\n[auth]\n[models.a]\nproviders = [{ROUTE}]\n",
        f"{PROVIDER}[models]\na.price.input = 1\na.providers = [{ROUTE}]\n",
    ],
)
def test_a_model_in_several_places_is_refused(text: str) -> None:
    draft = Draft(text)
    with pytest.raises(CatalogInvalid, match=r"models\.a: stands in several places"):
        draft.sync({"one": models(a={})})
