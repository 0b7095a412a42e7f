"""Makes receipts for tests: transcripts, what they are settled as, and many of them at once."""

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from shared.attestation.merkle import leaf_hash
from shared.ids import new_id
from shared.postgres.receipts import ReceiptStore, SettledReceipt
from shared.transcript import Transcript

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def transcript(**given: Any) -> Transcript:
    usual: dict[str, Any] = {
        "receipt_id": new_id(), "request_id": new_id(), "tenant": "default", "user": "u",
        "key_id": "k", "model": "m", "provider": "near", "provider_type": "near",
        "upstream_model": "org/m", "config_hash": "c", "endpoint": "chat", "tier": "TEE",
        "started_at": NOW, "ended_at": NOW + 1, "upstream_id": "chat-1",
    }  # fmt: skip
    return Transcript(**{**usual, **given})


def digest_of(content: str) -> str:
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def settled(receipt_id: str, *texts: str, **given: Any) -> SettledReceipt:
    document = given.pop("document", f'{{"receipt_id":"{receipt_id}"}}'.encode())
    usual: dict[str, Any] = {
        "receipt_id": receipt_id, "label": "verified", "document": document,
        "leaf_hash": leaf_hash(document),
        "evidence": {digest_of(one): one for one in texts},
    }  # fmt: skip
    return SettledReceipt(**{**usual, **given})


async def settle_many(store: ReceiptStore, count: int) -> Collection[str]:
    calls = [transcript() for _ in range(count)]
    await store.begin(calls)
    return await store.settle([settled(call.receipt_id) for call in calls])
