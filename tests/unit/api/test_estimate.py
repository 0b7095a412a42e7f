"""What a request is thought to cost at worst, and which accounts it is checked against."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from api.estimate import TOKENS_PER_LINK, Size, accounts_of, estimate, size_of, with_terms
from api.selection import Selection, select
from shared.account import Budget, RateLimits, user_account
from shared.caller import Caller
from shared.catalog import Catalog
from shared.dialects import chat, rerank
from shared.dialects.request import InferenceRequest
from shared.errors import NotPermitted
from shared.price import Price
from tests.integration.queue import a_header

CATALOG = Catalog.from_toml("""
[limits]
max_output_tokens = 1000
per_user = { requests_per_minute = 60 }
[providers.a]
base_url = "http://127.0.0.1:1"
[providers.b]
base_url = "http://127.0.0.1:1"
[models.plain]
providers = [{ provider = "a", upstream_model = "x" }]
price = { input = 1, output = 10 }
[models.two]
max_output_tokens = 500
max_input_tokens = 50
limits = { concurrent = 3 }
providers = [
  { provider = "a", upstream_model = "x", price = { input = 1, output = 10 } },
  { provider = "b", upstream_model = "y", price = { input = 2, output = 20 } },
]
[models.free]
providers = [{ provider = "a", upstream_model = "z" }]
price = { input = 0, output = 0 }
[models.unpriced]
providers = [{ provider = "a", upstream_model = "z" }]
[functions.best.variants.all]
type = "best_of_n"
candidates = ["one", "other"]
evaluator = { model = "plain", max_tokens = 10 }
[functions.best.variants.one]
model = "plain"
weight = 0
system = "0123456789"
max_tokens = 100
[functions.best.variants.other]
model = "two"
weight = 0
[functions.best.variants.alone]
model = "two"
weight = 0
[functions.best]
fallback = ["alone"]
""")
CALLER = Caller("default", "someone", "k")
BUDGET = Budget(budget_id="b", max_nano=10, started_ms=1)


def selected(model: str, variant: str | None = None) -> Selection:
    request = InferenceRequest(fields={}, model=model, variant_name=variant)
    return select(CATALOG, CALLER, request, "0" * 32)


def nano(model: str, size: Size, **prices: Price) -> int:
    found = {name.replace("__", ":"): price for name, price in prices.items()}
    return estimate(CATALOG, selected(model), size, found).hold.nano


def test_input_is_bounded_by_bytes_and_output_by_the_clients_cap() -> None:
    assert nano("plain", Size(200, max_output=30, generates=True)) == 200 * 1000 + 30 * 10_000


def test_without_a_cap_the_models_own_or_the_deployments_is_held_for() -> None:
    assert nano("plain", Size(0, generates=True)) == 1000 * 10_000
    assert nano("two", Size(0, generates=True)) == 500 * 20_000
    found = estimate(CATALOG, selected("two"), Size(0, generates=True), {})
    assert found.output_caps == {"two": 500}


def test_of_several_providers_the_dearest_is_held_for_unless_one_is_pinned() -> None:
    assert nano("two", Size(10)) == 10 * 2000
    pinned = selected("two", "a")
    assert estimate(CATALOG, pinned, Size(10), {}).hold.nano == 10 * 1000


def test_no_more_input_than_the_model_takes_is_held_for() -> None:
    assert nano("two", Size(1_000_000)) == 50 * 2000


def test_a_price_of_the_database_wins() -> None:
    assert nano("plain", Size(10), a__x=Price(input=Decimal(7))) == 10 * 7000


def test_a_linked_image_is_held_for_by_its_most() -> None:
    assert nano("plain", Size(100, links=2)) == (100 + 2 * TOKENS_PER_LINK) * 1000


def test_all_of_a_panel_are_paid_and_its_fallback_too() -> None:
    size = Size(20, generates=True)
    one = (20 + 10) * 1000 + 100 * 10_000
    other = min(20 + 100, 50) * 2000 + 500 * 20_000
    last = (20 + 600) * 1000 + 10 * 10_000
    alone = 20 * 2000 + 500 * 20_000
    assert nano("ollm::function_name::best", size) == one + other + last + alone


def test_a_model_whose_price_is_zero_is_free_and_one_without_a_price_is_not() -> None:
    assert estimate(CATALOG, selected("free"), Size(10, generates=True), {}).hold.is_free
    unpriced = estimate(CATALOG, selected("unpriced"), Size(10, generates=True), {}).hold
    assert (unpriced.nano, unpriced.is_free) == (0, False)
    zero = {"a:z": Price()}
    assert estimate(CATALOG, selected("unpriced"), Size(10, generates=True), zero).hold.is_free
    assert not estimate(CATALOG, selected("plain"), Size(0), {}).hold.is_free


def test_sound_is_held_for_by_the_longest_its_bytes_can_last() -> None:
    spoken = estimate(CATALOG, selected("plain"), Size(10_001, is_audio=True), {})
    assert spoken.hold.nano == 21 * 10 * (1000 + 10_000)


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        (None, RateLimits(requests_per_minute=60)),
        (RateLimits(concurrent=1), RateLimits(concurrent=1)),
        (RateLimits(), RateLimits(requests_per_minute=60)),
    ],
)
def test_a_user_without_limits_has_the_deployments(
    own: RateLimits | None, limits: RateLimits
) -> None:
    given = () if own is None else (user_account("default", "someone", own, BUDGET),)
    accounts = accounts_of(CATALOG, Caller("default", "someone", "k", accounts=given))
    (account,) = accounts
    assert account.limits == limits
    assert account.suffix == "user:7:default:someone"
    assert account.budget == (None if own is None else BUDGET)


def test_a_models_limits_stand_beside_the_callers() -> None:
    *_, model = accounts_of(CATALOG, CALLER, selected("two").reachable(CATALOG))
    assert (model.suffix, model.limits.concurrent) == ("model:two", 3)
    assert len(accounts_of(CATALOG, CALLER)) == 1


def test_a_functions_fallbacks_and_candidates_count_against_their_models_too() -> None:
    function = selected("ollm::function_name::best")
    *_, model = accounts_of(CATALOG, CALLER, function.reachable(CATALOG))
    assert model.suffix == "model:two"


def test_a_job_holds_only_where_there_is_a_budget_and_a_dry_run_never() -> None:
    limited = user_account("default", "someone", RateLimits(concurrent=1))
    paying = user_account("default", "someone", RateLimits(), BUDGET)
    size = Size(400, max_output=50, generates=True)
    for header, account in ((a_header(), limited), (a_header(dryrun=True), paying)):
        kept, terms = with_terms(header, (account,), CATALOG, selected("plain"), size)
        assert kept is header
        assert (terms.hold.nano, terms.hold.is_free, terms.hold.tokens) == (0, False, 150)
    held, terms = with_terms(a_header(), (paying,), CATALOG, selected("plain"), size)
    assert held.hold_nano == terms.hold.nano == 400 * 1000 + 50 * 10_000
    assert held.output_caps == {"plain": 1000}


def test_a_client_that_asks_for_little_does_not_bound_the_evaluator() -> None:
    little = nano("ollm::function_name::best", Size(20, max_output=1, generates=True))
    assert little >= 10 * 10_000  # the evaluator's own cap, at its price


def test_a_cap_above_what_the_model_can_is_held_for_by_what_it_can() -> None:
    size = Size(0, max_output=2**31 - 1, generates=True)
    assert nano("two", size) == 500 * 20_000
    assert estimate(CATALOG, selected("two"), size, {}).hold.tokens == 500


def test_a_model_without_a_price_cannot_be_used_under_a_budget() -> None:
    paying = user_account("default", "someone", RateLimits(), BUDGET)
    for model in ("unpriced", "a:unheard-of"):
        with pytest.raises(NotPermitted) as refused:
            with_terms(a_header(), (paying,), CATALOG, selected(model), Size(10, generates=True))
        assert refused.value.code == "model_not_priced"
    counted = user_account("default", "someone", RateLimits(), replace(BUDGET, max_nano=None))
    with_terms(a_header(), (counted,), CATALOG, selected("unpriced"), Size(10))


def test_a_model_named_as_its_provider_does_costs_and_is_limited_as_by_its_own_name() -> None:
    assert nano("b:y", Size(10)) == 10 * 2000
    *_, model = accounts_of(CATALOG, CALLER, selected("b/y").reachable(CATALOG))
    assert model.suffix == "model:two"


def test_links_are_counted_however_they_are_written() -> None:
    body = (
        rb'{"model": "m", "messages": [{"role": "user", "content": ['
        rb'{"type": "image\u005furl", "image_url": {"url": "https://example.com/a.png"}},'
        rb'{"type": "file", "file": {"file_id": "f"}}, {"type": "text", "text": "x"}]}]}'
    )
    assert size_of(chat.parse(body), body, generates=True).links == 2


def test_a_rerank_reads_its_query_with_each_document() -> None:
    body = b'{"model": "m", "query": "abcd", "documents": ["a", "b", "c"]}'
    size = size_of(rerank.parse(body), body, generates=False)
    assert size.bytes == len(body) + 3 * 4


def test_the_size_of_a_chat_is_its_bytes_its_links_and_its_cap() -> None:
    body = (
        b'{"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content":'
        b' [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]}'
    )
    size = size_of(chat.parse(body), body, generates=True)
    assert size == Size(len(body), 1, 7, generates=True)
