"""What management programs do with Otari's client. Each function is a case; one that returns passed."""

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from otari import OtariClient
from otari import _client as core
from otari.errors import AuthenticationError, OtariError

BASE_URL = os.environ["GATEWAY_BASE_URL"]
CLIENT = OtariClient(
    api_base=BASE_URL,
    api_key=os.environ["GATEWAY_API_KEY"],
    admin_key=os.environ["GATEWAY_MASTER_KEY"],
)
MANAGE = CLIENT.control_plane


def _name() -> str:
    return f"otari-{uuid.uuid4().hex}"


def _refused(call: Callable[[], Any], text: str) -> OtariError:
    refusal = None
    try:
        call()
    except OtariError as error:
        refusal = error
    assert refusal is not None, f"was not refused with {text!r}"
    assert text in str(refusal)
    return refusal


def a_key_is_made_read_changed_listed_and_deleted() -> None:
    expires = datetime(2099, 1, 1, tzinfo=UTC)
    made = MANAGE.keys.create(
        core.CreateKeyRequest(key_name="ci", expires_at=expires, metadata={"team": "blue"})
    )
    assert made.key.startswith("sk-ollm-")
    assert made.user_id == f"apikey-{made.id}"
    read = MANAGE.keys.get(made.id)
    assert (read.key_name, read.metadata, read.is_active) == ("ci", {"team": "blue"}, True)
    assert read.expires_at == "2099-01-01T00:00:00+00:00"
    changed = MANAGE.keys.update(made.id, core.UpdateKeyRequest(is_active=False))
    assert (changed.is_active, changed.key_name) == (False, "ci")
    assert made.id in [key.id for key in MANAGE.keys.list(limit=1000)]
    MANAGE.keys.delete(made.id)
    _refused(lambda: MANAGE.keys.get(made.id), f"API key with id '{made.id}' not found")


def a_key_that_was_made_works() -> None:
    made = MANAGE.keys.create(core.CreateKeyRequest(key_name="works"))
    client = OtariClient(api_base=BASE_URL, api_key=made.key)
    answer = client.completion(model="sim_echo", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "hello"


def a_user_is_made_changed_deleted_and_revived() -> None:
    user = _name()
    made = MANAGE.users.create(core.CreateUserRequest(user_id=user, alias="One"))
    assert (made.user_id, made.alias, made.spend, made.blocked) == (user, "One", 0, False)
    _refused(
        lambda: MANAGE.users.create(core.CreateUserRequest(user_id=user)),
        f"User with id '{user}' already exists",
    )
    changed = MANAGE.users.update(user, core.UpdateUserRequest(blocked=True))
    assert (changed.blocked, changed.alias) == (True, "One")
    assert user in [one.user_id for one in MANAGE.users.list(limit=1000)]
    MANAGE.users.delete(user)
    _refused(lambda: MANAGE.users.get(user), f"User with id '{user}' not found")
    _refused(
        lambda: MANAGE.keys.create(core.CreateKeyRequest(user_id=user)),
        f"User '{user}' has been deleted. Recreate via POST /v1/users first.",
    )
    revived = MANAGE.users.create(core.CreateUserRequest(user_id=user))
    assert (revived.alias, revived.created_at) == (None, made.created_at)


def a_budget_is_given_to_a_user_and_taken_away_with_itself() -> None:
    budget = MANAGE.budgets.create(
        core.CreateBudgetRequest(max_budget=10.5, budget_duration_sec=86400)
    )
    assert (budget.max_budget, budget.budget_duration_sec) == (10.5, 86400)
    changed = MANAGE.budgets.update(budget.budget_id, core.UpdateBudgetRequest(max_budget=0.1))
    assert (changed.max_budget, changed.budget_duration_sec) == (0.1, 86400)
    assert budget.budget_id in [one.budget_id for one in MANAGE.budgets.list(limit=1000)]
    user = _name()
    made = MANAGE.users.create(core.CreateUserRequest(user_id=user, budget_id=budget.budget_id))
    assert made.next_budget_reset_at is not None
    MANAGE.budgets.delete(budget.budget_id)
    assert MANAGE.users.get(user).budget_id is None
    text = f"Budget with id '{budget.budget_id}' not found"
    _refused(lambda: MANAGE.budgets.get(budget.budget_id), text)


def a_price_is_set_read_at_a_time_and_deleted() -> None:
    key = f"openai:{_name()}/with:signs"
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = MANAGE.pricing.set(
        core.SetPricingRequest(
            model_key=key.replace(":", "/", 1),
            input_price_per_million=0.15,
            output_price_per_million=0.6,
            effective_at=at,
        )
    )
    assert made.model_key == key
    assert (made.input_price_per_million, made.output_price_per_million) == (0.15, 0.6)
    assert made.effective_at == "2026-01-01T00:00:00+00:00"
    assert MANAGE.pricing.get(key) == made
    assert MANAGE.pricing.get_history(key) == [made]
    assert key in [one.model_key for one in MANAGE.pricing.list(limit=1000)]
    MANAGE.pricing.delete(key)
    _refused(lambda: MANAGE.pricing.get(key), f"Pricing for model '{key}' not found")


def an_ordinary_key_is_no_master_key() -> None:
    client = OtariClient(
        api_base=BASE_URL,
        api_key=os.environ["GATEWAY_API_KEY"],
        admin_key=os.environ["GATEWAY_API_KEY"],
    )
    refusal = _refused(client.control_plane.keys.list, "Invalid master key")
    assert isinstance(refusal, AuthenticationError)
    assert refusal.status_code == 401
