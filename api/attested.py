"""What the routes about receipts, their log and attestation sessions stand on, and who may call them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from fastapi import Request

from api.auth import Authenticator, address_of
from api.middleware import HasCatalog
from api.receipt_archive import Archive
from shared.attestation.signing import ReceiptKey
from shared.caller import Caller
from shared.errors import Overloaded, TimedOut
from shared.postgres.attestation_sessions import SessionStore
from shared.postgres.engine import STORE_ERRORS
from shared.postgres.receipts import ReceiptStore

ANSWER_SECONDS = 15.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """The collaborators of these routes."""

    authenticator: Authenticator
    catalog: HasCatalog
    archive: Archive
    receipts: ReceiptStore
    sessions: SessionStore
    key: ReceiptKey


class Reader:
    """For FastAPI's Depends: any key that works, looked at before the query is."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def __call__(self, request: Request) -> Caller:
        return await self._authenticator.caller(request.headers.raw, address_of(request.scope))


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Bounds a read, and says in our own errors what became of it."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError as error:
        raise TimedOut("The archive took too long to answer.", code="archive_timeout") from error
    except STORE_ERRORS as error:
        # The name alone: the error's text holds the statement's values.
        log.error("The archive cannot be read", action="store_failed", error=type(error).__name__)
        raise Overloaded("The archive cannot be read now.") from error
