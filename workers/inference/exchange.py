"""What a job's calls are made of and with: the exchange of an endpoint, and who else takes part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

from shared.clock import Clock
from shared.job import JobHeader
from shared.seal import Seal
from shared.valkey.cache import CacheEntries
from shared.valkey.uploads import UploadReader
from workers.held import HeldJob
from workers.inference.attempt import Attempt
from workers.inference.cache import Cache
from workers.inference.meter import Meter
from workers.inference.permit import Attested
from workers.inference.routing import Route, Routing


class Recorder(Protocol):
    """Records attempts before their sends, and takes jobs back; the runner is one."""

    async def attempt(self, held: HeldJob, *, row_id: str, row: bytes) -> bytes: ...

    async def give_back(self, held: HeldJob) -> None: ...

    async def extend_hold(self, held: HeldJob, nano: int) -> bytes: ...

    @property
    def cache(self) -> CacheEntries: ...


class Catalogs(Protocol):
    """Finds the routing of the catalog a job was admitted under."""

    async def routing(self, config_hash: str) -> Routing | None: ...

    def provider_types(self, config_hash: str) -> Mapping[str, str]:
        """By the providers' names; empty for a catalog that is not at hand."""
        ...

    def is_off(self, provider: str) -> bool:
        """Whether the catalog in force has switched a provider off."""
        ...


class Exchange(Protocol):
    """What is sent in a call, and what becomes of the answer."""

    @property
    def header(self) -> JobHeader:
        """The job's; of a call whose answer goes to nobody outside, as if it were asked whole."""
        ...

    @property
    def input_estimate(self) -> int:
        """Tokens of the request, by its characters: a stand-in for a missing count."""
        ...

    @property
    def waits_for_client(self) -> bool:
        """Its provider has nothing to do until our client goes on: should it give up meanwhile, that
        says nothing against it."""
        ...

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        """The call for one attempt."""
        ...

    async def relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        """Takes a 200 to its end, and completes the attempt. Raises AttemptFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the jobs of one process share."""

    catalogs: Catalogs
    transport: httpx.AsyncBaseTransport
    seal: Seal
    clock: Clock
    meter: Meter
    uploads: UploadReader
    cache: Cache
    sessions: Attested
