"""Every field of a spend row has a column, and every value its place in a block."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from shared.clickhouse.client import ContentRefused
from shared.clickhouse.spend import COLUMNS, block_of
from shared.price import Price
from shared.spend import SpendRow
from shared.usage import Usage
from tests.spend_rows import spend_row


def fields_of(struct: type[msgspec.Struct], prefix: str = "") -> list[str]:
    names = []
    for field in msgspec.structs.fields(struct):
        if field.type is Price:
            # The plain parts have columns, the whole of a price with more has another.
            names += ["price.input", "price.output", "price.cached_input", "price_details"]
        elif field.type is Usage:
            names += fields_of(field.type, f"{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def test_every_field_of_a_spend_row_has_a_column() -> None:
    assert sorted(column.field for column in COLUMNS) == sorted(fields_of(SpendRow))


def test_no_two_columns_have_the_same_name() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


@pytest.mark.parametrize(
    "change",
    [
        {"row_id": "not-an-id"},
        {"row_id": "g" * 32},
        {"request_id": "0" * 31},
        {"usage": Usage(input_tokens=-1)},
        {"usage": Usage(output_tokens=1 << 64)},
        {"attempt": -1},
        {"cost_usd": Decimal("0.0000000001")},
        {"cost_usd": Decimal("NaN")},
        {"cost_usd": Decimal("Infinity")},
        {"cost_usd": Decimal(10) ** 12},
        {"price": Price(Decimal("1e-13"), Decimal(1))},
        {"created_at": datetime(2026, 1, 1)},  # noqa: DTZ001  (a naive time is the point)
        {"tenant": "\ud800"},
        {"tags": {"a": None}},
        {"queue_ms": "soon"},
    ],
    ids=str,
)
def test_a_value_its_column_cannot_hold_is_refused_before_it_is_sent(
    change: dict[str, Any],
) -> None:
    with pytest.raises(ContentRefused):
        block_of([spend_row(1), spend_row(2, **change), spend_row(3)])


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(ContentRefused) as refusal:
        block_of([spend_row(row_id="the-secret".ljust(32))])
    assert "secret" not in str(refusal.value)


def test_the_same_rows_make_the_same_block() -> None:
    rows = [spend_row(at, created_at=datetime(2026, 1, 1, tzinfo=UTC)) for at in range(3)]
    assert block_of(rows) == block_of(list(rows))
