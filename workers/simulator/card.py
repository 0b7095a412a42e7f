"""What a simulated model costs and takes, for the providers' model lists."""

from decimal import Decimal
from typing import NamedTuple


class Card(NamedTuple):
    """Prices are USD per million tokens."""

    name: str
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    context: int = 128_000
    max_output: int = 16_384


def cards(others: list[str]) -> list[Card]:
    """Those of the models that answer, then `others`, which cost what a chat costs."""
    chat = Card("sim/echo", Decimal("0.5"), Decimal("1.5"), Decimal("0.25"))
    return [
        chat,
        *(chat._replace(name=name) for name in ("sim/chat", *others)),
        Card("sim/embed", Decimal("0.02"), Decimal(0), context=8_192, max_output=0),
        Card("sim/rerank", Decimal("0.05"), Decimal(0), context=32_768, max_output=0),
    ]
