"""Whether this process and its stores work: for people, balancers and probes. Never needs a key."""

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.drain import Drain
from api.middleware import HasCatalog
from api.schemas.errors import answer
from api.store_checks import StoreChecks
from shared.errors import Overloaded

NEEDED = ("postgres", "valkey")
"""Without these no request can be admitted. ClickHouse may be away for a while: rows wait."""
RETRY = {"Retry-After": "1"}


class Health:
    """The answers, apart from the routes that give them."""

    def __init__(
        self, *, checks: StoreChecks, catalog: HasCatalog, drain: Drain, version: str
    ) -> None:
        self._checks = checks
        self._catalog = catalog
        self._drain = drain
        self._version = version

    def status(self) -> dict[str, str]:
        config_hash = self._catalog.current.hash
        return {"status": "ok", "version": self._version, "config_hash": config_hash}

    async def health(self) -> JSONResponse:
        seen = await self._checks.look()
        is_healthy = all(seen.values())
        body = {"status": _word(is_healthy), "gateway": "ok", **_words(seen)}
        return JSONResponse(body) if is_healthy else JSONResponse(body, 503, headers=RETRY)

    async def readiness(self) -> JSONResponse:
        seen = await self._checks.look()
        is_ready = not self._drain.draining and all(seen[name] for name in NEEDED)
        state = {
            "status": _word(is_ready),
            "database": "connected" if seen["postgres"] else "unavailable",
            "version": self._version,
            **_words(seen),
        }
        return JSONResponse(state) if is_ready else self._not_ready(state)

    def _not_ready(self, state: dict[str, str]) -> JSONResponse:
        code = "draining" if self._drain.draining else None
        document = Overloaded("The gateway is not ready.", code=code).body().document()
        # Otari's clients read an object here.
        return JSONResponse({**document, "detail": state}, 503, headers=RETRY)


def router(health: Health, prefix: str) -> APIRouter:
    """`prefix` is empty, or `/api/v1` for the other name of the same routes."""
    routes = APIRouter(prefix=prefix, tags=["health"])
    shown = not prefix

    @routes.head("/health", include_in_schema=False)
    @routes.get(
        "/health",
        include_in_schema=shown,
        responses={
            200: answer("All is well.", "Health"),
            503: answer("A store is away.", "Health"),
        },
    )
    async def get_health() -> JSONResponse:
        """Whether the gateway and its backing services are available."""
        return await health.health()

    @routes.head("/health/liveness", include_in_schema=False)
    @routes.get("/health/liveness", include_in_schema=shown)
    async def get_liveness() -> str:
        """Whether this process answers at all."""
        return "I'm alive!"

    @routes.head("/health/readiness", include_in_schema=False)
    @routes.get(
        "/health/readiness",
        include_in_schema=shown,
        responses={200: answer("Ready.", "Health"), 503: answer("Not ready.", "Health")},
    )
    async def get_readiness() -> JSONResponse:
        """Whether this process takes requests."""
        return await health.readiness()

    return routes


def status_router(health: Health) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.head("/status", include_in_schema=False)
    @routes.get("/status")
    async def get_status() -> dict[str, str]:
        """The gateway's status, version and the hash of the catalog in force."""
        return health.status()

    return routes


def _word(is_well: bool) -> str:
    return "healthy" if is_well else "unhealthy"


def _words(seen: Mapping[str, bool]) -> dict[str, str]:
    return {name: "ok" if is_up else "error" for name, is_up in seen.items()}
