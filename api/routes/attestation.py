"""/v1/attestation/sessions: what was proven of the machines behind the models, for every key."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from api.attested import Attested, Reader, answering
from api.management import answer, moment
from api.schemas.bodies import InPath, Limit, Skip, Wanted
from api.schemas.receipts import documented
from shared.document import Document
from shared.errors import NotFound
from shared.postgres.attestation_sessions import AttestationSession, SessionFilter

Model = Annotated[Wanted, Query(description="A model of the catalog, or a provider's own name.")]
Status = Annotated[Literal["verified", "failed"] | None, Query(description="The label.")]


def router(attested: Attested, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""
    routes = APIRouter(
        prefix=f"{prefix}/attestation/sessions",
        tags=["receipts"],
        include_in_schema=prefix == "/v1",
        dependencies=[Depends(Reader(attested.authenticator))],
    )
    sessions = attested.sessions

    @routes.get("", **documented("list_attestation_sessions", "AttestationSessionList"))
    async def list_sessions(
        *,
        model: Model = None,
        provider: Wanted = None,
        status: Status = None,
        skip: Skip = 0,
        limit: Limit = 100,
    ) -> Response:
        """Attestation sessions, the newest first."""
        names = None if model is None else upstream_names(attested.catalog.current.document, model)
        wanted = SessionFilter(upstream_models=names, provider=provider, label=status)
        async with answering():
            found = await sessions.page(wanted, skip=skip, limit=limit)
        return answer({"object": "list", "data": [document_of(one) for one in found]})

    @routes.get(
        "/{session_id}",
        **documented("get_attestation_session", "ExportedAttestationSession", "404"),
    )
    async def get_session(session_id: InPath, evidence: bool = True) -> Response:
        """One attestation session, with the texts it rests on."""
        async with answering():
            found = await sessions.get(session_id)
            if found is None:
                text = f"Attestation session '{session_id}' not found"
                raise NotFound(text, code="session_not_found")
            texts = await sessions.evidence(found) if evidence else {}
        return answer({"session": document_of(found), "evidence": texts})

    return routes


def upstream_names(catalog: Document, model: str) -> Collection[str]:
    """What the providers call a model of the catalog; else the name is theirs."""
    listed = catalog.models.get(model)
    return [model] if listed is None else [route.upstream_model for route in listed.providers]


def document_of(session: AttestationSession) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(session),
        "session_id": str(session.session_id),
        "fetched_at": moment(session.fetched_at),
        "expires_at": moment(session.expires_at),
    }
