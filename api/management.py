"""What the management routes stand on: their stores, who may call them, and numbers as written."""

import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from api.auth import Authenticator, address_of
from api.counted_spend import CountedSpend
from api.middleware import HasCatalog, request_id_of
from api.price_book import PriceBook
from api.schemas.bodies import LimitsBody
from api.schemas.management import Who
from shared.account import RateLimits
from shared.clickhouse.client import ClickHouseAway
from shared.errors import Internal
from shared.ids import dashed
from shared.money import as_json
from shared.postgres.audit import Actor, AuditLog
from shared.postgres.budgets import BudgetStore
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.keys import KeyStore
from shared.postgres.pricing import PriceStore
from shared.postgres.users import UserStore
from shared.postgres.windows import ResetInfo, WindowStore

NO_CONTENT = 204
MASTER = "master"
"""The actor of a change that was made with the master key."""

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Management:
    """The collaborators of all management routes."""

    authenticator: Authenticator
    catalog: HasCatalog
    keys: KeyStore
    users: UserStore
    budgets: BudgetStore
    prices: PriceStore
    price_book: PriceBook
    audit: AuditLog
    spend: CountedSpend
    windows: WindowStore


class ExactRequest(Request):
    """Its numbers are decimals: a price must not pass through a float."""

    @override
    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class ManagementRoute(APIRoute):
    """Checks the caller before it looks at the body, and says nothing of why a store failed."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, allow = super().get_route_handler(), self.allow

        async def handle(request: Request) -> Response:
            await allow(request)
            try:
                return await answer(ExactRequest(request.scope, request.receive))
            except (*STORE_ERRORS, ClickHouseAway) as error:
                # The name alone: the error's text holds the statement's values.
                log.error(
                    "A store failed",
                    action="store_failed",
                    error=type(error).__name__,
                    request_id=request_id_of(request.scope),
                )
                raise Internal("Database error", code="database_error") from error

        return handle

    async def allow(self, request: Request) -> None:
        raise NotImplementedError


def route_for(management: Management, who: Who) -> type[ManagementRoute]:
    """For APIRouter's `route_class`: routes of the master key alone, or of every key too."""
    authenticator = management.authenticator

    class Guarded(ManagementRoute):
        @override
        async def allow(self, request: Request) -> None:
            headers = request.headers.raw
            if who == "master":
                authenticator.require_master(headers)
            else:
                await authenticator.caller(headers, address_of(request.scope))

    return Guarded


def actor_of(request: Request) -> Actor:
    """Whom the audit log names. Only for routes of the master key."""
    request_id = dashed(request_id_of(request.scope))
    return Actor(MASTER, address_of(request.scope), request_id)


def answer(document: Any) -> Response:
    return Response(_encode(document), media_type="application/json")


def nothing() -> Response:
    return Response(status_code=NO_CONTENT)


def resets_of(history: Sequence[ResetInfo]) -> list[dict[str, Any]]:
    return [
        {
            "user_id": one.user_id,
            "key_id": one.key_id or None,
            "budget_id": str(one.budget_id),
            "previous_spend": number(one.previous_spend),
            "reset_at": moment(one.reset_at),
            "next_reset_at": moment(one.next_reset_at),
        }
        for one in history
    ]


def limits_of(body: LimitsBody) -> RateLimits:
    return RateLimits(**body.model_dump())


def number(amount: Decimal | None) -> msgspec.Raw | None:
    """A JSON number of every digit, without zeros that say nothing."""
    return None if amount is None else as_json(amount.normalize())


def moment(at: datetime | None) -> str | None:
    """ISO 8601 with `+00:00`: stores answer in UTC."""
    return None if at is None else at.isoformat()
