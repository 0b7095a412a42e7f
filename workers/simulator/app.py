"""The simulator's ASGI application: a routing table and who may pass.

A new endpoint is a file with a handler of (exchange, profile) and one line in `_provider_routes`.
"""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from hmac import compare_digest

from shared.clock import Clock
from workers.simulator.audio import Audio
from workers.simulator.chat import Chat
from workers.simulator.control import Control
from workers.simulator.documents import Documents
from workers.simulator.exchange import ClientClosed, Exchange, Message, Receive, Send
from workers.simulator.faults import Faults
from workers.simulator.ledger import Ledger
from workers.simulator.pace import Pacemaker
from workers.simulator.problems import Problem, Refused, envelope
from workers.simulator.profiles import Profile, profiles
from workers.simulator.tee.endpoints import Endpoints
from workers.simulator.tee.profiles import attested_profiles
from workers.simulator.tee.tee import Tee

Handler = Callable[[Exchange], Awaitable[None]]
ProviderHandler = Callable[[Exchange, Profile], Awaitable[None]]
Routes = dict[str, dict[str, Handler]]  # path -> method -> handler
ANY = "*"  # as a path's last segment


class Simulator:
    """No key means that any non-empty one is let in."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        pacemaker: Pacemaker,
        tee: Tee,
        clock: Clock,
        api_keys: Collection[str] = (),
    ) -> None:
        self._api_keys = [key.encode() for key in api_keys]
        chat = Chat(ledger=ledger, pacemaker=pacemaker, faults=Faults(), tee=tee, clock=clock)
        control = Control(ledger=ledger, pacemaker=pacemaker)
        documents = Documents(ledger=ledger, tee=tee)
        audio = Audio(ledger=ledger)
        attesting = Endpoints(tee, pacemaker)
        self._profiles = (*profiles(), *attested_profiles(tee))
        self._routes = (
            self._provider_routes(chat, documents, audio)
            | self._attestation_routes(tee, attesting)
            | _control_routes(control)
            | _vendor_routes(tee, attesting)
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            await self._handler(exchange)(exchange)
        except Refused as refused:
            problem = refused.problem
            await exchange.respond_json(problem.status, envelope(problem))
        except ClientClosed:
            await exchange.hang_up()  # else uvicorn takes the unfinished answer for a bug of ours

    def _provider_routes(self, chat: Chat, documents: Documents, audio: Audio) -> Routes:
        endpoints: dict[str, dict[str, ProviderHandler]] = {
            "chat/completions": {"POST": chat.complete},
            "embeddings": {"POST": documents.embed},
            "rerank": {"POST": documents.rerank},
            "audio/transcriptions": {"POST": audio.transcribe},
            "models": {"GET": chat.models},
        }
        return {
            f"{profile.base_path}/{name}": {
                method: partial(self._admit, handler, profile)
                for method, handler in methods.items()
            }
            for profile in self._profiles
            for name, methods in endpoints.items()
        }

    def _attestation_routes(self, tee: Tee, endpoints: Endpoints) -> Routes:
        served: dict[str, tuple[Collection[str], ProviderHandler]] = {
            "attestation/report": (tee.reporters, endpoints.report),
            f"signature/{ANY}": (tee.signatories, endpoints.signature),
            "aci/attestation": (tee.aci, endpoints.attestation),
            f"aci/receipts/{ANY}": (tee.aci, endpoints.receipt),
            f"aci/sessions/{ANY}": (tee.aci, endpoints.session),
        }
        return {
            f"{profile.base_path}/{name}": {"GET": partial(self._admit, handler, profile)}
            for profile in self._profiles
            for name, (names, handler) in served.items()
            if profile.name in names
        }

    def _handler(self, exchange: Exchange) -> Handler:
        methods = self._routes.get(exchange.path) or self._routes.get(
            f"{exchange.path.rpartition('/')[0]}/{ANY}"
        )
        if methods is None:
            raise Refused(404, "No such route.", code="route_not_found")
        handler = methods.get(exchange.method)
        return handler or partial(_not_allowed, ", ".join(methods).encode("ascii"))

    async def _admit(self, handler: ProviderHandler, profile: Profile, exchange: Exchange) -> None:
        scheme, _, key = exchange.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not self._known(key.strip()):
            raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")
        await handler(exchange, profile)

    def _known(self, key: bytes) -> bool:
        if not self._api_keys:
            return bool(key)
        return any(compare_digest(key, known) for known in self._api_keys)


async def _not_allowed(allowed: bytes, exchange: Exchange) -> None:
    problem = Problem(405, "Method not allowed.", code="method_not_allowed")
    await exchange.respond_json(405, envelope(problem), headers=[(b"allow", allowed)])


def _control_routes(control: Control) -> Routes:
    return {
        "/_sim/config": {"GET": control.show_pace, "POST": control.change_pace},
        "/_sim/ledger": {"GET": control.page, "DELETE": control.reset},
        "/_sim/ledger/summary": {"GET": control.summary},
    }


def _vendor_routes(tee: Tee, endpoints: Endpoints) -> Routes:
    """Intel's and NVIDIA's services, and whose roots their documents are under."""
    return {
        "/tdx/certification/v4/tcb": {"GET": tee.intel.tcb},
        "/tdx/certification/v4/qe/identity": {"GET": tee.intel.enclave},
        "/sgx/certification/v4/pckcrl": {"GET": tee.intel.platform_crl},
        "/sgx/certification/v4/rootcacrl": {"GET": tee.intel.root_crl},
        "/nras/v3/attest/gpu": {"POST": tee.nvidia.attest},
        "/nras/.well-known/jwks.json": {"GET": tee.nvidia.keys},
        "/_sim/tee/roots": {"GET": endpoints.roots},
    }
