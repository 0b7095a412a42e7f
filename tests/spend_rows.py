"""Spend rows for tests: whole, with every field filled, each different."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from shared.ids import new_id
from shared.price import Price
from shared.spend import SpendRow
from shared.usage import Usage

ADMITTED = datetime(2026, 3, 4, 5, 6, 7, 891_234, tzinfo=UTC)


def id_at(moment: datetime) -> str:
    """An id of a request that came at that time, another at each call."""
    return f"{int(moment.timestamp() * 1000):012x}{new_id()[12:]}"


def spend_row(number: int = 0, **changes: Any) -> SpendRow:
    """Row `number`: its cost is that many nano-dollars."""
    row = SpendRow(
        row_id=new_id(),
        request_id=new_id(),
        tenant="default",
        user=f"user-{number % 7}",
        key_id="key_1",
        episode_id=new_id(),
        client_request_id=f"ours-{number}",
        endpoint="chat.completions",
        model="sim_echo",
        provider="sim",
        variant="b",
        upstream_model="echo",
        tier="TEE",
        lane="priority",
        config_hash="c0ffee",
        attempt=2,
        streamed=True,
        status="completed",
        error_code="upstream_error",
        finish_reason="stop",
        billed=False,
        usage=Usage(11, 22, 3, 4, 5, 6, 7, 8, "1024x1024/hd", Decimal("9.125"), 10, 11, 12),
        usage_source="provider",
        price=Price(
            Decimal("0.15"),
            Decimal("0.6"),
            Decimal("0.075"),
            second=Decimal("0.0001"),
            image={"1024x1024": Decimal("0.04")},
        ),
        cost_usd=Decimal(number).scaleb(-9),
        tags={"team": "blue", "süß": "ja"},
        created_at=ADMITTED + timedelta(microseconds=number),
        started_at=ADMITTED + timedelta(milliseconds=3),
        ended_at=ADMITTED + timedelta(seconds=1),
        ttft_ms=12.5,
        queue_ms=1.25,
        upstream_ms=900.75,
        overhead_ms=2.5,
        cached=True,
        service_tier="flex",
    )
    return msgspec.structs.replace(row, **changes)
