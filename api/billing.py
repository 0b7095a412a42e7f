"""Who pays for a request: the user its key belongs to, or the one its body names."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from msgspec.structs import replace

from api.user_cache import UserCache
from shared.caller import BILL_OTHERS_SCOPE, Caller
from shared.errors import GatewayError, InvalidRequest, NotFound, NotPermitted
from shared.postgres.users import MAX_USER_ID

MASTER_NAMES_NONE = "When using master key, 'user' field is required in request body"
FOREIGN = "'user' field does not match the authenticated API key's user"

Probe = Callable[[Caller], Awaitable[None]]
"""Asked before a billed user is refused for what they are; may refuse for a better reason."""


async def no_probe(_billed: Caller) -> None:
    """Has no better reason."""


class Billing:
    """Give it `UserCache.run()` running."""

    def __init__(self, users: UserCache, probe: Probe = no_probe) -> None:
        self._users = users
        self._probe = probe

    async def billed(self, caller: Caller, selector: str | None) -> Caller:
        """The caller under the name, and with the accounts, of the billed user.

        Raises InvalidRequest and NotPermitted for the selector; then, past the probe, NotFound and
        NotPermitted for the user; Overloaded where no store can be asked.
        """
        named = named_user(caller, selector)
        if named is not None:
            return await self._named(caller, named)
        billed = caller if caller.key_id is not None else await self._anonymous(caller)
        if billed.user_is_blocked:
            await self._refuse(billed, blocked(billed.user))
        return billed

    async def _named(self, caller: Caller, user: str) -> Caller:
        record = await self._users.get((caller.tenant, user)) if _is_name(user) else None
        of_user = () if record is None else record.accounts
        of_key = (account for account in caller.accounts if account.kind == "key")
        billed = replace(caller, user=user, accounts=(*of_user, *of_key))
        if record is None:
            text = f"User '{user[:MAX_USER_ID]}' not found"
            await self._refuse(billed, NotFound(text, code="user_not_found"))
        if caller.user_is_blocked:  # a blocked user's key bills nobody
            await self._refuse(billed, blocked(caller.user))
        if record.blocked:
            await self._refuse(billed, blocked(user))
        return billed

    async def _anonymous(self, caller: Caller) -> Caller:
        """Nobody needs to have made this user; who has may give it a budget, or block it."""
        record = await self._users.get((caller.tenant, caller.user))
        if record is None:
            return caller
        return replace(caller, accounts=record.accounts, user_is_blocked=record.blocked)

    async def _refuse(self, billed: Caller, error: GatewayError) -> NoReturn:
        await self._probe(billed)
        raise error


def named_user(caller: Caller, selector: str | None) -> str | None:
    """Who is billed by name; None: the caller's own user. Raises InvalidRequest, NotPermitted."""
    if caller.is_master:
        if not selector:
            raise InvalidRequest(MASTER_NAMES_NONE, param="user")
        return selector
    if not caller.bills_selector or not selector or selector == caller.user:
        return None
    if BILL_OTHERS_SCOPE not in caller.scopes:
        raise NotPermitted(FOREIGN, code="foreign_user", param="user")
    return selector


def blocked(user: str) -> NotPermitted:
    return NotPermitted(f"User '{user}' is blocked", code="user_blocked")


def _is_name(user: str) -> bool:
    """Whether a user may have this id; the store is asked for no other."""
    return len(user) <= MAX_USER_ID and "\0" not in user
