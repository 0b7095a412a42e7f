"""What is told of a receipt without its document: as an entry of a list, and while it is pending."""

from typing import Any

from api.management import moment
from shared.postgres.receipts import ReceiptRow


def identity_of(row: ReceiptRow) -> dict[str, Any]:
    """What is known before it is settled: members of the document to come, as they will be there."""
    return {
        "receipt_id": str(row.receipt_id),
        "request_id": str(row.request_id),
        "kind": row.kind,
        "provider": row.provider,
        "model": row.model,
        "upstream_model": row.upstream_model,
        "upstream_id": row.upstream_id,
        "endpoint": row.endpoint,
        "tier": row.tier,
        "stream": row.streamed,
        "started_at": row.started_at.timestamp(),
        "ended_at": row.ended_at.timestamp(),
        "label": row.label,
    }


def entry_of(row: ReceiptRow, *, with_owner: bool) -> dict[str, Any]:
    """Whose call it was is for the master key to know: a tenant's keys need not know each other."""
    entry = {
        **identity_of(row),
        "reason": row.reason,
        "detail": row.detail,
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
        "settled_at": moment(row.settled_at),
        "session_id": None if row.session_id is None else str(row.session_id),
        "log_index": row.log_index,
    }
    if with_owner:
        entry |= {"tenant": row.tenant, "user_id": row.user_id, "key_id": row.key_id}
    return entry
