"""The inference routes, as raw ASGI: authenticate, check, admit, relay."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from starlette.types import Message, Receive, Scope, Send

from api.admit import Gate
from api.auth import AUTH_MS, Authenticator, address_of
from api.billing import Billing
from api.body import ClientLeft, read_body
from api.cache_mode import cache_mode, saying_off
from api.estimate import Size, accounts_of, size_of, with_terms
from api.middleware import CLIENT_REQUEST_ID, REQUEST_ID
from api.price_book import PriceBook
from api.problems import send_error
from api.relay import Relay
from api.selection import Selection, select
from api.standing import telling_refusal, telling_standing
from shared.caller import DRYRUN_SCOPE, Caller
from shared.catalog import Catalog, Target
from shared.clock import Clock
from shared.dialects.faults import unsupported
from shared.dialects.request import InferenceRequest, tags_or_user_agent, with_end_user
from shared.errors import GatewayError, NotPermitted, UnsupportedMediaType
from shared.hold import Hold
from shared.ids import new_id
from shared.job import LANE_OF_TIER, LANES, JobHeader
from shared.metrics import Metrics
from shared.postgres.catalog_watch import CatalogWatch
from shared.valkey.terms import Terms

WARN_SECONDS = 60.0
"""Between two log lines about the same; the metric counts every one."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What tells one inference route from another."""

    name: str
    """As it stands in jobs and spend rows."""
    pin: Callable[[Catalog, Target], str | None] = lambda _catalog, _target: None
    """The one provider that may answer, where that is so. Raises InvalidRequest."""
    has_functions: bool = False
    has_output_cap: bool = False
    """It generates, until a cap of tokens."""
    preferred_prefix: str = ""
    """A model named without it is served all the same, with a warning."""


Parse = Callable[[bytes, Catalog], InferenceRequest]
"""Checks a body. Raises InvalidRequest."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the inference routes of one process share."""

    authenticator: Authenticator
    billing: Billing
    catalogs: CatalogWatch
    prices: PriceBook
    gate: Gate
    relay: Relay
    clock: Clock
    metrics: Metrics


class InferenceRoute:
    """What the routes have in common: who asks, and the job that becomes of the request."""

    def __init__(self, endpoint: Endpoint, shared: Collaborators) -> None:
        self._endpoint = endpoint
        self._authenticator = shared.authenticator
        self._billing = shared.billing
        self._catalogs = shared.catalogs
        self._prices = shared.prices
        self._gate = shared.gate
        self._relay = shared.relay
        self._clock = shared.clock
        self._metrics = shared.metrics

    async def _caller(self, scope: Scope) -> Caller:
        """Asked before anything of the body is looked at; who is blocked is refused afterwards.

        Raises NotAuthenticated, NotPermitted, Overloaded.
        """
        headers, address = scope["headers"], address_of(scope)
        asked_at = self._clock.monotonic()
        authenticator = self._authenticator
        caller = authenticator.cached(headers, address) or await authenticator.identify(
            headers, address
        )
        scope[AUTH_MS] = (self._clock.monotonic() - asked_at) * 1000
        return caller

    async def _job(
        self,
        scope: Scope,
        caller: Caller,
        catalog: Catalog,
        request: InferenceRequest,
        size: Callable[[], Size],
    ) -> tuple[JobHeader, Terms | None]:
        """What is admitted, and the terms on which. A request that names no user, or no model, it
        may have is counted by the billed user's limits all the same. Raises GatewayError."""
        if not caller.is_billed:
            probe = partial(self._probe, scope[REQUEST_ID], catalog)
            caller = await self._billing.billed(caller, request.user, probe)
        try:
            header, selection = self._header(scope, caller, catalog, request)
        except GatewayError:
            await self._probe(scope[REQUEST_ID], catalog, caller)
            raise
        accounts = accounts_of(catalog, caller, selection.reachable(catalog))
        if not accounts:
            return header, None
        return with_terms(header, accounts, catalog, selection, size())

    async def _probe(self, request_id: str, catalog: Catalog, billed: Caller) -> None:
        """Counts what is refused for another reason. Raises RateLimited."""
        if accounts := accounts_of(catalog, billed):
            terms = Terms(accounts, Hold(), self._clock.now())
            await self._gate.probe(request_id, terms, billed.tenant)

    def _header(
        self, scope: Scope, caller: Caller, catalog: Catalog, request: InferenceRequest
    ) -> tuple[JobHeader, Selection]:
        """`caller` is under the name of the billed user."""
        episode_id = request.episode_id or new_id()
        selection = select(catalog, caller, request, episode_id)
        target = selection.target
        if selection.function and not self._endpoint.has_functions:
            raise unsupported("model", "is a function, which this endpoint does not have")
        _check_dryrun(catalog, caller, request)
        total, now = selection.total_seconds, self._clock.now()
        header = JobHeader(
            request_id=scope[REQUEST_ID],
            endpoint=self._endpoint.name,
            reply_to=self._gate.process,
            lane=_lane(caller, request.service_tier),
            tenant=caller.tenant,
            user=caller.user,
            key_id=caller.key_id,
            model=target.name,
            asked_model=request.model,
            pinned_provider=self._endpoint.pin(catalog, target) or selection.pinned_provider,
            stream=request.stream,
            include_usage=request.include_usage or catalog.document.compat.always_stream_usage,
            config_hash=catalog.hash,
            episode_id=episode_id,
            client_request_id=scope.get(CLIENT_REQUEST_ID),
            tags=_tags(scope, caller, request),
            admitted_at=now,
            queue_seconds=min(catalog.document.queue.queue_seconds, total),
            total_seconds=total,
            dryrun=request.dryrun,
            function=selection.function,
            variant=selection.variant,
            variant_is_pinned=selection.variant_is_pinned,
            include_raw_usage=request.include_raw_usage,
            include_raw_response=request.include_raw_response,
            cache=cache_mode(catalog, caller, request, selection),
            cache_max_age=request.cache_max_age,
            prices=self._prices.of(catalog, selection, now),
            selector_is_billed=caller.bills_selector,
            attestation=catalog.document.attestation_of(
                (one.model for one in selection.reachable(catalog)), caller.attestation
            ),
        )
        return header, selection


