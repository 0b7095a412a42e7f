"""A simulated node: a trust domain with its GPUs, its message signers and, in front, a TLS key."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from functools import cached_property

from workers.simulator.tee.event_log import APPLICATION_ID, Event, boot_log, replayed
from workers.simulator.tee.faults import fmspc_of
from workers.simulator.tee.gpu import Gpu, payload, spoilt
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.quote import Measurements, Platform
from workers.simulator.tee.signer import EcdsaSigner, Ed25519Signer, Signer

OS_IMAGE_HASH = hashlib.sha256(b"synthetic operating system").digest()
MR_TD = hashlib.sha384(b"synthetic firmware").digest()
QUOTE_REPORT_DATA_AT = 568
QUOTE_RTMR3_AT = 48 + 472
NVIDIA_FAULTS_AT_NRAS = (
    "nras-false", "nras-alg-none", "nras-nonce", "nras-expired", "nras-key", "nras-away",
)  # fmt: skip


class Node:
    """`fault` says what is wrong with it; empty: nothing."""

    def __init__(
        self,
        pki: Pki,
        *,
        service: str,
        name: str,
        platform: Platform,
        gpus: int,
        fault: str = "",
        salt: bytes = b"",
        tls_spki: str = "",
    ) -> None:
        """`salt` makes keys that do not outlive the process. `tls_spki` is hex, of SHA-256."""
        self.fault = fault
        self.name = name
        self._pki = pki
        self._service = service
        self._platform = platform
        self._gpu_count = gpus
        self._salt = salt
        shown_key = hashlib.sha256(b"not the key in use").hexdigest()
        self.tls_spki = shown_key if tls_spki and fault == "tls-not-attested" else tls_spki

    @cached_property
    def ecdsa(self) -> EcdsaSigner:
        return EcdsaSigner(self.secret("ecdsa"))

    @cached_property
    def ed25519(self) -> Ed25519Signer:
        return Ed25519Signer(self.secret("ed25519"))

    def signer(self, algorithm: str) -> Signer:
        return self.ecdsa if algorithm == "ecdsa" else self.ed25519

    def secret(self, purpose: str) -> bytes:
        """A key of its own for every purpose."""
        return hashlib.sha256(
            b"|".join([self._pki.seed, self._salt, self.name.encode(), purpose.encode()])
        ).digest()

    @cached_property
    def compose(self) -> str:
        """What was deployed."""
        image = hashlib.sha256(self._service.encode()).hexdigest()
        services = f"services:\n  server:\n    image: simulator/{self._service}@sha256:{image}\n"
        document = {
            "manifest_version": 2,
            "name": self._service,
            "runner": "docker-compose",
            "docker_compose_file": services,
        }
        return json.dumps(document)

    @property
    def shown_compose(self) -> str:
        return self.compose + " " if self.fault == "changed-compose" else self.compose

    @cached_property
    def log(self) -> tuple[Event, ...]:
        return boot_log(
            name=self.name, compose_hash=self._compose_hash, os_image_hash=OS_IMAGE_HASH
        )

    @property
    def shown_log(self) -> list[dict[str, object]]:
        if self.fault != "tampered-event-log":
            return [event.shown() for event in self.log]
        changed = [e._replace(event_payload="ff") if e.event == "app-id" else e for e in self.log]
        return [event.shown() for event in changed]

    @cached_property
    def measurements(self) -> Measurements:
        return Measurements(
            mr_td=MR_TD,
            mr_config_id=b"\x01" + self._compose_hash + bytes(15),
            rtmrs=replayed(self.log),
            debug=self.fault in ("debug", "gateway-debug"),
        )

    def quote(self, report_data: bytes) -> bytes:
        quote = self._platform.quote(self.measurements, report_data)
        if self.fault == "tampered-quote":
            return flipped(quote, QUOTE_REPORT_DATA_AT)
        if self.fault == "tampered-measurement":
            return flipped(quote, QUOTE_RTMR3_AT)
        return quote

    def nvidia_payload(self, nonce: bytes) -> str:
        """Empty: it has no GPU, or says so."""
        if not self._gpus or self.fault == "missing-gpu":
            return ""
        if self.fault == "empty-evidence":
            return payload(nonce, [])
        measured = secrets.token_bytes(32) if self.fault == "gpu-nonce" else nonce
        evidence = [gpu.evidence(measured) for gpu in self._gpus]
        if self.fault == "gpu-signature":
            evidence[-1] = spoilt(evidence[-1])
        return payload(nonce, evidence)

    @cached_property
    def info(self) -> Mapping[str, object]:
        """Claims about itself: none counts until the quote says the same."""
        log = self.log
        instance = next(event.event_payload for event in log if event.event == "instance-id")
        measured = self.measurements
        return {
            "app_id": APPLICATION_ID.hex(),
            "instance_id": instance,
            "app_name": self._service,
            "compose_hash": self._compose_hash.hex(),
            "os_image_hash": OS_IMAGE_HASH.hex(),
            "device_id": hashlib.sha256(self._platform.fmspc.encode()).hexdigest(),
            "key_provider_info": '{"name":"kms","id":"synthetic"}',
            "vm_config": self.vm_config,
            "tcb_info": {
                "mrtd": measured.mr_td.hex(),
                **{f"rtmr{n}": register.hex() for n, register in enumerate(measured.rtmrs)},
                "os_image_hash": OS_IMAGE_HASH.hex(),
                "compose_hash": self._compose_hash.hex(),
                "app_compose": self.shown_compose,
                "event_log": self.shown_log,
            },
        }

    @property
    def vm_config(self) -> str:
        config = {"os_image_hash": OS_IMAGE_HASH.hex(), "num_gpus": self._gpu_count}
        return json.dumps(config, separators=(",", ":"))

    @cached_property
    def _compose_hash(self) -> bytes:
        return hashlib.sha256(self.compose.encode()).digest()

    @cached_property
    def _gpus(self) -> list[Gpu]:
        vice = self.fault if self.fault in NVIDIA_FAULTS_AT_NRAS else ""
        pki = Pki.mint(self._pki.minted_at) if self.fault == "gpu-root" else self._pki
        gpus = [Gpu(pki, f"{self.name} GPU-{n}", vice=vice) for n in range(self._gpu_count)]
        return [*gpus, gpus[0]] if gpus and self.fault == "duplicated-gpu" else gpus


def address_form(signer: Signer, nonce: bytes, *, tls_spki: str = "") -> bytes:
    """A quote's 64 bytes: who signs, padded, or bound to a TLS key; then the nonce."""
    bound = signer.address_bytes.ljust(32, b"\0")
    if tls_spki:
        bound = hashlib.sha256(signer.address_bytes + bytes.fromhex(tls_spki)).digest()
    return bound + nonce


def flipped(data: bytes, at: int) -> bytes:
    """With one bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def platform(pki: Pki, fault: str) -> Platform:
    """The processor of a node with that fault."""
    under = Pki.mint(pki.minted_at) if fault == "foreign-root" else pki
    return Platform(under, fmspc_of(fault))
