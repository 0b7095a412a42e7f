"""The table of keys: everything an operator asks, and no secret."""

import uuid
from datetime import UTC, datetime
from typing import Any

from api.cli.keys import key_table
from shared.account import RateLimits
from shared.postgres.keys import KeyInfo


def a_key(**changes: Any) -> KeyInfo:
    values: dict[str, Any] = {
        "id": uuid.UUID(int=1),
        "public_id": "abcdefabcdef",
        "name": None,
        "tenant": "default",
        "user_id": "apikey-1",
        "scopes": [],
        "best_lane": "priority",
        "allowed_models": None,
        "user_field": "attribute",
        "expires_at": None,
        "is_active": True,
        "last_used_at": None,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "metadata": {},
        "limits": RateLimits(),
        "ip_allow_list": [],
        "previous_valid_until": None,
        "budget_id": None,
        "budget_started_at": None,
        "next_budget_reset_at": None,
        "spend_since": None,
        "attestation": None,
    }
    return KeyInfo(**{**values, **changes})


def test_each_key_is_a_line_under_the_head() -> None:
    used = datetime(2026, 11, 21, 8, tzinfo=UTC)
    lines = key_table(
        [
            a_key(),
            a_key(
                name="the shop", is_active=False, allowed_models=["m", "n"], scopes=["dryrun"],
                last_used_at=used, expires_at=used,
            ),
        ]
    )  # fmt: skip
    assert [line.split() for line in lines] == [
        ["key", "state", "tenant", "user", "lane", "models", "scopes", "expires", "used", "name"],
        ["abcdefabcdef", "active", "default", "apikey-1", "priority", "all", "-", "-", "-", "-"],
        [
            *("abcdefabcdef", "revoked", "default", "apikey-1", "priority", "m,n", "dryrun"),
            *("2026-11-21", "2026-11-21", "the", "shop"),
        ],
    ]


def test_no_keys_are_a_head_alone() -> None:
    assert len(key_table([])) == 1
