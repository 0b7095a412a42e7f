"""TDX quotes of version 4, byte for byte as Intel lays them out, under the synthetic PKI."""

import hashlib
from dataclasses import dataclass
from struct import pack

from workers.simulator.tee.ecdsa import public_raw, sign_raw
from workers.simulator.tee.pki import Pki

VENDOR_ID = bytes.fromhex("939A7233F79C4CA9940A0DB3957F0607")
HEADER = pack("<HHIHH", 4, 2, 0x81, 0, 0) + VENDOR_ID + bytes(20)
"""Version, ECDSA on P-256, TDX, and two security versions."""
TEE_TCB_SVN = bytes([5, 1]) + bytes(14)
"""The second byte selects the TDX module's identity TDX_01, the first is its version."""
TD_ATTRIBUTES = bytes.fromhex("0000001000000000")
TD_ATTRIBUTES_DEBUG = bytes.fromhex("0100001000000000")
XFAM = bytes([0xE7]) + bytes(7)
MR_SEAM = hashlib.sha384(b"synthetic TDX module").digest()
QE_AUTH_DATA = bytes(range(32))
QE_MR_SIGNER = b"\xdc" * 32
QE_PRODUCT, QE_VERSION = 2, 4
CERTIFICATION_QE_REPORT, CERTIFICATION_PCK_CHAIN = 6, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What a quote says of a machine."""

    mr_td: bytes
    mr_config_id: bytes
    rtmrs: tuple[bytes, ...]
    """Four, of 48 bytes each."""
    debug: bool = False


class Platform:
    """A processor: its quoting enclave and the chain that certifies it."""

    def __init__(self, pki: Pki, fmspc: str) -> None:
        self.fmspc = fmspc
        self._key = pki.attestation_key
        pck = pki.pck(fmspc)
        report = _qe_report(public_raw(self._key))
        chain = (pck.pem + pki.pck_ca.pem + pki.root.pem).encode()
        # The same for every quote: made once.
        self._certification = b"".join(
            [
                report,
                sign_raw(pck.key, report),
                pack("<H", len(QE_AUTH_DATA)) + QE_AUTH_DATA,
                pack("<HI", CERTIFICATION_PCK_CHAIN, len(chain)) + chain,
            ]
        )

    def quote(self, measured: Measurements, report_data: bytes) -> bytes:
        signed = HEADER + _body(measured, report_data)
        inner = self._certification
        signature = b"".join(
            [
                sign_raw(self._key, signed),
                public_raw(self._key),
                pack("<HI", CERTIFICATION_QE_REPORT, len(inner)) + inner,
            ]
        )
        return signed + pack("<I", len(signature)) + signature


def _body(measured: Measurements, report_data: bytes) -> bytes:
    return b"".join(
        [
            TEE_TCB_SVN,
            MR_SEAM,
            bytes(48),  # who signed the module: Intel says so by zeros
            bytes(8),
            TD_ATTRIBUTES_DEBUG if measured.debug else TD_ATTRIBUTES,
            XFAM,
            measured.mr_td,
            measured.mr_config_id,
            bytes(48 + 48),  # owner, and its configuration
            *measured.rtmrs,
            report_data,
        ]
    )


def _qe_report(attestation_key: bytes) -> bytes:
    bound = hashlib.sha256(attestation_key + QE_AUTH_DATA).digest()
    return b"".join(
        [
            bytes(16 + 4 + 28),
            bytes([0x11]) + bytes(15),
            hashlib.sha256(b"synthetic quoting enclave").digest(),
            bytes(32),
            QE_MR_SIGNER,
            bytes(96),
            pack("<HH", QE_PRODUCT, QE_VERSION),
            bytes(60),
            bound + bytes(32),
        ]
    )
