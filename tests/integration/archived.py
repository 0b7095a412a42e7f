"""What the archive holds, for its readers' tests: receipts with a whole document, attestation sessions."""

import uuid
from typing import Any

from shared.attestation.factor import passed
from shared.attestation.signing import ReceiptKey
from shared.clock import utc
from shared.ids import new_id
from shared.postgres.attestation_sessions import AttestationSession, SessionEvidence
from shared.postgres.receipts import SettledReceipt
from shared.transcript import Transcript
from tests.integration.receipts import NOW, digest_of, settled


def signed_receipt(call: Transcript, key: ReceiptKey, *texts: str, **given: Any) -> SettledReceipt:
    """With a document of what readers look at. `texts`: report, signature, NRAS, its keys, collateral."""
    names = [digest_of(one) for one in texts] + [""] * 4
    hashes = ("client_request", "forwarded_request", "upstream_response", "client_response")
    document = {
        "format": "ollm-receipt/1",
        "receipt_id": str(uuid.UUID(call.receipt_id)),
        "request_id": str(uuid.UUID(call.request_id)),
        "kind": call.receipt_kind,
        "provider": call.provider,
        "model": call.model,
        "upstream_model": call.upstream_model,
        "upstream_id": call.upstream_id,
        "endpoint": call.endpoint,
        "tier": call.tier,
        "stream": call.streamed,
        "started_at": call.started_at,
        "ended_at": call.ended_at,
        "label": given.get("label", "verified"),
        "hashes": {
            name: {"sha256": 64 * digit, "size": 1}
            for name, digit in zip(hashes, ("a", "b", "c", ""), strict=True)
        },
        "evidence": {
            "report": names[0], "signature": names[1], "nras": names[2], "nras_keys": names[3],
            "collateral": {f"{n}/platform": name for n, name in enumerate(names[4:]) if name},
        },
    }  # fmt: skip
    return settled(call.receipt_id, *texts, document=key.sign_document(document), **given)


def attestation_session(**given: Any) -> AttestationSession:
    usual: dict[str, Any] = {
        "session_id": uuid.UUID(new_id()), "provider": "near", "upstream_model": "org/m",
        "host": "h", "shape": "near-direct", "scope": "model", "signer": "ab", "algorithm": "ecdsa",
        "tls_spki": "", "compose_hash": "c", "os_image_hash": "", "tcb_status": "UpToDate",
        "label": "verified", "factors": (passed("quote_valid", "quote"),), "synthetic": False,
        "fetched_at": utc(NOW), "expires_at": utc(NOW + 300), "nonce": "0" * 64,
        "evidence": SessionEvidence(
            report=digest_of("report"), collateral={"90C06F000000/platform": digest_of("c")}
        ),
    }  # fmt: skip
    return AttestationSession(**{**usual, **given})
