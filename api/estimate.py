"""What a request may cost at worst, and the accounts it is checked against."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec.structs import replace

from api.selection import Selection
from shared.account import Account, RateLimits, model_account, user_account
from shared.caller import Caller
from shared.catalog import Catalog, Target
from shared.dialects.chat import ChatRequest
from shared.dialects.request import InferenceRequest
from shared.document import Model
from shared.errors import NotPermitted
from shared.hold import AUDIO_BYTES_PER_SECOND, BYTES_PER_TOKEN, Bounds, Hold, round_up, worst_case
from shared.job import JobHeader
from shared.money import ZERO
from shared.price import UNPRICED, Price, price_key
from shared.usage import AUDIO_TOKENS_PER_SECOND
from shared.valkey.terms import Terms
from shared.variant import Aggregator, Variant

TOKENS_PER_LINK = 16_384
"""That a linked image or file may become: its link says nothing of its size."""
TEXTS = frozenset({"text", "refusal"})

Prices = Mapping[str, Price]
"""Of the database, by `price_key`; the others are the catalog's."""


class Size(NamedTuple):
    """What is known of a request before it is run."""

    bytes: int
    """Of its body; of a rerank's, each document with its query."""
    links: int = 0
    """Parts that are no text: images, files, videos."""
    max_output: int | None = None
    """Tokens; the client's cap."""
    generates: bool = False
    """It has an output, which a cap bounds."""
    is_audio: bool = False


class Estimate(NamedTuple):
    hold: Hold
    output_caps: dict[str, int]
    """By model: tokens that are held for where the request has no cap."""
    is_priced: bool
    """Somebody has said what each model costs, be it nothing."""


def accounts_of(
    catalog: Catalog, caller: Caller, models: Iterable[Target] = ()
) -> tuple[Account, ...]:
    """All that have a budget or a limit: the caller's, and those of every model that may be asked."""
    accounts = caller.accounts
    if not catalog.has_limits:
        return accounts
    per_user = catalog.document.limits.per_user
    if not per_user.are_none:
        accounts = _with_default(accounts, caller, per_user)
    limited = {one.name: one.model.limits for one in models if not one.model.limits.are_none}
    return (*accounts, *(model_account(name, limits) for name, limits in limited.items()))


def _with_default(
    accounts: tuple[Account, ...], caller: Caller, default: RateLimits
) -> tuple[Account, ...]:
    own = [one for one in accounts if one.kind == "user"]
    if not own:
        return (user_account(caller.tenant, caller.user, default), *accounts)
    if not own[0].limits.are_none:
        return accounts
    others = (one for one in accounts if one.kind != "user")
    return (replace(own[0], limits=default), *others)


def size_of(request: InferenceRequest, body: bytes, *, generates: bool) -> Size:
    """Of a document."""
    if isinstance(request, ChatRequest):
        links = _count_links(request.fields["messages"])
        return Size(len(body), links, request.max_output, generates)
    query, documents = request.fields.get("query"), request.fields.get("documents")
    if isinstance(query, str) and isinstance(documents, list):
        return Size(len(body) + len(query.encode()) * len(documents))
    return Size(len(body), generates=generates)


def _count_links(messages: Sequence[Any]) -> int:
    """As decoded: in the bytes a name may be written in many ways."""
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return sum(part.get("type") not in TEXTS for part in parts)


def with_terms(
    header: JobHeader,
    accounts: tuple[Account, ...],
    catalog: Catalog,
    selection: Selection,
    size: Size,
) -> tuple[JobHeader, Terms]:
    """The header of a job on these accounts, and the terms of its admission.

    A dry run costs nothing and holds nothing, but a spent budget stops it like any other. Raises
    NotPermitted for a model without a price, where a budget has a maximum.
    """
    found = estimate(catalog, selection, size, header.prices)
    if header.dryrun or all(account.budget is None for account in accounts):
        return header, Terms(accounts, replace(found.hold, nano=0), header.admitted_at)
    if not found.is_priced and catalog.document.limits.unpriced == "refuse":
        _refuse_unpriced(accounts)
    held = replace(header, hold_nano=found.hold.nano, output_caps=found.output_caps)
    return held, Terms(accounts, found.hold, header.admitted_at)


