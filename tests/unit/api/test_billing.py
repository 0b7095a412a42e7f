"""Who is billed, and in which order somebody is refused."""

from typing import Any

import pytest
from msgspec.structs import replace

from api import record_cache
from api.billing import Billing, named_user
from api.record_cache import Entry
from api.user_cache import UserCache
from shared.account import RateLimits, key_account, user_account
from shared.caller import ANONYMOUS_CALLER, BILL_OTHERS_SCOPE, MASTER_CALLER, Caller
from shared.clock import StillClock
from shared.errors import (
    InvalidRequest,
    NotFound,
    NotPermitted,
    Overloaded,
    TooManyRequests,
)
from shared.postgres.users import UserRecord

LIMITS = RateLimits(concurrent=1)
OF_KEY = key_account("default", "k", LIMITS)
OF_OWNER = user_account("default", "owner", LIMITS)
OF_OTHER = user_account("default", "other", LIMITS)
OWNER = Caller("default", "owner", "k", accounts=(OF_OWNER, OF_KEY))
BLOCKED = replace(OWNER, user_is_blocked=True)
BILLS = replace(OWNER, user_field="bill")
BILLS_OTHERS = replace(BILLS, scopes=frozenset({BILL_OTHERS_SCOPE}))


class NoReader:
    async def fetch_many(self, names: Any) -> Any:
        raise AssertionError("no store may be asked")


class Users:
    """What is known of users, and who was probed."""

    def __init__(self, *records: UserRecord, absent: tuple[str, ...] = ()) -> None:
        clock = StillClock()
        self.cache = UserCache(NoReader(), clock)
        until = clock.monotonic() + 1
        for record in records:
            name = (record.tenant, record.user_id)
            self.cache._entries[name] = Entry(record, until, 0.0)
        for user in absent:
            for tenant in ("default", "anonymous"):
                self.cache._absent[tenant, user] = until
        self.probed: list[str] = []

    async def probe(self, billed: Caller) -> None:
        self.probed.append(billed.user)

    async def billed(self, caller: Caller, selector: str | None) -> Caller:
        return await Billing(self.cache).billed(caller, selector, self.probe)


def user(name: str = "other", *, blocked: bool = False, **more: Any) -> UserRecord:
    record = {"tenant": "default", "accounts": (OF_OTHER,), **more}
    return UserRecord(user_id=name, blocked=blocked, **record)


@pytest.mark.parametrize(
    ("caller", "selector", "named"),
    [
        (OWNER, None, None),
        (OWNER, "other", None),
        (replace(OWNER, scopes=frozenset({BILL_OTHERS_SCOPE})), "other", None),
        (BILLS, None, None),
        (BILLS, "", None),
        (BILLS, "owner", None),
        (BILLS_OTHERS, "owner", None),
        (BILLS_OTHERS, "other", "other"),
        (MASTER_CALLER, "other", "other"),
        # There may well be a user of this name: it is looked for like any other.
        (MASTER_CALLER, "master", "master"),
        (ANONYMOUS_CALLER, "other", None),
    ],
)
def test_the_selector_names_the_billed_user_to_those_who_bill_by_it(caller, selector, named):
    assert named_user(caller, selector) == named


@pytest.mark.parametrize("selector", [None, ""])
def test_the_master_key_must_name_somebody(selector):
    with pytest.raises(InvalidRequest) as refused:
        named_user(MASTER_CALLER, selector)
    assert refused.value.message == (
        "When using master key, 'user' field is required in request body"
    )
    assert refused.value.body().document()["detail"] == refused.value.message


def test_a_key_may_not_name_another_user_than_its_own():
    with pytest.raises(NotPermitted) as refused:
        named_user(BILLS, "other")
    assert refused.value.code == "foreign_user"
    assert refused.value.message == "'user' field does not match the authenticated API key's user"


