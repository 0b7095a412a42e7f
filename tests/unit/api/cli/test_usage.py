"""The table of `gateway usage`."""

from decimal import Decimal

from api.cli.usage import usage_table
from shared.clickhouse.usage_summary import Line


def line(group: str, requests: int, cost: str) -> Line:
    return Line(
        group=group, requests=requests, errors=1, attempts=requests, input_tokens=100,
        output_tokens=20, cached_input_tokens=0, reasoning_tokens=0, cost_usd=Decimal(cost),
    )  # fmt: skip


def test_names_stand_to_the_left_and_figures_to_the_right() -> None:
    found = usage_table([line("small", 12, "0.000026000"), line("", 3, "0")], by="model")
    assert found == [
        "model  requests  errors  input tokens  output tokens  cost (USD)",
        "small        12       1           100             20    0.000026",
        "-             3       1           100             20           0",
    ]


def test_a_name_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in usage_table([line("\x1b[2J", 1, "0")], by="user")[1]
