"""The roots of trust: whose signatures are believed. Never taken from a receipt."""

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography import x509

NVIDIA_ROOT_SHA256 = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
"""SHA-256 of the DER of "NVIDIA Device Identity CA" (NVIDIA/nvtrust, verifier_device_root.pem)."""
NRAS_ISSUER = "https://nras.attestation.nvidia.com"
SYNTHETIC_ORGANISATION = "SYNTHETIC TEST ONLY"


Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class Roots(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No member has a default: a file that says nothing must not stand for production's."""

    name: Name
    intel_der: bytes | None
    """DER of the root of Intel's PKI; None: the one that the verifier has built in."""
    nvidia_sha256: Sha256
    nras_issuer: Name
    synthetic: bool
    """For tests: nothing under such roots proves anything."""

    @property
    def digest(self) -> str:
        """Names them in a receipt."""
        der = self.intel_der or b"built in"
        return hashlib.sha256(der + self.nvidia_sha256.encode()).hexdigest()


PRODUCTION = Roots(
    name="intel, nvidia",
    intel_der=None,
    nvidia_sha256=NVIDIA_ROOT_SHA256,
    nras_issuer=NRAS_ISSUER,
    synthetic=False,
)


def configured(path: str) -> Roots:
    """Production's, where no file is named. Raises OSError, and ValueError where it holds none."""
    return load(Path(path)) if path else PRODUCTION


def load(path: Path) -> Roots:
    """Roots from a JSON file. Raises OSError, and ValueError where it holds none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Roots)
        if found.intel_der is not None:
            x509.load_der_x509_certificate(found.intel_der)
    except ValueError as error:  # also of msgspec: no JSON, no UTF-8, other members
        raise ValueError(f"{path} holds no roots: {error}") from error
    return found