class Inference(InferenceRoute):
    """A route whose body is a document. One instance serves every request of it in this process."""

    def __init__(self, endpoint: Endpoint, shared: Collaborators, parse: Parse) -> None:
        super().__init__(endpoint, shared)
        self._parse = parse
        self._warned_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            header, terms, body, request = await self._accepted(scope, receive)
            waiter = await self._gate.admit(header, body, self._catalogs.current, terms)
        except GatewayError as error:
            await send_error(telling_refusal(send, error, self._clock.now()), error.body())
            return
        except ClientLeft:
            return
        if waiter.standing is not None:
            send = telling_standing(send, waiter.standing, self._clock.now())
        if not header.asked_model.startswith(self._endpoint.preferred_prefix):
            send = self._warning(header, send)
        if request.cache != header.cache == "off":
            send = saying_off(send)
        await self._relay(header, waiter, scope, receive, send)

    def _warning(self, header: JobHeader, send: Send) -> Send:
        """Adds the header that a deprecated form of the model's name asks for."""
        endpoint = self._endpoint
        self._metrics.deprecated_models.labels(endpoint.name).inc()
        now = self._clock.monotonic()
        if now - self._warned_at > WARN_SECONDS:
            self._warned_at = now
            log.warning(
                "A model was named without its prefix",
                action="deprecated_model_name",
                request_id=header.request_id,
                endpoint=endpoint.name,
                prefix=endpoint.preferred_prefix,
            )
        text = f'299 - "Name the model with the prefix {endpoint.preferred_prefix}"'.encode()

        async def warned(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"warning", text)]
            await send(message)

        return warned

    async def _accepted(
        self, scope: Scope, receive: Receive
    ) -> tuple[JobHeader, Terms | None, bytes, InferenceRequest]:
        caller = await self._caller(scope)
        body = await read_body(receive)
        _require_json(scope["headers"])
        catalog = self._catalogs.current
        request = self._parse(body, catalog)
        size = partial(size_of, request, body, generates=self._endpoint.has_output_cap)
        return *await self._job(scope, caller, catalog, request, size), body, request


def _tags(scope: Scope, caller: Caller, request: InferenceRequest) -> dict[str, str]:
    tags = tags_or_user_agent(request, _user_agent(scope["headers"]))
    return tags if caller.bills_selector else with_end_user(tags, request.user)


def _check_dryrun(catalog: Catalog, caller: Caller, request: InferenceRequest) -> None:
    """A dry run costs the operator and nobody else: where tenants are charged, few may."""
    if (
        request.dryrun
        and catalog.document.dryrun.allow == "scoped"
        and DRYRUN_SCOPE not in caller.scopes
        and not caller.is_master
    ):
        raise NotPermitted("This key may not use 'ollm::dryrun'.", code="dryrun_not_allowed")


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
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaType("The body must not be compressed.")


def _user_agent(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"user-agent":
            return value.decode("latin-1")
    return None
