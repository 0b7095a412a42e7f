"""What a search of the Scanner means, and that nothing of it becomes part of a statement."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.clickhouse.scanner_filter import CLOCKS, INTAKE, IdPrefix, Owner, ScannerFilter
from shared.ids import dashed, new_id

SOME_ID = "019a9f3c-5d2e-7abc-8def-0123456789ab"
MADE_AT = datetime.fromtimestamp(0x019A9F3C5D2E / 1000, UTC)


def test_an_id_tells_when_its_request_was_admitted() -> None:
    for text in (SOME_ID, SOME_ID.upper(), SOME_ID.replace("-", ""), dashed(new_id())):
        prefix = IdPrefix.read(text)
        assert prefix is not None
        assert prefix.until - prefix.since == CLOCKS + INTAKE
    assert IdPrefix.read(SOME_ID) == IdPrefix(SOME_ID, MADE_AT - CLOCKS, MADE_AT + INTAKE)


@pytest.mark.parametrize("length", range(8, 36))
def test_every_beginning_of_an_id_is_one_with_its_dashes_and_without(length: int) -> None:
    printed = SOME_ID[:length]
    prefix = IdPrefix.read(printed)
    assert prefix is not None
    assert prefix.text == printed.rstrip("-")
    assert IdPrefix.read(printed.replace("-", "")) == prefix
    assert prefix.since <= MADE_AT - CLOCKS
    assert prefix.until >= MADE_AT + INTAKE


def test_a_shorter_beginning_is_of_a_longer_time() -> None:
    prefix = IdPrefix.read(SOME_ID[:8])
    assert prefix is not None
    assert prefix.until - prefix.since - CLOCKS - INTAKE == timedelta(milliseconds=0xFFFF)


@pytest.mark.parametrize(
    "text",
    ["", "019a9f3", "gpt-4o", "20240806", "ffffffff", "00000000", "019a-9f3c5d2e", f"{SOME_ID}0",
     "019a9f3c--5d2e", "019a9f3%", "019a9f3c_", "019a9f3c'", " 019a9f3c", "٠١٩٩٩٩٩٩"],
)  # fmt: skip
def test_what_is_no_id_is_looked_for_in_names(text: str) -> None:
    assert IdPrefix.read(text) is None
    wanted = ScannerFilter(text=text)
    assert wanted.parameters == ({"text": text} if text else {})
    assert len(wanted.conditions) == bool(text)


def test_what_is_asked_for_is_in_the_parameters_alone() -> None:
    nasty = "x' OR 1=1 -- {model:String} %_\\"
    wanted = ScannerFilter(
        model=nasty, creator=nasty, application=nasty, text=nasty, owner=Owner(nasty, nasty)
    )
    assert nasty not in " ".join(wanted.conditions)
    assert set(wanted.parameters.values()) == {nasty}


def test_an_empty_name_is_asked_for_and_none_is_not() -> None:
    assert ScannerFilter().conditions == []
    assert ScannerFilter(creator="").parameters == {"creator": ""}
