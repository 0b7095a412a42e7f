"""Choice: which machine of a report a call is said to have run in, and whose key signed its message."""

import msgspec
from eth_keys.datatypes import PublicKey
from eth_utils.exceptions import ValidationError

from shared.attestation.report import Attestation, Report
from shared.attestation.report_data import Identity

COMPRESSED_BYTES, POINT_BYTES = 33, 64


class Choice(msgspec.Struct, frozen=True):
    """`attestation`: of the machine that a model runs in."""

    attestation: Attestation
    signer: str
    bound_as: frozenset[Identity] = frozenset()
    """What the report data must hold for the signer that was asked for; empty: none was."""
    is_gateways: bool = False
    is_found: bool = True
    """The report names the signer."""


def choose(report: Report, signer: str, model: str) -> Choice | None:
    """A report may hold several replicas and, of a gateway, two kinds of machines."""
    if not report.attestations:
        return None
    of_model = [one for one in report.attestations if one.model == model]
    first = (*of_model, *report.attestations)[0]
    if not signer:
        return Choice(first, first.signer)
    if report.gateway and report.gateway.signer == signer:
        return Choice(first, signer, frozenset({"signer"}), is_gateways=True)
    for one in report.attestations:
        if bound_as := _bound_as(one, signer):
            return Choice(one, signer, bound_as)
    return Choice(first, first.signer, is_found=False)


def _bound_as(attestation: Attestation, signer: str) -> frozenset[Identity]:
    """A classic ACI report names a signer beside its keyset, and its quote holds one of the two."""
    found: set[Identity] = {"signer"} if signer == attestation.signer else set()
    if signer in _receipt_signers(attestation):
        found.add("keyset")
    return frozenset(found)


def _receipt_signers(attestation: Attestation) -> set[str]:
    """As which the receipt keys of an ACI gateway sign classic messages: address, or the key itself."""
    found = set()
    for _, key in attestation.receipt_keys.values():
        found.add(key)
        found.add(_address(bytes.fromhex(key)))
    return found - {""}


def _address(public_key: bytes) -> str:
    """Of a secp256k1 key, compressed or not; empty for any other."""
    try:
        if len(public_key) == COMPRESSED_BYTES:
            return PublicKey.from_compressed_bytes(public_key).to_address()[2:]
        return PublicKey(public_key[-POINT_BYTES:]).to_address()[2:]
    except (ValueError, ValidationError):
        return ""
