"""What an answer cost, as a member of its `usage`; only where the catalog's `compat` asks for it."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from shared.money import ZERO, as_json
from workers.inference.attempt import Attempt

COST = "cost"

CostOf = Callable[[Attempt], Decimal]
"""Of a job whose answer this attempt completes; known once the attempt has its usage and tier."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def of_nothing(_attempt: Attempt) -> Decimal:
    """For an answer from the cache."""
    return ZERO


def add_cost(answer: dict[str, Any], cost: Decimal) -> None:
    """To the usage of an answer, if there is one. A member that was passed on unread is read."""
    usage = answer.get("usage")
    if isinstance(usage, msgspec.Raw):
        usage = _decode_members(usage) if bytes(usage).startswith(b"{") else None
    if isinstance(usage, dict):
        answer["usage"] = {**usage, COST: as_json(cost.normalize())}


def document_with_cost(document: bytes, cost: Decimal) -> bytes:
    """Of a JSON object; its other members stay as they are."""
    members: dict[str, Any] = _decode_members(document)
    add_cost(members, cost)
    return _encode(members)
