"""Which mode of the cache a request gets, by its wish, its model's tier and its key."""

from typing import Any

import pytest
from starlette.types import Message

from api.cache_mode import cache_mode, saying_off
from api.selection import select
from shared.caller import ANONYMOUS_CALLER, MASTER_CALLER, Caller
from shared.catalog import Catalog
from shared.dialects.request import InferenceRequest
from shared.ids import new_id

CATALOG = Catalog.from_toml(
    """
[providers.plain]
[providers.tee]
type = "near"
[providers.zdr]
type = "vercel"
[models.open]
providers = [{ provider = "plain", upstream_model = "m" }]
[models.mixed]
providers = [{ provider = "plain", upstream_model = "m" }, { provider = "zdr", upstream_model = "m" }]
[models.confidential]
tier = "TEE"
providers = [{ provider = "tee", upstream_model = "m" }]
[models.unkept]
tier = "ZDR"
providers = [{ provider = "zdr", upstream_model = "m" }]
[functions.f.variants.v]
model = "confidential"
[functions.panel.variants.a]
model = "open"
[functions.panel.variants.p]
type = "best_of_n"
candidates = ["a", "a"]
evaluator = { model = "open" }
"""
)
KEY = Caller(tenant="t", user="u", key_id="k")
KEY_WITH_SCOPE = Caller(tenant="t", user="u", key_id="k", scopes=frozenset({"cache"}))
CONFIDENTIAL = ["confidential", "unkept", "tee:any", "zdr/any", "ollm::function_name::f"]


def mode(model: str, caller: Caller = KEY, **wishes: Any) -> str:
    request = InferenceRequest(fields={}, model=model, **wishes)
    return cache_mode(CATALOG, caller, request, select(CATALOG, caller, request, new_id()))


@pytest.mark.parametrize("wish", ["on", "off", "read_only", "write_only"])
@pytest.mark.parametrize("caller", [KEY, ANONYMOUS_CALLER], ids=["key", "open mode"])
def test_a_model_without_a_tier_has_the_mode_that_was_asked_for(wish: str, caller: Caller) -> None:
    assert mode("open", caller, cache=wish) == wish
    assert mode("plain:any", caller, cache=wish) == wish


@pytest.mark.parametrize("model", CONFIDENTIAL)
def test_a_confidential_model_has_none_unless_the_key_allows_it(model: str) -> None:
    assert mode(model, cache="on") == "off"
    assert mode(model, ANONYMOUS_CALLER, cache="on") == "off"
    assert mode(model, KEY_WITH_SCOPE, cache="on") == "on"
    assert mode(model, MASTER_CALLER, cache="on") == "on"


def test_a_confidential_provider_that_is_asked_for_by_name_counts_as_such() -> None:
    assert mode("mixed", cache="on", variant_name="zdr") == "off"
    assert mode("mixed", cache="on", variant_name="plain") == "on"
    assert mode("mixed", cache="on") == "off"
    assert mode("open", cache="on", variant_name="plain") == "on"


@pytest.mark.parametrize(
    ("wish", "becomes"),
    [("on", "read_only"), ("read_only", "read_only"), ("write_only", "off"), ("off", "off")],
)
def test_a_dry_run_writes_nothing(wish: str, becomes: str) -> None:
    assert mode("open", cache=wish, dryrun=True) == becomes


def test_nobody_has_a_mode_who_did_not_ask() -> None:
    assert mode("open") == mode("confidential", MASTER_CALLER) == "off"


async def test_a_wish_that_was_not_granted_is_told_in_the_head_alone() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    said = saying_off(send)
    head = [(b"a", b"b")]
    await said({"type": "http.response.start", "status": 200, "headers": head})
    await said({"type": "http.response.body", "body": b""})
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-ollm-cache", b"off")]
    assert head == [(b"a", b"b")], "a list that streams share"
    assert "headers" not in sent[1]


def test_the_answer_of_a_panel_is_not_kept() -> None:
    assert mode("ollm::function_name::panel", MASTER_CALLER, cache="on", variant_name="p") == "off"
    assert mode("ollm::function_name::panel", MASTER_CALLER, cache="on", variant_name="a") == "on"
