"""/v1/keys: made, listed, changed, rotated and deleted, with the master key."""

import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from api.counted_spend import CountedSpend, Money
from api.management import (
    Management,
    actor_of,
    answer,
    limits_of,
    moment,
    nothing,
    number,
    resets_of,
    route_for,
)
from api.schemas.bodies import (
    InPath,
    KeyChangeBody,
    Limit,
    NewKeyBody,
    RotationBody,
    Skip,
    Wanted,
)
from api.schemas.management import documented
from shared.api_key import PREFIX, ApiKey
from shared.document import Compat
from shared.postgres.keys import KeyChange, KeyInfo, KeyOptions


def router(management: Management, prefix: str) -> APIRouter:
    routes = APIRouter(
        prefix=f"{prefix}/keys",
        tags=["keys"],
        route_class=route_for(management, "master"),
        include_in_schema=prefix == "/v1",
    )
    keys, catalog = management.keys, management.catalog
    shown = partial(documents_of, management.spend)

    @routes.post("", **documented("create_key", "NewKey", "404"))
    async def create_key(request: Request, body: NewKeyBody) -> Response:
        """Make a key. Its secret is shown this once."""
        options = options_of(body, catalog.current.document.compat)
        key, info = await keys.create(options, actor=actor_of(request))
        return answer(_with_secret(key, info))

    @routes.get("", **documented("list_keys", "KeyList"))
    async def list_keys(tenant: Wanted = None, skip: Skip = 0, limit: Limit = 100) -> Response:
        """All keys, in the order they were made."""
        found = await keys.list_keys(tenant=tenant, skip=skip, limit=limit)
        return answer(await shown(*found))

    @routes.get("/{key_id}", **documented("get_key", "Key", "404"))
    async def get_key(key_id: InPath) -> Response:
        """One key, by its id or its public id."""
        [document] = await shown(await keys.get(key_id))
        return answer(document)

    @routes.patch("/{key_id}", **documented("update_key", "Key", "404"))
    async def update_key(request: Request, key_id: InPath, body: KeyChangeBody) -> Response:
        """Change a key, in every process within a second."""
        # First the change: a key can be stopped while nothing can be said of its spend.
        changed = await keys.update(key_id, change_of(body), actor_of(request))
        [document] = await shown(changed)
        return answer(document)

    @routes.delete("/{key_id}", **documented("delete_key", None, "404"))
    async def delete_key(request: Request, key_id: InPath) -> Response:
        """Delete a key. Its user and its usage stay."""
        await keys.delete(key_id, actor_of(request))
        return nothing()

    @routes.post("/{key_id}/rotate", **documented("rotate_key", "NewKey", "404"))
    async def rotate_key(
        request: Request, key_id: InPath, body: RotationBody | None = None
    ) -> Response:
        """Give a key a new secret; the old one works for `overlap_seconds` more."""
        overlap = timedelta(seconds=body.overlap_seconds if body else 0)
        key, info = await keys.rotate(key_id, actor_of(request), overlap=overlap)
        return answer(_with_secret(key, info))

    @routes.get("/{key_id}/budget-resets", **documented("key_resets", "BudgetResetList", "404"))
    async def list_resets(key_id: InPath, skip: Skip = 0, limit: Limit = 100) -> Response:
        """The windows of a key's own budgets that have ended, the newest first."""
        key = await keys.get(key_id)
        return answer(
            resets_of(await management.windows.history_of_key(key, skip=skip, limit=limit))
        )

    return routes


def options_of(body: NewKeyBody, compat: Compat) -> KeyOptions:
    models = body.allowed_models
    return KeyOptions(
        name=body.key_name,
        user_id=body.user_id,
        tenant=body.tenant,
        scopes=frozenset(body.scopes),
        best_lane=body.best_lane,
        allowed_models=None if models is None else frozenset(models),
        user_field=body.user_field or compat.user_field,
        expires_at=body.expires_at,
        metadata=body.metadata,
        limits=limits_of(body.limits),
        ip_allow_list=body.ip_allow_list,
        budget_id=body.budget_id,
        attestation=body.attestation,
    )


def change_of(body: KeyChangeBody) -> KeyChange:
    return KeyChange(
        name=body.key_name,
        is_active=body.is_active,
        expires_at=body.expires_at,
        metadata=body.metadata,
        scopes=None if body.scopes is None else frozenset(body.scopes),
        best_lane=body.best_lane,
        allowed_models=None if body.allowed_models is None else frozenset(body.allowed_models),
        user_field=body.user_field,
        limits=None if body.limits is None else limits_of(body.limits),
        ip_allow_list=body.ip_allow_list,
        budget_id=body.budget_id,
        attestation=body.attestation,
    )


async def documents_of(spend: CountedSpend, *keys: KeyInfo) -> list[dict[str, Any]]:
    """Raises what the reader of spend raises."""
    found = await spend.of_keys(keys)
    return [_document(info, money) for info, money in zip(keys, found, strict=True)]


def _document(info: KeyInfo, money: Money) -> dict[str, Any]:
    return {
        **_common(info),
        "last_used_at": moment(info.last_used_at),
        "spend": number(money.spent),
        "reserved": number(money.held),
    }


def _with_secret(key: ApiKey, info: KeyInfo) -> dict[str, Any]:
    return {"id": str(info.id), "key": key.text, **_common(info)}


def _common(info: KeyInfo) -> dict[str, Any]:
    """Otari's members, those its later clients insist on, then our own."""
    return {
        "id": str(info.id),
        "key_name": info.name,
        "user_id": info.user_id,
        "created_at": moment(info.created_at),
        "expires_at": moment(info.expires_at),
        "is_active": info.is_active,
        "metadata": info.metadata,
        "key_prefix": f"{PREFIX}{info.public_id}",
        "exclude_from_budget": False,
        "workspace_id": str(uuid.uuid5(uuid.NAMESPACE_OID, info.tenant)),
        "tenant": info.tenant,
        "public_id": info.public_id,
        "scopes": info.scopes,
        "best_lane": info.best_lane,
        "allowed_models": info.allowed_models,
        "user_field": info.user_field,
        "limits": msgspec.structs.asdict(info.limits),
        "ip_allow_list": info.ip_allow_list,
        "attestation": info.attestation,
        "previous_valid_until": moment(info.previous_valid_until),
        "budget_id": None if info.budget_id is None else str(info.budget_id),
        "budget_started_at": moment(info.budget_started_at),
        "next_budget_reset_at": moment(info.next_budget_reset_at),
    }
