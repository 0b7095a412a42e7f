"""The schema of a receipt has the members of the document that is signed, and no others."""

import json
from typing import Any

import jsonschema_rs
import pytest

from api.schemas.components import SCHEMAS
from shared.attestation.evidence import Evidence
from shared.attestation.factor import passed
from shared.attestation.policy import Policy
from shared.attestation.receipt import document_of
from shared.attestation.roots import PRODUCTION
from shared.attestation.signing import ReceiptKey
from shared.attestation.verdict import Verdict
from shared.ids import new_id
from shared.transcript import ZdrAnswer
from tests.transcripts import a_transcript


def signed(**changes: Any) -> dict[str, Any]:
    document = document_of(
        a_transcript(**changes), Verdict("verified", factors=(passed("quote_valid", "quote"),)),
        Evidence(nonce="ab" * 32, report="{}", reported_at=1.5, collateral={"A/platform": "{}"}),
        policy=Policy(), roots=PRODUCTION, session_id=new_id(), verified_at=2.5,
        gateway_version="0",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(ReceiptKey(b"\x05" * 32).sign_document(document))
    return found


def strict(schema: Any) -> Any:
    """Takes no member that is not listed."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(one) for name, one in schema.items()}
    return {"additionalProperties": False, **closed} if "required" in schema else closed


@pytest.mark.parametrize("changes", [{}, {"tier": "ZDR", "zdr": ZdrAnswer(attempts=1)}])
def test_a_signed_document_is_what_the_schema_says(changes: dict[str, Any]):
    schema = strict(SCHEMAS["Receipt"])
    assert set(signed(**changes)) | {"zdr"} == set(schema["properties"])
    jsonschema_rs.validate(schema, signed(**changes))


def test_a_pending_one_has_the_required_members_alone():
    required = SCHEMAS["Receipt"]["required"]
    document = signed()
    jsonschema_rs.validate(strict(SCHEMAS["Receipt"]), {one: document[one] for one in required})
