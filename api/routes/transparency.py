"""/v1/log: how the transparency log stands, and that it only ever grew."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api.attested import Attested, Reader, answering
from api.management import answer
from api.schemas.receipts import documented

MAX_SIZE = 2**53
"""JSON's integers."""
First = Annotated[int, Query(ge=0, le=MAX_SIZE)]
Second = Annotated[
    int | None, Query(ge=0, le=MAX_SIZE, description="The newest head's size, else.")
]


def router(attested: Attested, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""
    routes = APIRouter(
        prefix=f"{prefix}/log",
        tags=["receipts"],
        include_in_schema=prefix == "/v1",
        dependencies=[Depends(Reader(attested.authenticator))],
    )
    archive = attested.archive

    @routes.get("/head", **documented("get_log_head", "LogHead"))
    async def get_head() -> Response:
        """The log's newest signed head, and the public keys of heads and receipts."""
        async with answering():
            head, keys = await archive.head(), await archive.keys(attested.key)
        return answer({"head": head, "keys": keys})

    @routes.get("/consistency", **documented("get_log_consistency", "ConsistencyProof", "400"))
    async def get_consistency(first: First, second: Second = None) -> Response:
        """That the log of one size is the beginning of the log of another."""
        async with answering():
            return answer(await archive.consistency(first, second))

    return routes
