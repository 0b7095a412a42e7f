"""What management bodies take, and what they make of it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from api.schemas.bodies import BudgetBody, NewKeyBody, NewUserBody, PriceBody


def price(**members: Any) -> PriceBody:
    rates = {"input_price_per_million": Decimal(1), "output_price_per_million": Decimal(2)}
    return PriceBody.model_validate({"model_key": "a:b", **rates, **members})


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_an_address_is_a_network_of_one(given, network):
    assert NewKeyBody(ip_allow_list=[given]).ip_allow_list == [network]


@pytest.mark.parametrize("given", ["", "example.com", "10.0.0.0/33", "10.0.0", "::/129"])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(ValidationError, match="not an address or a network"):
        NewKeyBody(ip_allow_list=[given])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2026-01-01T00:00:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00+02:00", datetime(2025, 12, 31, 22, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(given, read):
    assert price(effective_at=given).effective_at == read


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_a_time_that_utc_does_not_have_is_refused(given):
    with pytest.raises(ValidationError, match="out of range"):
        price(effective_at=given)


def test_money_is_kept_to_the_digits_that_rows_have():
    assert BudgetBody(max_budget=Decimal("0.12345678951")).max_budget == Decimal("0.123456790")
    kept = price(input_price_per_million=Decimal("0.30000000000000004")).input_price_per_million
    assert kept == Decimal("0.3")


@pytest.mark.parametrize("wrong", ["-0.1", "NaN", "Infinity", "1e30"])
def test_money_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        BudgetBody(max_budget=Decimal(wrong))
    with pytest.raises(ValidationError):
        price(output_price_per_million=Decimal(wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"a": "\0"}, {"\0": 1}, {"a": [{"b": "\0"}]}, {"a": "\ud800"}, {"a": Decimal("1e999")}],
)
def test_metadata_that_postgres_cannot_keep_is_refused(wrong):
    with pytest.raises(ValidationError):
        NewUserBody(user_id="u", metadata=wrong)


def test_other_metadata_is_plain_json_again():
    given = {"a": [Decimal("1.5"), None, True, 2**70], "b": {"\\u0000": "ü"}}
    assert NewUserBody(user_id="u", metadata=given).metadata == {
        "a": [1.5, None, True, 2**70], "b": {"\\u0000": "ü"}
    }  # fmt: skip


def test_what_is_not_known_is_passed_over():
    assert BudgetBody.model_validate({"name": "x"}) == BudgetBody()


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_a_time_at_the_ends_of_time_is_refused(moment: str) -> None:
    with pytest.raises(ValidationError):
        NewKeyBody.model_validate({"expires_at": moment})
