"""GPU evidence: which GPUs signed our nonce, and whether each is genuine and another one."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import ObjectIdentifier

from shared.attestation.certificates import (
    Chain,
    extension,
    key_bytes,
    leads_to,
    p384_key,
    read_chain,
)
from shared.attestation.encoding import from_base64, from_hex, from_json, member
from shared.attestation.factor import Factor, failed, passed, unknown
from shared.attestation.roots import Roots
from shared.attestation.spdm import Measurements, read_measurements

MAX_GPUS = 64
"""Eight sit in a machine; each costs some signatures to check."""
_DRIVER, _VBIOS, _FIRMWARE_ID = 3, 6, 20
"""Types of opaque fields."""
_FIRMWARE_ID_SIZE = 48
_TCB_INFO = ObjectIdentifier("2.23.133.5.4.1")
"""DICE TcbInfo: what the boot ROM measured of the firmware that holds the leaf's key."""
_OCTET_STRING_OF_48 = b"\x04\x30"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One item of the evidence list, as far as it can be read."""

    chain: Chain
    key: ec.EllipticCurvePublicKey
    measurements: Measurements


def check_gpus(payload: str, nonce: str, roots: Roots) -> tuple[list[Factor], int]:
    """gpu_present, gpu_nonce and gpu_genuine, and how many GPUs there are."""
    document = from_json(payload) if payload else None
    items = member(document, "evidence_list")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_GPUS:
        return _none(payload, items), 0
    gpus = [_read(item) for item in items]
    return [
        _present(gpus),
        _nonce(from_hex(member(document, "nonce"), 32), gpus, nonce),
        _genuine(gpus, roots),
    ], len(items)


def _none(payload: str, items: object) -> list[Factor]:
    if isinstance(items, list) and items:
        why = f"there are more than {MAX_GPUS} items"
    elif isinstance(items, list):
        why = "the evidence list is empty"
    else:
        why = "the evidence cannot be read" if payload else "the report has no GPU evidence"
    return [
        failed("gpu_present", "gpu_evidence", why),
        unknown("gpu_nonce", "gpu_evidence", why),
        unknown("gpu_genuine", "gpu_evidence", why),
    ]


def _read(item: object) -> Gpu | None:
    pem, evidence = from_base64(member(item, "certificate")), from_base64(member(item, "evidence"))
    chain = read_chain(pem) if pem else None
    key = p384_key(chain[0]) if chain else None
    measurements = read_measurements(evidence) if evidence else None
    if chain is None or key is None or measurements is None:
        return None
    return Gpu(chain, key, measurements)


def _present(gpus: list[Gpu | None]) -> Factor:
    keys = [key_bytes(gpu.key) for gpu in gpus if gpu is not None]
    if len(keys) < len(gpus):
        return failed("gpu_present", "gpu_evidence", _unreadable(gpus))
    if len(set(keys)) < len(keys):
        why = f"{len(keys)} items are of {len(set(keys))} GPUs"
        return failed("gpu_present", "gpu_evidence", why)
    return passed("gpu_present", "gpu_evidence", f"{len(keys)} different GPUs")


def _nonce(named: bytes | None, gpus: list[Gpu | None], nonce: str) -> Factor:
    ours = from_hex(nonce, 32)
    if ours is None:
        return unknown("gpu_nonce", "gpu_evidence", "no nonce of ours is known")
    if named != ours:
        return failed("gpu_nonce", "gpu_evidence", "the evidence names another nonce than ours")
    for index, gpu in enumerate(gpus):
        if gpu is None or gpu.measurements.nonce != ours:
            why = f"GPU {index} did not sign our nonce"
            return failed("gpu_nonce", "gpu_evidence", why)
    return passed("gpu_nonce", "gpu_evidence", "each GPU signed our nonce")


def _genuine(gpus: list[Gpu | None], roots: Roots) -> Factor:
    for index, gpu in enumerate(gpus):
        fault = _fault(gpu, roots) if gpu is not None else "its evidence cannot be read"
        if fault:
            return failed("gpu_genuine", "gpu_evidence", f"GPU {index}: {fault}")
    told = ", ".join(sorted({_versions(gpu.measurements) for gpu in gpus if gpu is not None}))
    return passed("gpu_genuine", "gpu_evidence", f"{len(gpus)} under the configured root; {told}")


def _fault(gpu: Gpu, roots: Roots) -> str:
    if not leads_to(roots.nvidia_sha256, gpu.chain):
        return "its certificates do not lead to the configured root"
    if not _is_signed(gpu):
        return "its signature is not by its certificate's key"
    if not _is_measured_firmware(gpu):
        return "its firmware is not the one its certificate is for"
    return ""


def _is_signed(gpu: Gpu) -> bool:
    raw = gpu.measurements.signature
    half = len(raw) // 2
    r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    signature = encode_dss_signature(r, s)
    try:
        gpu.key.verify(signature, gpu.measurements.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def _is_measured_firmware(gpu: Gpu) -> bool:
    """Evidence without a firmware id says nothing of it."""
    tcb_info = extension(gpu.chain[0], _TCB_INFO)
    return all(
        len(one) == _FIRMWARE_ID_SIZE and _OCTET_STRING_OF_48 + one in tcb_info
        for one in gpu.measurements.field(_FIRMWARE_ID)
    )


def _versions(measurements: Measurements) -> str:
    """As the GPU signed them."""
    driver = b"".join(measurements.field(_DRIVER)[:1]).split(b"\0")[0]
    vbios = b"".join(measurements.field(_VBIOS)[:1])
    told = "".join(chr(one) for one in driver[:32] if 0x20 < one < 0x7F) or "unknown"
    number = ".".join(f"{one:02X}" for one in vbios[3::-1] + vbios[4:5]) or "unknown"
    return f"driver {told}, VBIOS {number}"


def _unreadable(gpus: list[Gpu | None]) -> str:
    return f"the evidence of GPU {gpus.index(None)} cannot be read"
