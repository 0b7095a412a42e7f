"""What a spend row must say of the provider's call it stands for, and what it must cost."""

import tomllib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import msgspec

from workers.simulator.ledger import Call

CATALOG = Path(__file__).parents[2] / "shared" / "gateway.toml"
PROFILES = {
    "sim": "openai",
    "sim_fault": "openai",
    "near_sim": "near",
    "phala_sim": "phala",
    "vercel_sim": "vercel",
}
"""Which of the simulator's faces a provider of the default catalog is."""
NANO = Decimal("0.000000001")


class Row(msgspec.Struct, frozen=True):
    """What a spend row says of one attempt."""

    row_id: str
    request_id: str
    client_request_id: str
    status: str
    error_code: str
    usage_source: str
    input_tokens: int
    output_tokens: int
    attempt: int
    model: str
    provider: str
    upstream_model: str
    billed: bool
    cached: bool
    cost_usd: Decimal


def read_models() -> dict[str, Any]:
    """The default catalog's, read without the gateway's own code: it is what is checked."""
    models: dict[str, Any] = tomllib.loads(CATALOG.read_text(), parse_float=Decimal)["models"]
    return models


class Agreement:
    """Finds what is wrong with a row, beside its call or alone."""

    def __init__(self) -> None:
        self._models = read_models()

    def faults(self, call: Call, row: Row) -> Iterator[str]:
        if row.cached:
            yield "from the cache, but a call was made"
        if row.status == "completed" and call.status != "completed":
            yield "a completed row of a call that was not"
        if row.status == "failed" and call.status == "completed":
            yield "a failed row of a call that was completed"
        if PROFILES.get(row.provider) != call.profile:
            yield "another provider was called"
        if call.model not in (None, row.upstream_model):  # None: it ended before it was read
            yield "another model was called"
        yield from self._wrong_tokens(call, row)

    def _wrong_tokens(self, call: Call, row: Row) -> Iterator[str]:
        if row.usage_source == "provider" and (row.input_tokens, row.output_tokens) != (
            call.prompt_tokens,
            call.completion_tokens,
        ):
            yield "the provider's own tokens differ"
        if row.usage_source == "estimated" and row.output_tokens > call.completion_tokens:
            yield "more tokens estimated than were written"
        if row.usage_source == "none" and row.output_tokens:
            yield "tokens from nowhere"

    def money_faults(self, row: Row) -> Iterator[str]:
        """What can be told of a row without its call."""
        model = self._models.get(row.model, {"providers": ()})
        routes = [(one["provider"], one["upstream_model"]) for one in model["providers"]]
        if (row.provider, row.upstream_model) not in routes:
            yield "not a provider of its model"
        elif row.cost_usd != (self._cost(row, model["price"]) if row.billed else 0):
            yield f"a cost that is not {self._cost(row, model['price'])}"
        if row.status == "completed" and row.billed is row.cached:
            yield "an answer that is not billed, or one from the cache that is"
        if row.cached and (row.input_tokens or row.output_tokens or row.cost_usd):
            yield "an answer from the cache that used or cost something"

    def _cost(self, row: Row, price: dict[str, Any]) -> Decimal:
        millionths = price["input"] * row.input_tokens + price["output"] * row.output_tokens
        return Decimal(millionths / Decimal(1_000_000)).quantize(NANO, ROUND_HALF_EVEN)