async def test_a_keys_own_user_is_billed_without_asking_anybody():
    assert await Users().billed(OWNER, "label") is OWNER
    assert await Users().billed(BILLS, "owner") is BILLS


async def test_another_billed_user_comes_with_their_accounts_beside_the_keys():
    billed = await Users(user()).billed(BILLS_OTHERS, "other")
    assert (billed.user, billed.key_id) == ("other", "k")
    assert billed.accounts == (OF_OTHER, OF_KEY)


async def test_the_master_key_bills_a_user_of_the_tenant_default():
    billed = await Users(user()).billed(MASTER_CALLER, "other")
    assert (billed.tenant, billed.user, billed.key_id) == ("default", "other", None)
    assert billed.is_master
    assert billed.accounts == (OF_OTHER,)


@pytest.mark.parametrize(
    ("users", "caller", "selector", "error", "text", "probed"),
    [
        (Users(absent=("no",)), MASTER_CALLER, "no", NotFound, "User 'no' not found", "no"),
        (Users(absent=("no",)), BILLS_OTHERS, "no", NotFound, "User 'no' not found", "no"),
        (Users(), BILLS_OTHERS, "a\0b", NotFound, "User 'a\0b' not found", "a\0b"),
        (Users(user(blocked=True)), BILLS_OTHERS, "other", NotPermitted,
         "User 'other' is blocked", "other"),
        (Users(), BLOCKED, None, NotPermitted,
         "User 'owner' is blocked", "owner"),
        # A blocked user's key bills nobody, and is counted to whom it names.
        (Users(user()), replace(BILLS_OTHERS, user_is_blocked=True), "other", NotPermitted,
         "User 'owner' is blocked", "other"),
    ],
)  # fmt: skip
async def test_who_is_not_there_or_blocked_is_refused_past_the_probe(
    users, caller, selector, error, text, probed
):
    with pytest.raises(error) as refused:
        await users.billed(caller, selector)
    assert refused.value.message == text
    assert users.probed == [probed]


async def test_a_name_that_no_user_can_have_is_answered_briefly_and_not_kept():
    users = Users()
    with pytest.raises(NotFound) as refused:
        await users.billed(MASTER_CALLER, "x" * 1_000_000)
    assert len(refused.value.message) < 300
    assert not users.cache._wanted


async def test_the_probes_reason_is_the_better_one():
    async def too_many(_billed: Caller) -> None:
        raise TooManyRequests("Rate limit exceeded")

    for users, caller in ((Users(absent=("no",)), MASTER_CALLER), (Users(), BLOCKED)):
        billing = Billing(users.cache)
        with pytest.raises(TooManyRequests):
            await billing.billed(caller, "no" if caller.is_master else None, too_many)


async def test_who_may_go_on_is_not_probed():
    users = Users(user(), absent=("anonymous",))
    await users.billed(OWNER, None)
    await users.billed(BILLS_OTHERS, "other")
    await users.billed(ANONYMOUS_CALLER, None)
    assert users.probed == []


async def test_the_anonymous_user_may_be_absent_and_has_accounts_where_it_is_not():
    assert await Users(absent=("anonymous",)).billed(ANONYMOUS_CALLER, "x") is ANONYMOUS_CALLER
    users = Users(user("anonymous", tenant="anonymous"))
    assert (await users.billed(ANONYMOUS_CALLER, None)).accounts == (OF_OTHER,)
    users = Users(user("anonymous", tenant="anonymous", blocked=True))
    with pytest.raises(NotPermitted):
        await users.billed(ANONYMOUS_CALLER, None)
    assert users.probed == ["anonymous"]


async def test_a_user_that_cannot_be_read_is_not_billed(monkeypatch):
    monkeypatch.setattr(record_cache, "ANSWER_SECONDS", 0.01)
    with pytest.raises(Overloaded) as refused:
        await Users().billed(MASTER_CALLER, "somebody")
    assert refused.value.code == "store_unavailable"
