"""A target: who is asked to prove what, and what is accepted of them."""

from collections.abc import Hashable

import httpx
import msgspec

from shared.attestation.policy import Policy
from shared.attestation.roots import PRODUCTION, Roots
from shared.document import Document, Model, Provider
from workers.attestation.fetcher import EvidenceAway, Fetcher
from workers.attestation.provider import AttestedProvider
from workers.providers.registry import Credentials

ACI_TYPES = frozenset({"phala"})
"""Types of provider that may be an ACI gateway: the answer to the first question tells."""

SIMULATED_NRAS = "/nras"
INFORMING_SECONDS = 2.0
"""With `require` a prompt waits for it."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a provider."""

    provider: str
    base_url: str
    upstream_model: str
    asked: AttestedProvider
    may_be_aci: bool
    policy: Policy
    roots: Roots
    pccs_url: str
    nras_url: str
    deadline_seconds: float
    host: str

    def place(self, signer: str) -> tuple[object, ...]:
        """What a session is good for: another policy may judge the same report otherwise."""
        return (self.base_url, self.upstream_model, signer, self.policy, self.roots)

    def has_place(self, place: Hashable) -> bool:
        """Whichever the signer and the policy."""
        return isinstance(place, tuple) and place[:2] == (self.base_url, self.upstream_model)

    @property
    def nras_seconds(self) -> float | None:
        """How long NVIDIA's word is waited for, where it only informs; None: as every call is."""
        return INFORMING_SECONDS if "gpu_measurements" in self.policy.demoted else None


class Targets:
    """Makes them of a catalog's document; one client for each address.

    Synthetic roots count for simulated providers alone: no setting makes them count for a real one.
    """

    def __init__(self, credentials: Credentials, fetcher: Fetcher, *, simulated: Roots) -> None:
        self._credentials = credentials
        self._simulated = simulated
        self._fetcher = fetcher
        self._clients: dict[tuple[str, str, str | None], AttestedProvider] = {}

    def of(self, document: Document, *, provider: str, model: str, upstream_model: str) -> Target:
        """Raises EvidenceAway where the catalog has no such provider any more."""
        settings = document.providers.get(provider)
        base_url = self._credentials.base_url(settings) if settings else ""
        if settings is None or not base_url:
            raise EvidenceAway("the catalog has no such provider")
        attestation = document.attestation
        simulated = self._credentials.evidence_url(settings)
        return Target(
            provider=provider,
            base_url=base_url,
            upstream_model=upstream_model,
            asked=self._client(provider, base_url, self._credentials.api_key(settings)),
            may_be_aci=settings.type in ACI_TYPES,
            policy=policy_of(document, settings, document.models.get(model)),
            roots=self._simulated if simulated else PRODUCTION,
            pccs_url=simulated or attestation.pccs_url,
            nras_url=simulated + SIMULATED_NRAS if simulated else attestation.nras_url,
            deadline_seconds=attestation.deadline_seconds,
            host=httpx.URL(base_url).host,
        )

    def _client(self, provider: str, base_url: str, api_key: str | None) -> AttestedProvider:
        place = (provider, base_url, api_key)
        found = self._clients.get(place)
        if found is None:
            found = self._clients[place] = AttestedProvider(
                self._fetcher, base_url=base_url, api_key=api_key
            )
        return found


def policy_of(document: Document, provider: Provider, model: Model | None) -> Policy:
    """What an operator accepts of a provider that serves a model."""
    attestation, model = document.attestation, model or Model(providers=[])
    return Policy(
        allowed_tcb=attestation.allowed_tcb,
        demoted=attestation.demoted,
        report_seconds=attestation.session_seconds,
        compose_hashes=model.compose_hashes,
        os_images=model.os_images,
        shapes=provider.attestation_shapes,
        tls_key_required=provider.tls_key_required,
        has_gpu=model.has_gpu,
    )
