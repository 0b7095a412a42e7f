"""Whether a document is a catalog: what is wrong with it, and where."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from shared.account import RateLimits
from shared.document import (
    DEMOTABLE,
    TIER_OF_TYPE,
    Attestation,
    CacheBounds,
    Document,
    Model,
    ModelProvider,
    QueueLimits,
    UnknownProvider,
    priced_name,
)
from shared.function import Function, problems
from shared.price import Price, SeedPrice
from shared.price import faults as price_faults
from shared.timeouts import Retries

MAX_PAYLOAD_BYTES = 480 << 20
"""Valkey takes no value above 512 MiB (proto-max-bulk-len)."""
MAX_TTL_SECONDS = 366 * 86_400
MAX_ROWS_PER_JOB = 32
"""A hundred jobs are settled by one call, and Lua hands on no more than 8,000 values at once."""


TCB_STATUSES = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
    "OutOfDate", "OutOfDateConfigurationNeeded",
)  # fmt: skip
"""Intel's, but for `Revoked`, which nobody may allow."""
SHA256 = re.compile("[0-9a-f]{64}")


class CatalogInvalid(Exception):
    """The document is not a catalog; the message says where and why."""


def unknown_fields(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """The paths of members that were given and do not exist: a typing error must not pass."""
    if isinstance(read, msgspec.Struct):
        for name, value in given.items():
            if name not in read.__struct_fields__:
                yield f"{path}{name}"
            else:
                yield from unknown_fields(value, getattr(read, name), f"{path}{name}.")
    elif isinstance(read, dict):
        for name, value in given.items():
            yield from unknown_fields(value, read[name], f"{path}{name}.")
    elif isinstance(read, list):
        for at, (value, item) in enumerate(zip(given, read, strict=True)):
            yield from unknown_fields(value, item, f"{path}{at}.")


def check(document: Document) -> None:
    if document.limits.max_body_bytes * 2 > document.queue.max_sealed_bytes:
        raise CatalogInvalid("queue.max_sealed_bytes: must be at least twice limits.max_body_bytes")
    for name in ("max_body_bytes", "max_answer_bytes"):
        if not 0 < getattr(document.limits, name) <= MAX_PAYLOAD_BYTES:
            raise CatalogInvalid(f"limits.{name}: must be above 0 and at most {MAX_PAYLOAD_BYTES}")
    if document.queue.max_receipt_backlog <= 0:
        raise CatalogInvalid("queue.max_receipt_backlog: must be above 0")
    _check_cache(document.cache)
    _check_limits("limits.per_user", document.limits.per_user)
    if document.limits.max_output_tokens <= 0:
        raise CatalogInvalid("limits.max_output_tokens: must be above 0")
    _check_attestation(document.attestation)
    for name, model in document.models.items():
        _check_attested(document, name, model)
        _check_limits(f"models.{name}.limits", model.limits)
        if not model.providers:
            raise CatalogInvalid(f"models.{name}: at least one provider is needed")
        if model.price is not None:
            _check_price(f"models.{name}.price", model.price)
        for route in model.providers:
            _check_route(document, name, model, route)
            if route.price is not None:
                _check_price(f"models.{name}.providers.{route.provider}.price", route.price)
    for name, function in document.functions.items():
        _check_function(document, name, function)
    for key, seed in document.pricing.items():
        _check_seed(document, key, seed)


def _check_attestation(attestation: Attestation) -> None:
    for name in ("drain_seconds", "session_seconds", "deadline_seconds"):
        if not 0 < getattr(attestation, name) <= MAX_TTL_SECONDS:
            raise CatalogInvalid(
                f"attestation.{name}: must be above 0 and at most {MAX_TTL_SECONDS}"
            )
    for name in ("pccs_url", "nras_url"):
        parts = urlsplit(getattr(attestation, name))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CatalogInvalid(f"attestation.{name}: must be an address, with https or http")
    for name, given, known in (
        ("allowed_tcb", attestation.allowed_tcb, TCB_STATUSES),
        ("demoted", attestation.demoted, DEMOTABLE),
    ):
        if unknown := [one for one in given if one not in known]:
            raise CatalogInvalid(
                f"attestation.{name}: {unknown[0]!r} is none of {', '.join(known)}"
            )
    if not attestation.allowed_tcb:
        raise CatalogInvalid("attestation.allowed_tcb: at least one status is needed")


def _check_attested(document: Document, name: str, model: Model) -> None:
    mode, path = model.attestation_mode, f"models.{name}"
    if mode == "require" and model.tier != "TEE":
        raise CatalogInvalid(
            f"{path}.attestation: only a model of tier TEE can be required to prove"
        )
    if mode == "record" and not model.tier:
        raise CatalogInvalid(f"{path}.attestation: a model without a tier has nothing to record")
    if mode == "require" and not document.attestation.receipts:
        raise CatalogInvalid(f"{path}.attestation: 'require' needs attestation.receipts")
    for field in ("compose_hashes", "os_images"):
        for given in getattr(model, field):
            if not SHA256.fullmatch(given):
                raise CatalogInvalid(f"{path}.{field}: {given!r} is no hash in lowercase hex")


def _check_seed(document: Document, key: str, seed: SeedPrice) -> None:
    try:
        priced_name(document, key)
    except UnknownProvider as error:
        raise CatalogInvalid(
            f"Cannot set pricing for model '{key}': provider '{error}' is not configured in the"
            " providers section"
        ) from None
    except ValueError:
        raise CatalogInvalid(
            f"pricing.{key}: there is no such model, nor is it 'provider:model'"
        ) from None
    _check_price(f"pricing.{key}", seed.price)


def _check_limits(path: str, limits: RateLimits) -> None:
    for name in RateLimits.__struct_fields__:
        value = getattr(limits, name)
        if value is not None and value <= 0:
            raise CatalogInvalid(f"{path}.{name}: must be above 0")


def _check_cache(cache: CacheBounds) -> None:
    if not 0.001 <= cache.ttl_seconds <= MAX_TTL_SECONDS:
        raise CatalogInvalid(f"cache.ttl_seconds: must be above 0 and at most {MAX_TTL_SECONDS}")
    if not 0 < cache.max_entry_bytes <= MAX_PAYLOAD_BYTES // 2:
        most = MAX_PAYLOAD_BYTES // 2  # an answer is held and sent with what is put round it
        raise CatalogInvalid(f"cache.max_entry_bytes: must be above 0 and at most {most}")
    if cache.max_bytes < cache.max_entry_bytes:
        raise CatalogInvalid("cache.max_bytes: must not be below cache.max_entry_bytes")


def _check_price(path: str, price: Price) -> None:
    for fault in price_faults(price):
        raise CatalogInvalid(f"{path}: {fault}")


def _check_function(document: Document, name: str, function: Function) -> None:
    for problem in problems(function):
        raise CatalogInvalid(f"functions.{name}: {problem}")
    tiers = set()
    for key in function.variants:
        for asked in function.asked_by(key):
            model = document.models.get(asked.model)
            if model is None:
                raise CatalogInvalid(
                    f"functions.{name}.variants.{key}: there is no model {asked.model!r}"
                )
            tiers.add(model.tier)
    if len(tiers) > 1:
        raise CatalogInvalid(f"functions.{name}: its variants are of several tiers")


def check_rows(document: Document, queue: QueueLimits) -> None:
    """A backlog without room for the rows of all jobs in the lanes would drop some."""
    for path, rows in rows_per_job(document):
        if rows > MAX_ROWS_PER_JOB:
            raise CatalogInvalid(
                f"{path}: a request may make {rows} calls, more than {MAX_ROWS_PER_JOB}"
            )
    if (room := queue.admit_below_backlog) <= 0:
        least = document.queue.max_spend_backlog - room
        raise CatalogInvalid(f"queue.max_spend_backlog: must be above {least} for these lanes")


def rows_per_job(document: Document) -> Iterator[tuple[str, int]]:
    """How many calls, each with its row, a request may make: by model and by variant."""
    for name in document.models:
        yield f"models.{name}", _calls(document, name, None)
    for name, function in document.functions.items():
        for key in function.variants:
            asked = [one for step in function.in_order(key) for one in function.asked_by(step)]
            calls = (_calls(document, one.model, one.retries) for one in asked)
            yield f"functions.{name}.variants.{key}", sum(calls)


def _calls(document: Document, model: str, retries: Retries | None) -> int:
    routes = document.models[model].providers
    return sum((retries or document.providers[one.provider].retries).attempts for one in routes)


def _check_route(document: Document, name: str, model: Model, route: ModelProvider) -> None:
    provider = document.providers.get(route.provider)
    if provider is None:
        raise CatalogInvalid(f"models.{name}: there is no provider {route.provider!r}")
    # Fallback must never leave the tier: a TEE answer comes from a TEE or not at all.
    if model.tier and TIER_OF_TYPE[provider.type] != model.tier:
        raise CatalogInvalid(
            f"models.{name}: provider {route.provider!r} ({provider.type}) is not of tier {model.tier}"
        )
