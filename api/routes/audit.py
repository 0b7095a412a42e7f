"""/v1/audit: who changed what, with the master key."""

from typing import Any

from fastapi import APIRouter, Response

from api.management import Management, answer, moment, route_for
from api.schemas.bodies import Limit, Skip, Wanted
from api.schemas.management import documented
from shared.postgres.audit import AuditEntry, AuditFilter


def router(management: Management, prefix: str) -> APIRouter:
    routes = APIRouter(
        prefix=f"{prefix}/audit",
        tags=["audit"],
        route_class=route_for(management, "master"),
        include_in_schema=prefix == "/v1",
    )

    @routes.get("", **documented("list_audit_log", "AuditEntryList"))
    async def list_audit_log(
        *,
        actor: Wanted = None,
        action: Wanted = None,
        object_type: Wanted = None,
        object_id: Wanted = None,
        skip: Skip = 0,
        limit: Limit = 100,
    ) -> Response:
        """Every change of a key, user, budget or price, the newest first."""
        wanted = AuditFilter(
            actor=actor, action=action, object_type=object_type, object_id=object_id
        )
        found = await management.audit.list_entries(wanted, skip=skip, limit=limit)
        return answer([document_of(entry) for entry in found])

    return routes


def document_of(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": str(entry.id),
        "at": moment(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "before": entry.before,
        "after": entry.after,
        "address": entry.address,
        "request_id": entry.request_id,
    }
