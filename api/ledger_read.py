"""One read of the ledger for a route: bounded in time, and told in our own errors where it fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.clickhouse.client import ClickHouseAway, ContentRefused
from shared.errors import InvalidRequest, Overloaded, TimedOut
from shared.postgres.engine import STORE_ERRORS

ANSWER_SECONDS = 30.0
"""For one page or one table of sums; a hundred million rows take about one."""


@asynccontextmanager
async def reading_ledger(
    *, seconds: float = ANSWER_SECONDS, timeout_code: str = "usage_timeout"
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TimedOut("The ledger took too long to answer.", code=timeout_code) from error
    except (ClickHouseAway, *STORE_ERRORS) as error:
        raise Overloaded("The ledger cannot be read now.") from error
    except ContentRefused as error:
        raise InvalidRequest("A parameter of the query means nothing.") from error
