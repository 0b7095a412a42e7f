"""What Intel would say of the synthetic platforms: their state, their enclave, who is revoked."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from workers.simulator.tee.certificate import PCE_SVN, Identity, revocations
from workers.simulator.tee.ecdsa import sign_raw
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.quote import QE_MR_SIGNER, QE_PRODUCT, QE_VERSION

LIFETIME = timedelta(days=30)
ISSUED_BEFORE = timedelta(hours=1)
EXPIRED_SINCE = timedelta(days=31)
TCB_DATE = "2024-03-13T00:00:00Z"
EVALUATION_NUMBER = 17
MODULE = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
ADVISORIES = ("INTEL-SA-00615", "INTEL-SA-00837")
"""Of every state but UpToDate."""

_encode = msgspec.json.Encoder().encode


class Collateral(msgspec.Struct, frozen=True, kw_only=True):
    """Intel's nine members; in JSON as `dcap_qvl.QuoteCollateralV3` reads and writes them."""

    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str

    def to_json(self) -> str:
        return _encode(self).decode()


@dataclass(frozen=True, slots=True)
class State:
    """Of a kind of platform."""

    tcb: str = "UpToDate"
    expired: bool = False


def collateral(pki: Pki, fmspc: str, state: State, *, now: float) -> Collateral:
    """Issued an hour before `now`. The signatures cover the two documents to the byte."""
    signing_chain = pki.tcb_signing.pem + pki.root.pem
    tcb, enclave = _tcb_info(fmspc, state, now), _qe_identity(now)
    return Collateral(
        pck_crl_issuer_chain=pki.pck_ca.pem + pki.root.pem,
        root_ca_crl=_crl(pki.root, now),
        pck_crl=_crl(pki.pck_ca, now),
        tcb_info_issuer_chain=signing_chain,
        tcb_info=tcb.decode(),
        tcb_info_signature=sign_raw(pki.tcb_signing.key, tcb).hex(),
        qe_identity_issuer_chain=signing_chain,
        qe_identity=enclave.decode(),
        qe_identity_signature=sign_raw(pki.tcb_signing.key, enclave).hex(),
    )


def _crl(by: Identity, now: float) -> str:
    return revocations(by, now=now, lifetime=LIFETIME).hex()


def _tcb_info(fmspc: str, state: State, now: float) -> bytes:
    level = {"tcb": {"isvsvn": 2}, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate"}
    components = [{"svn": 0}] * 16
    issued = now - EXPIRED_SINCE.total_seconds() if state.expired else now
    return _encode(
        {
            "id": "TDX",
            "version": 3,
            **_dates(issued),
            "fmspc": fmspc,
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": EVALUATION_NUMBER,
            "tdxModule": MODULE,
            "tdxModuleIdentities": [{"id": "TDX_01", **MODULE, "tcbLevels": [level]}],
            "tcbLevels": [
                {
                    "tcb": {
                        "sgxtcbcomponents": components,
                        "pcesvn": PCE_SVN,
                        "tdxtcbcomponents": components,
                    },
                    "tcbDate": TCB_DATE,
                    "tcbStatus": state.tcb,
                    "advisoryIDs": [] if state.tcb == "UpToDate" else ADVISORIES,
                }
            ],
        }
    )


def _qe_identity(now: float) -> bytes:
    level = {"tcb": {"isvsvn": QE_VERSION}, "tcbDate": TCB_DATE, "tcbStatus": "UpToDate"}
    return _encode(
        {
            "id": "TD_QE",
            "version": 2,
            **_dates(now),
            "tcbEvaluationDataNumber": EVALUATION_NUMBER,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
            "mrsigner": QE_MR_SIGNER.hex().upper(),
            "isvprodid": QE_PRODUCT,
            "tcbLevels": [level],
        }
    )


def _dates(now: float) -> dict[str, str]:
    at = datetime.fromtimestamp(now, UTC) - ISSUED_BEFORE
    issue, update = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (at, at + LIFETIME))
    return {"issueDate": issue, "nextUpdate": update}
