"""Report data: the 64 bytes of a quote that say whose it is and how fresh, in each provider's form."""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import rfc8785

from shared.attestation.report import Attestation

SIZE = 64
HALF = 32
ACI_PURPOSE = "aci.report_data.v1"

Identity = Literal["", "signer", "keyset"]


class Binding(msgspec.Struct, frozen=True):
    """What the report data of one quote was found to be made of."""

    identity: Identity = ""
    nonce: bool = False
    """Ours."""
    tls: bool = False
    """The TLS keys that the attestation names."""


def read_binding(data: bytes, attestation: Attestation, nonce: str) -> Binding:
    """`nonce`: ours, 64 hex digits. Never compared with what a report calls its nonce."""
    if len(data) != SIZE:
        return Binding()
    found = _keyset_binding(data, attestation, nonce) if attestation.keyset else Binding()
    return found if found.identity else _signer_binding(data, attestation, nonce)


def _signer_binding(data: bytes, attestation: Attestation, nonce: str) -> Binding:
    signer, spki = (bytes.fromhex(one) for one in (attestation.signer, attestation.tls_spki))
    expected = tls_form(signer, spki) if spki else address_form(signer)
    is_theirs = bool(expected) and data[:HALF] == expected
    return Binding(
        identity="signer" if is_theirs else "",
        nonce=data[HALF:].hex() == nonce.lower(),
        tls=is_theirs and bool(spki),
    )


def _keyset_binding(data: bytes, attestation: Attestation, nonce: str) -> Binding:
    """The nonce is hashed with the keyset: a report that was asked for without one is told by that."""
    digest = keyset_digest(attestation.keyset)
    for asked in (nonce, None):
        if digest and data == aci_form(digest, asked, attestation.workload_id):
            return Binding("keyset", nonce=bool(asked), tls=True)
    return Binding()


def address_form(signer: bytes) -> bytes:
    """The first half; empty for what is neither an address nor an ed25519 key."""
    return signer.ljust(HALF, b"\0") if len(signer) in (20, HALF) else b""


def tls_form(signer: bytes, spki: bytes) -> bytes:
    """The first half where a TLS key is attested. Both lengths are fixed: it reads in one way only."""
    if len(signer) not in (20, HALF) or len(spki) != HALF:
        return b""
    return hashlib.sha256(signer + spki).digest()


def chutes_form(server_nonce: str, encryption_key: str) -> bytes:
    """The first half; the nonce is the server's."""
    return hashlib.sha256((server_nonce + encryption_key).encode()).digest()


def aci_form(digest: str, nonce: str | None, workload_id: str = "") -> bytes:
    """All of it. With a workload id it is generation B's."""
    statement = {"nonce": nonce, "purpose": ACI_PURPOSE}
    if workload_id:
        statement |= {"workload_id": workload_id, "workload_keyset_digest": digest}
    else:
        statement |= {"keyset_digest": digest}
    return hashlib.sha256(rfc8785.dumps(statement)).digest().ljust(SIZE, b"\0")


def keyset_digest(keyset: Mapping[str, object] | None) -> str:
    """`sha256:` over its canonical form (RFC 8785); empty where it has none."""
    if not keyset:
        return ""
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(keyset)).hexdigest()  # type: ignore[arg-type]
    except (ValueError, RecursionError):
        return ""
