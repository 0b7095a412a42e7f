"""GET /metrics: the whole deployment in Prometheus text, whichever process is asked."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from api.auth import Authenticator, address_of
from api.middleware import HasCatalog
from api.schemas.errors import refusals

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def router(
    *,
    collect: Callable[[], Awaitable[bytes]],
    catalog: HasCatalog,
    authenticator: Authenticator,
) -> APIRouter:
    routes = APIRouter(tags=["metrics"])

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {TEXT: {}}}, **refusals("401", "403", "503")},
    )
    async def get_metrics(request: Request) -> Response:
        """Prometheus metrics of every live process, by role and process, and of the stores."""
        document = catalog.current.document
        if document.metrics.require_key:
            await _require_key(authenticator, request, is_open=document.auth.mode == "open")
        return Response(await collect(), media_type=TEXT)

    return routes


async def _require_key(authenticator: Authenticator, request: Request, *, is_open: bool) -> None:
    headers = request.headers.raw
    if is_open:
        # In open mode everybody is somebody, so only the master key can close this door.
        authenticator.require_master(headers)
    else:
        await authenticator.caller(headers, address_of(request.scope))
