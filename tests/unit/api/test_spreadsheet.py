"""CSV files: nothing that a client wrote may become a formula."""

import csv
import io
from decimal import Decimal

import pytest

from api.spreadsheet import Cell, csv_text


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")']
)
def test_what_would_be_a_formula_is_shown_as_text(text: str) -> None:
    assert read(csv_text([[text, "b"]])) == [[f"'{text}", "b"]]


@pytest.mark.parametrize("text", ["plain", "a=b", 'quo"te', "com,ma", "line\nend", "süß", ""])
def test_any_other_text_comes_back_as_it_was(text: str) -> None:
    assert read(csv_text([[text, "b"]])) == [[text, "b"]]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (Decimal("0.000000026"), "0.000000026"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0E-9"), "0"),
        (12, "12"),
        (None, ""),
    ],
)
def test_numbers_are_plain_and_what_is_missing_is_empty(cell: Cell, shown: str) -> None:
    assert read(csv_text([[cell, "b"]])) == [[shown, "b"]]
