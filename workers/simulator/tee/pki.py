"""The synthetic PKI: minted in milliseconds, kept in a directory or thrown away with the process."""

import hashlib
import ipaddress
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.attestation.roots import NRAS_ISSUER, Roots
from workers.simulator.tee.certificate import (
    Extension,
    Identity,
    issued,
    private_pem,
    sgx_extension,
)

ROOTS_FILE, CA_FILE, KEYS_FILE = "roots.json", "ca.pem", "keys.json"
PLATFORM_CA_NAME = "Intel SGX PCK Platform CA"
"""By this name the verifier knows whose revocation list to ask for: `platform`."""
PCK_NAME = "Intel SGX PCK Certificate"


class KeysFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a PKI is kept as: private keys and certificates as PEM, by name."""

    minted_at: float
    seed: bytes
    keys: dict[str, str]
    certificates: dict[str, str]


@dataclass(frozen=True, eq=False)
class Pki:
    minted_at: float
    seed: bytes
    """What the keys of simulated machines are derived from."""
    root: Identity
    pck_ca: Identity
    tcb_signing: Identity
    gpu_root: Identity
    gpu_ca: Identity
    tls: Identity
    """Of the address that the simulator listens at, where it ends TLS."""
    attestation_key: ec.EllipticCurvePrivateKey
    nras_key: ec.EllipticCurvePrivateKey

    @classmethod
    def mint(cls, now: float) -> Self:
        root = issued("Synthetic SGX Root CA", _p256(), by=None, now=now, is_ca=True)
        gpu_root = issued("Synthetic Device Identity CA", _p384(), by=None, now=now, is_ca=True)
        return cls(
            minted_at=now,
            seed=secrets.token_bytes(32),
            root=root,
            pck_ca=issued(PLATFORM_CA_NAME, _p256(), by=root, now=now, is_ca=True),
            tcb_signing=issued("Synthetic TCB Signing", _p256(), by=root, now=now),
            gpu_root=gpu_root,
            gpu_ca=issued("Synthetic GPU CA", _p384(), by=gpu_root, now=now, is_ca=True),
            tls=issued("localhost", _p256(), by=root, now=now, extensions=_served_names()),
            attestation_key=_p256(),
            nras_key=_p384(),
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Raises OSError, and ValueError where the directory holds no PKI."""
        try:
            kept = msgspec.json.decode((directory / KEYS_FILE).read_bytes(), type=KeysFile)
        except msgspec.DecodeError as error:
            raise ValueError(f"{directory / KEYS_FILE} holds no PKI: {error}") from error
        keys = {name: _private(pem) for name, pem in kept.keys.items()}
        identities = {
            name: Identity(keys[name], x509.load_pem_x509_certificate(pem.encode()))
            for name, pem in kept.certificates.items()
        }
        return cls(
            minted_at=kept.minted_at,
            seed=kept.seed,
            attestation_key=keys["attestation_key"],
            nras_key=keys["nras_key"],
            **identities,
        )

    def save(self, directory: Path) -> None:
        """The roots last: who finds them finds all of it. Raises FileExistsError where they are."""
        if (directory / ROOTS_FILE).exists():
            raise FileExistsError(f"{directory} holds a TEE: what it attests would lose its roots")
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / KEYS_FILE, msgspec.json.encode(self._kept()))
        _write(directory / CA_FILE, self.root.pem.encode())
        _write(directory / ROOTS_FILE, msgspec.json.encode(self.roots))

    @property
    def identities(self) -> dict[str, Identity]:
        names = ("root", "pck_ca", "tcb_signing", "gpu_root", "gpu_ca", "tls")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def roots(self) -> Roots:
        return Roots(
            name="synthetic",
            intel_der=self.root.der,
            nvidia_sha256=hashlib.sha256(self.gpu_root.der).hexdigest(),
            nras_issuer=NRAS_ISSUER,
            synthetic=True,
        )

    @cached_property
    def tls_spki_sha256(self) -> str:
        return hashlib.sha256(self.tls.spki).hexdigest()

    def pck(self, fmspc: str) -> Identity:
        """A certificate of a platform's quoting key, another at each call."""
        extension = sgx_extension(bytes.fromhex(fmspc), secrets.token_bytes(16))
        return issued(PCK_NAME, _p256(), by=self.pck_ca, now=self.minted_at, extensions=[extension])

    def gpu(self, name: str, *, unit: str = "") -> Identity:
        """A GPU's own certificate. Its unit says what is wrong with it, if anything is."""
        return issued(name, _p384(), by=self.gpu_ca, now=self.minted_at, unit=unit)

    def _kept(self) -> KeysFile:
        identities = self.identities
        return KeysFile(
            minted_at=self.minted_at,
            seed=self.seed,
            keys={
                **{name: one.key_pem for name, one in identities.items()},
                "attestation_key": private_pem(self.attestation_key),
                "nras_key": private_pem(self.nras_key),
            },
            certificates={name: one.pem for name, one in identities.items()},
        )


def _p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _private(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a key of the PKI is not on an elliptic curve")
    return key


def _served_names() -> list[Extension]:
    loopback = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    names = [x509.DNSName("localhost"), *map(x509.IPAddress, loopback)]
    return [
        (x509.SubjectAlternativeName(names), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]


def _write(path: Path, content: bytes) -> None:
    """For its owner alone; whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
