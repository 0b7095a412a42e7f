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
"""Asked before a billed user is refused for what they are; may raise a better reason."""


class Billing:
    """Give it `UserCache.run()` running."""

    def __init__(self, users: UserCache) -> None:
        self._users = users

    async def billed(self, caller: Caller, selector: str | None, probe: Probe) -> Caller:
        """The caller under the name, and with the accounts, of the billed user.

        Raises InvalidRequest and NotPermitted for the selector; then, past the probe, NotFound and
        NotPermitted for the user; Overloaded where no store can be asked.
        """
        named = named_user(caller, selector)
        if named is not None:
            return await self._named(caller, named, probe)
        billed = caller if caller.key_id is not None else await self._anonymous(caller)
        if billed.user_is_blocked:
            await _refuse(billed, blocked(billed.user), probe)
        return billed

    async def _named(self, caller: Caller, user: str, probe: Probe) -> Caller:
        record = await self._users.get((caller.tenant, user)) if _is_name(user) else None
        of_user = () if record is None else record.accounts
        of_key = (account for account in caller.accounts if account.kind == "key")
        user = user[:MAX_USER_ID]  # as it is shown, and counted, where nobody has it
        billed = replace(caller, user=user, accounts=(*of_user, *of_key))
        if record is None:
            error = NotFound(f"User '{user}' not found", code="user_not_found")
            await _refuse(billed, error, probe)
        if caller.user_is_blocked:  # a blocked user's key bills nobody
            await _refuse(billed, blocked(caller.user), probe)
        if record.blocked:
            await _refuse(billed, blocked(user), probe)
        return billed

    async def _anonymous(self, caller: Caller) -> Caller:
        """Nobody needs to have made this user; who has may give it a budget, or block it."""
        record = await self._users.get((caller.tenant, caller.user))
        if record is None:
            return caller
        return replace(caller, accounts=record.accounts, user_is_blocked=record.blocked)


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


async def _refuse(billed: Caller, error: GatewayError, probe: Probe) -> NoReturn:
    await probe(billed)
    raise error


def blocked(user: str) -> NotPermitted:
    return NotPermitted(f"User '{user}' is blocked", code="user_blocked")


def _is_name(user: str) -> bool:
    """Whether a user may have this id; the store is asked for no other."""
    return len(user) <= MAX_USER_ID and "\0" not in user
