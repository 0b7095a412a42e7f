"""What a request may cost at worst, and the accounts it is checked against."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from api.selection import Selection
from shared.account import Account, RateLimits, model_account, user_account
from shared.caller import Caller
from shared.catalog import Catalog
from shared.dialects.chat import ChatRequest
from shared.dialects.request import InferenceRequest
from shared.document import Model
from shared.hold import AUDIO_BYTES_PER_SECOND, BYTES_PER_TOKEN, Bounds, Hold, round_up, worst_case
from shared.job import JobHeader
from shared.money import ZERO
from shared.price import UNPRICED, Price, price_key
from shared.usage import AUDIO_TOKENS_PER_SECOND
from shared.valkey.terms import Terms
from shared.variant import Aggregator, Variant

TOKENS_PER_IMAGE = 16_384
"""That a linked image may become: its link says nothing of its size."""

Prices = Mapping[str, Price]
"""Of the database, by `price_key`; the others are the catalog's."""


class Size(NamedTuple):
    """What is known of a request before it is run."""

    bytes: int
    """Of its body."""
    images: int = 0
    """Linked from it."""
    max_output: int | None = None
    """Tokens; the client's cap."""
    generates: bool = False
    """It has an output, which a cap bounds."""
    is_audio: bool = False


class Estimate(NamedTuple):
    hold: Hold
    output_cap: int
    """Tokens that are held for; 0: nothing is."""


def accounts_of(catalog: Catalog, caller: Caller, model: str | None) -> tuple[Account, ...]:
    """All that have a budget or a limit; without a model, those of the caller alone."""
    accounts = caller.accounts
    if not catalog.has_limits:
        return accounts
    per_user = catalog.document.limits.per_user
    if not per_user.are_none:
        accounts = _with_default(accounts, caller, per_user)
    known = catalog.document.models.get(model) if model is not None else None
    if known is not None and not known.limits.are_none:
        accounts = (*accounts, model_account(model or "", known.limits))
    return accounts


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
    cap = request.max_output if isinstance(request, ChatRequest) else None
    named = body.count(b'"image_url"')  # by the type of a part, and by its member
    return Size(len(body), (named + 1) // 2, cap, generates)


def with_terms(
    header: JobHeader,
    accounts: tuple[Account, ...],
    catalog: Catalog,
    selection: Selection,
    size: Size,
) -> tuple[JobHeader, Terms]:
    """The header of a job on these accounts, and the terms of its admission."""
    if header.dryrun or all(account.budget is None for account in accounts):
        return header, Terms(accounts, tokens_of(size), header.admitted_at)
    found = estimate(catalog, selection, size, header.prices)
    held = replace(header, hold_nano=found.hold.nano, output_cap=found.output_cap)
    return held, Terms(accounts, found.hold, header.admitted_at)


def estimate(catalog: Catalog, selection: Selection, size: Size, prices: Prices) -> Estimate:
    """The dearest way through: of providers that follow each other the dearest one pays, while in a
    panel all are paid."""
    caps: list[int] = []
    single, panels, is_free = ZERO, ZERO, True
    for step in _steps(catalog, selection):
        costs, heard = ZERO, 0
        for model, asked in step:
            cap = _output_cap(catalog, model, asked, size)
            bounds = _bounds(size, model, asked, cap, heard)
            found = list(_prices(model, selection.pinned_provider, prices))
            costs += max((worst_case(price or UNPRICED, bounds) for price in found), default=ZERO)
            is_free = is_free and all(price is not None and price.is_free for price in found)
            heard += cap  # the last of a panel reads what the others wrote
            caps.append(cap)
        if len(step) == 1:
            single = max(single, costs)
        else:
            panels += costs
    nano = round_up(Decimal(single + panels))
    tokens = size.bytes // BYTES_PER_TOKEN + (size.max_output or 0)
    hold = Hold(nano=nano, is_free=is_free, tokens=tokens)
    return Estimate(hold, max(caps, default=0))


def tokens_of(size: Size) -> Hold:
    """Where only limits apply: nothing is held."""
    return Hold(is_free=True, tokens=size.bytes // BYTES_PER_TOKEN + (size.max_output or 0))


def _steps(
    catalog: Catalog, selection: Selection
) -> Iterator[list[tuple[Model, Variant | Aggregator | None]]]:
    if not selection.function:
        yield [(selection.target.model, None)]
        return
    document = catalog.document
    function = document.functions[selection.function]
    for name in function.in_order(selection.variant):
        yield [(document.models[one.model], one) for one in function.asked_by(name)]


def _output_cap(
    catalog: Catalog, model: Model, asked: Variant | Aggregator | None, size: Size
) -> int:
    if not size.generates:
        return 0
    own = asked.max_tokens if asked is not None else None
    known = catalog.document.limits.max_output_tokens
    return size.max_output or own or model.max_output_tokens or known


def _bounds(
    size: Size, model: Model, asked: Variant | Aggregator | None, cap: int, heard: int
) -> Bounds:
    if size.is_audio:
        seconds = -(-size.bytes // AUDIO_BYTES_PER_SECOND)
        tokens = seconds * AUDIO_TOKENS_PER_SECOND
        return Bounds(input_tokens=tokens, output_tokens=tokens, seconds=seconds)
    # A token is at least a byte of text.
    tokens = size.bytes + size.images * TOKENS_PER_IMAGE + _added_bytes(asked) + heard
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
