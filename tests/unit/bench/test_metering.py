"""The bench of metering: its rows are storable and each its own, its figures are what they say."""

from datetime import UTC, datetime

import pytest

from bench.metering import Sample, print_figures, realistic_row
from shared.clickhouse.spend import block_of
from shared.spend import decode_row, encode_row


def test_its_rows_are_storable_and_each_has_ids_of_its_own() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [decode_row(encode_row(realistic_row(number, now))) for number in range(100)]
    assert block_of(rows)
    assert len({row.row_id for row in rows}) == len({row.request_id for row in rows}) == 100


def test_figures_are_of_the_time_between_two_moments(capsys: pytest.CaptureFixture[str]) -> None:
    began = Sample(at=10.0, rows_left=1000, cpu={"metering": 1.0, "clickhouse": 2.0})
    ended = Sample(at=12.0, rows_left=0, cpu={"metering": 1.01, "clickhouse": 2.004})
    print_figures(began, ended)
    said = capsys.readouterr().out
    assert "1,000 rows in 2.0 s: 500 rows/s" in said
    assert "| metering | 10.0 | 100,000 |" in said
    assert "| clickhouse | 4.0 | 250,000 |" in said
