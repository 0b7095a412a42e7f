"""What is told of receipts, of their log, and of attestation sessions."""

from typing import Any

from api.schemas.errors import answer, refusals
from api.schemas.management import COUNTER, MAYBE_MOMENT, MAYBE_STRING, MOMENT
from api.schemas.terms import BOOLEAN, NUMBER, OBJECT, STRING, Json

REASONS = ["", "evidence_invalid", "evidence_unavailable"]
LABELS = ["pending", "verified", "gateway_only", "failed", "n/a"]
USUAL = ("401", "403", "422", "503", "504")
_HEX: Json = {**STRING, "pattern": "^[0-9a-f]*$"}
_HEXES: Json = {"type": "array", "items": _HEX}
_ID: Json = {**STRING, "format": "uuid"}


def _object(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


_IDENTITY: Json = {
    "receipt_id": _ID,
    "request_id": _ID,
    "kind": {"enum": ["tee", "zdr", "refusal"]},
    "provider": STRING,
    "model": STRING,
    "upstream_model": STRING,
    "upstream_id": STRING,
    "endpoint": STRING,
    "tier": STRING,
    "stream": BOOLEAN,
    "started_at": NUMBER,
    "ended_at": NUMBER,
    "label": {"enum": LABELS},
}
_EVIDENCE: Json = {
    "type": "object",
    "description": "Texts as they were received from others, by `sha256:` and 64 hex digits.",
    "additionalProperties": STRING,
}
_ENTRY: Json = {
    **_IDENTITY,
    "started_at": MOMENT,
    "ended_at": MOMENT,
    "settled_at": MAYBE_MOMENT,
    "reason": {"enum": REASONS},
    "detail": STRING,
    "session_id": _or_null(_ID),
    "log_index": {"type": ["integer", "null"], "minimum": 0},
    "tenant": {**STRING, "description": "For the master key alone."},
    "user_id": {**STRING, "description": "For the master key alone."},
    "key_id": {**MAYBE_STRING, "description": "For the master key alone."},
}
_FACTOR = _object(
    {
        "name": STRING,
        "status": {"enum": ["pass", "fail", "skip", "unknown"]},
        "source": STRING,
        "detail": STRING,
    }
)
_DIGEST = _object({"sha256": _HEX, "size": COUNTER})
_TEXTS: Json = {
    "report": STRING,
    "collateral": {"type": "object", "additionalProperties": STRING},
    "nras": STRING,
    "nras_keys": STRING,
}
_STRINGS: Json = {"type": "array", "items": STRING}
_POLICY = _object(
    {
        "allowed_tcb": _STRINGS,
        "demoted": _STRINGS,
        "report_seconds": NUMBER,
        "compose_hashes": _STRINGS,
        "os_images": _STRINGS,
        "has_gpu": BOOLEAN,
        "tls_key_required": BOOLEAN,
        "shapes": _STRINGS,
        "attestation": {"enum": ["record", "require"]},
    }
)
_ZDR = _object(
    {
        "note": {"const": "contract, not proof"},
        "zero_data_retention": BOOLEAN,
        "disallow_prompt_training": BOOLEAN,
        "generation_id": STRING,
        "final_provider": STRING,
        "attempts": COUNTER,
        "planning": STRING,
        "cost": STRING,
    }
)
_WIRES = ("client_request", "forwarded_request", "upstream_response", "client_response")
_SETTLED: Json = {
    "format": {"const": "ollm-receipt/1"},
    "provider_type": STRING,
    "reported_at": NUMBER,
    "verified_at": NUMBER,
    "reason": {"enum": REASONS},
    "detail": STRING,
    "factors": {"type": "array", "items": _FACTOR},
    "policy": _POLICY,
    "complete": BOOLEAN,
    "cause": STRING,
    "hashes": _object(dict.fromkeys(_WIRES, _DIGEST)),
    "reserialised_response": _HEX,
    "nonce": _HEX,
    "evidence": _object({**_TEXTS, "signature": STRING}),
    "session_id": {**STRING, "description": "A UUID, or empty."},
    "let_out_under": {"type": "array", "items": _ID},
    "tls": _object({"host": STRING, "spki": _HEX}),
    "zdr": {**_ZDR, "description": "Of a policy record alone."},
    "roots": _object({"name": STRING, "sha256": _HEX, "synthetic": BOOLEAN}),
    "software": _object({"gateway": STRING, "dcap_qvl": STRING}),
    "gateway_signature": _object(
        {"alg": {"const": "ed25519"}, "key_id": _HEX, "public_key": _HEX, "value": _HEX}
    ),
}
_HEAD = _object(
    {
        "tree_size": COUNTER,
        "root_hash": _HEX,
        "timestamp": {**COUNTER, "description": "Epoch milliseconds."},
        "key_id": _HEX,
        "signature": _HEX,
    }
)
_KEY = _object(
    {
        "key_id": _HEX,
        "algorithm": {"const": "ed25519"},
        "public_key": _HEX,
        "first_used_at": MAYBE_MOMENT,
    }
)
_CLAIMS = (
    "provider", "upstream_model", "host", "shape", "scope", "signer", "algorithm", "tls_spki",
    "compose_hash", "os_image_hash", "tcb_status",
)  # fmt: skip
_SESSION = _object(
    {
        "session_id": _ID,
        **dict.fromkeys(_CLAIMS, STRING),
        "label": {"enum": ["verified", "failed"]},
        "factors": {"type": "array", "items": _FACTOR},
        "synthetic": {**BOOLEAN, "description": "Under roots for tests: it proves nothing."},
        "fetched_at": MOMENT,
        "expires_at": MOMENT,
        "nonce": STRING,
        "evidence": _object(_TEXTS),
    }
)

RECEIPTS: dict[str, Json] = {
    "ReceiptEntry": _object(_ENTRY, "tenant", "user_id", "key_id"),
    "ReceiptList": _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": _ref("ReceiptEntry")},
            "next_cursor": {**MAYBE_STRING, "description": "Null: there is nothing below."},
        }
    ),
    "Receipt": {
        **_object({**_IDENTITY, **_SETTLED}, *_SETTLED),
        "description": "The signed document as docs/receipts.md has it; of a pending receipt the"
        " required members alone.",
    },
    "LogProof": _object(
        {
            "leaf_index": COUNTER,
            "leaf_hash": _HEX,
            "inclusion_proof": _HEXES,
            "head": _ref("TreeHead"),
            "public_key": _HEX,
        }
    ),
    "TreeHead": _HEAD,
    "ExportedReceipt": _object(
        {"receipt": _ref("Receipt"), "evidence": _EVIDENCE, "log": _or_null(_ref("LogProof"))}
    ),
    "InclusionProof": _object(
        {
            "receipt_id": _ID,
            "leaf_index": COUNTER,
            "leaf_hash": _HEX,
            "tree_size": COUNTER,
            "root_hash": _HEX,
            "inclusion_proof": _HEXES,
            "head": _or_null(_ref("TreeHead")),
        }
    ),
    "ConsistencyProof": _object(
        {
            "first": COUNTER,
            "second": COUNTER,
            "first_root": _HEX,
            "second_root": _HEX,
            "consistency_proof": _HEXES,
        }
    ),
    "LogHead": _object(
        {"head": _or_null(_ref("TreeHead")), "keys": {"type": "array", "items": _KEY}}
    ),
    "AciReceipt": _object(
        {
            "api_version": {"const": "aci/1"},
            **dict.fromkeys(("receipt_id", "chat_id", "model", "endpoint", "method"), STRING),
            "served_at": {"type": "integer"},
            "workload_keyset_digest": STRING,
            "event_log": {"type": "array", "items": OBJECT},
            "key_id": _HEX,
            "signature": _HEX,
        }
    ),
    "AttestationSession": _SESSION,
    "AttestationSessionList": _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": _ref("AttestationSession")},
        }
    ),
    "ExportedAttestationSession": _object(
        {"session": _ref("AttestationSession"), "evidence": _EVIDENCE}
    ),
}


def documented(name: str, schema: str, *more: str) -> dict[str, Any]:
    """Of a route: its operation id, its answer, and its refusals beside the usual ones."""
    return {
        "operation_id": name,
        "responses": {200: answer("Done.", schema), **refusals(*USUAL, *more)},
        "openapi_extra": {"security": [{"key": []}]},
    }