def _refuse_unpriced(accounts: Sequence[Account]) -> None:
    if any(one.budget is not None and one.budget.max_nano is not None for one in accounts):
        raise NotPermitted(
            "The model has no price, so it cannot be used under a budget.", code="model_not_priced"
        )


def estimate(catalog: Catalog, selection: Selection, size: Size, prices: Prices) -> Estimate:
    """The dearest way through: of providers that follow each other the dearest one pays, while in a
    panel all are paid."""
    caps: dict[str, int] = {}
    single, panels, is_free, is_priced = ZERO, ZERO, True, True
    for step in _steps(catalog, selection):
        costs, heard = ZERO, 0
        for name, model, asked in step:
            cap = _output_cap(catalog, model, asked, size)
            bounds = _bounds(size, model, asked, cap, heard)
            found = list(_prices(model, selection.pinned_provider, prices))
            costs += max((worst_case(price or UNPRICED, bounds) for price in found), default=ZERO)
            is_free = is_free and all(price is not None and price.is_free for price in found)
            is_priced = is_priced and None not in found
            heard += cap  # the last of a panel reads what the others wrote
            caps[name] = _default_cap(catalog, model) if size.generates else 0
        if len(step) == 1:
            single = max(single, costs)
        else:
            panels += costs
    asked_tokens = min(size.max_output or 0, max(caps.values(), default=0))
    hold = Hold(
        nano=round_up(Decimal(single + panels)),
        is_free=is_free,
        tokens=size.bytes // BYTES_PER_TOKEN + asked_tokens,
    )
    return Estimate(hold, caps, is_priced)


Step = list[tuple[str, Model, Variant | Aggregator | None]]


def _steps(catalog: Catalog, selection: Selection) -> Iterator[Step]:
    """Each model with its name in the catalog, and what a function adds."""
    if not selection.function:
        yield [(selection.target.name, selection.target.model, None)]
        return
    document = catalog.document
    function = document.functions[selection.function]
    names = [selection.variant]
    if not selection.variant_is_pinned:
        names = function.in_order(selection.variant)
    for name in names:
        yield [(one.model, document.models[one.model], one) for one in function.asked_by(name)]


def _output_cap(
    catalog: Catalog, model: Model, asked: Variant | Aggregator | None, size: Size
) -> int:
    """What one call may generate. The aggregator of a panel is not sent the client's cap."""
    if not size.generates:
        return 0
    own = asked.max_tokens if asked is not None else None
    default = _default_cap(catalog, model)
    if isinstance(asked, Aggregator):
        return own or default
    cap = size.max_output or own or default
    return cap if model.max_output_tokens is None else min(cap, model.max_output_tokens)


def _default_cap(catalog: Catalog, model: Model) -> int:
    return model.max_output_tokens or catalog.document.limits.max_output_tokens


def _bounds(
    size: Size, model: Model, asked: Variant | Aggregator | None, cap: int, heard: int
) -> Bounds:
    if size.is_audio:
        seconds = -(-size.bytes // AUDIO_BYTES_PER_SECOND)
        tokens = seconds * AUDIO_TOKENS_PER_SECOND
        return Bounds(input_tokens=tokens, output_tokens=tokens, seconds=seconds)
    # A token is at least a byte of text.
    tokens = size.bytes + size.links * TOKENS_PER_LINK + _added_bytes(asked) + heard
    if model.max_input_tokens is not None:
        tokens = min(tokens, model.max_input_tokens)
    return Bounds(input_tokens=tokens, output_tokens=cap)


def _added_bytes(asked: Variant | Aggregator | None) -> int:
    """What a variant says beside the request."""
    texts = [asked.system] if asked is not None else []
    if isinstance(asked, Variant):
        texts += [asked.system_template, asked.user_template, asked.json_schema]
    return sum(len(text.encode()) for text in texts)


def _prices(model: Model, pinned: str | None, prices: Prices) -> Iterator[Price | None]:
    """None: nobody has said what it costs, so it does not count as free."""
    for route in model.providers:
        if pinned in (None, route.provider):
            known = prices.get(price_key(route.provider, route.upstream_model))
            yield known or route.price or model.price
