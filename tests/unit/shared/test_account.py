"""Accounts have names that can be taken apart again, and times that survive a way there and back."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.account import from_ms, key_suffix, owner_of, to_ms, user_suffix


@pytest.mark.parametrize(
    ("tenant", "user"), [("default", "u1"), ("a:b", ":c"), ("süß", "1:ü:2"), ("", "x"), ("t", "")]
)
def test_a_users_account_names_its_tenant_and_user_whatever_they_hold(
    tenant: str, user: str
) -> None:
    assert owner_of(user_suffix(tenant, user)) == ("user", tenant, user)


def test_a_keys_account_names_the_key() -> None:
    assert owner_of(key_suffix("abc123")) == ("key", "", "abc123")
    with pytest.raises(ValueError, match="not an account"):
        owner_of("nobody")


@pytest.mark.parametrize("ms", [0, 1, 999, 1_763_732_345_678, 1_763_732_345_679, 4_102_444_799_999])
def test_a_time_in_ms_comes_back_the_very_same(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms


def test_a_time_is_rounded_to_the_nearest_ms() -> None:
    second = datetime(2026, 1, 1, tzinfo=UTC)
    assert to_ms(second + timedelta(microseconds=1_499)) == to_ms(
        second + timedelta(milliseconds=1)
    )
