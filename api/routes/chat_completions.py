"""POST /v1/chat/completions, as raw ASGI: check, admit, relay."""

from starlette.types import Receive, Scope, Send

from api.admit import Gate
from api.auth import Authenticator
from api.body import ClientLeft, read_body
from api.middleware import CLIENT_REQUEST_ID, REQUEST_ID
from api.problems import send_error
from api.relay import Relay
from shared.caller import Caller
from shared.catalog import Catalog, Target
from shared.clock import Clock
from shared.dialects import chat
from shared.errors import GatewayError, NotFound, NotPermitted, UnsupportedMediaType
from shared.ids import new_id
from shared.job import LANES, JobHeader
from shared.postgres.catalog_watch import CatalogWatch

LANE_OF_TIER = {"priority": "priority", "auto": "default", "default": "default", "flex": "flex"}


class ChatCompletions:
    """One instance serves every request of the process."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        catalogs: CatalogWatch,
        gate: Gate,
        relay: Relay,
        clock: Clock,
    ) -> None:
        self._authenticator = authenticator
        self._catalogs = catalogs
        self._gate = gate
        self._relay = relay
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            header, body = await self._accepted(scope, receive)
            waiter = await self._gate.admit(header, body, self._catalogs.current.document.queue)
        except GatewayError as error:
            await send_error(send, error.body())
            return
        except ClientLeft:
            return
        await self._relay(header, waiter, scope, receive, send)

    async def _accepted(self, scope: Scope, receive: Receive) -> tuple[JobHeader, bytes]:
        """Authenticates before anything of the body is looked at, then checks it."""
        headers = scope["headers"]
        caller = self._authenticator.cached(headers) or await self._authenticator.caller(headers)
        body = await read_body(receive)
        _require_json(headers)
        catalog = self._catalogs.current
        request = chat.parse(body, accept_stop_string=catalog.document.compat.accept_stop_string)
        return self._header(scope, caller, catalog, request), body

    def _header(
        self, scope: Scope, caller: Caller, catalog: Catalog, request: chat.ChatRequest
    ) -> JobHeader:
        target = _target(catalog, caller, request)
        times = target.model.timeouts
        total = times.total if times else _total_seconds(catalog, target)
        return JobHeader(
            request_id=scope[REQUEST_ID],
            reply_to=self._gate.process,
            lane=_lane(caller, request.service_tier),
            tenant=caller.tenant,
            user=caller.user,
            key_id=caller.key_id,
            model=target.name,
            asked_model=request.model,
            pinned_provider=request.variant_name or target.pinned_provider,
            stream=request.stream,
            include_usage=request.include_usage or catalog.document.compat.always_stream_usage,
            config_hash=catalog.hash,
            episode_id=request.episode_id or new_id(),
            client_request_id=scope.get(CLIENT_REQUEST_ID),
            tags=chat.tags_or_user_agent(request, _user_agent(scope["headers"])),
            admitted_at=self._clock.now(),
            queue_seconds=min(catalog.document.queue.queue_seconds, total),
            total_seconds=total,
            include_raw_usage=request.include_raw_usage,
            include_raw_response=request.include_raw_response,
        )


def _target(catalog: Catalog, caller: Caller, request: chat.ChatRequest) -> Target:
    target = catalog.resolve(request.model)
    if target is None:
        raise NotFound(
            f"The model '{request.model}' does not exist.", code="model_not_found", param="model"
        )
    if caller.allowed_models is not None and target.name not in caller.allowed_models:
        raise NotPermitted(
            f"This key may not use the model '{request.model}'.", code="model_not_allowed"
        )
    variant = request.variant_name
    if variant and all(variant != route.provider for route in target.model.providers):
        raise NotFound(
            f"The model has no variant '{variant}'.", code="model_not_found",
            param="ollm::variant_name",
        )  # fmt: skip
    return target


def _total_seconds(catalog: Catalog, target: Target) -> float:
    """The most patient of the model's providers decides."""
    providers = catalog.document.providers
    return max(providers[route.provider].timeouts.total for route in target.model.providers)


def _lane(caller: Caller, service_tier: str | None) -> str:
    """The lane asked for, but none better than the key's best."""
    asked = LANE_OF_TIER.get(service_tier or "auto", "default")
    best = caller.best_lane
    return asked if asked == best else max(asked, best, key=LANES.index)


def _require_json(headers: list[tuple[bytes, bytes]]) -> None:
    """A missing content type is taken as JSON, as OpenAI does."""
    for name, value in headers:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            if kind != b"application/json" and not kind.endswith(b"+json"):
                raise UnsupportedMediaType("The body must be application/json.")
            return


def _user_agent(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"user-agent":
            return value.decode("latin-1")
    return None
