"""CSV that a spreadsheet shows and never computes."""

import csv
import io
from collections.abc import Iterable, Sequence
from decimal import Decimal

from shared.money import plain

STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""OWASP's list, "CSV injection": whoever opens the file would run what a client wrote."""

Cell = str | int | Decimal | None


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    """Lines as RFC 4180 has them."""
    written = io.StringIO()
    csv.writer(written).writerows([_safe(cell) for cell in row] for row in rows)
    return written.getvalue()


def _safe(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return plain(cell)
    text = str(cell)
    return f"'{text}" if text.startswith(STARTS_A_FORMULA) else text
