"""The roots of trust: whose signatures are believed. Never taken from a receipt."""

import hashlib
from pathlib import Path

import msgspec

NVIDIA_ROOT_SHA256 = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
"""SHA-256 of the DER of "NVIDIA Device Identity CA" (NVIDIA/nvtrust, verifier_device_root.pem)."""
NRAS_ISSUER = "https://nras.attestation.nvidia.com"
SYNTHETIC_ORGANISATION = "SYNTHETIC TEST ONLY"


class Roots(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "intel, nvidia"
    intel_der: bytes | None = None
    """DER of the root of Intel's PKI; None: the one that the verifier has built in."""
    nvidia_sha256: str = NVIDIA_ROOT_SHA256
    nras_issuer: str = NRAS_ISSUER
    synthetic: bool = False
    """For tests: nothing under such roots proves anything."""

    @property
    def digest(self) -> str:
        """Names them in a receipt."""
        der = self.intel_der or b"built in"
        return hashlib.sha256(der + self.nvidia_sha256.encode()).hexdigest()


PRODUCTION = Roots()


def configured(path: str) -> Roots:
    """Production's, where no file is named. Raises OSError, and ValueError where it holds none."""
    return load(Path(path)) if path else PRODUCTION


def load(path: Path) -> Roots:
    """Roots from a JSON file. Raises OSError, and ValueError where it holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Roots)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} holds no roots: {error}") from error
