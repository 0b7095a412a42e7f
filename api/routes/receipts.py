"""/v1/receipts: receipts with their evidence, and the same as ACI has them. A key's tenant's own."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from api.aci_receipt import aci_receipt
from api.attested import Attested, Reader, answering
from api.management import answer
from api.receipt_entry import entry_of
from api.schemas.bodies import AtTime, InPath, Limit, Wanted
from api.schemas.receipts import documented
from api.usage_query import wrong
from shared.attestation.export import Kind
from shared.caller import Caller
from shared.postgres.receipts import Cursor, ReceiptFilter

Status = Annotated[
    Literal["pending", "verified", "gateway_only", "failed", "n/a"] | None,
    Query(description="The label."),
]
OfKind = Annotated[
    Kind | None, Query(description="A proof, a policy record, or a call that was not made.")
]
RequestId = Annotated[uuid.UUID | None, Query(description="An answer's `x-request-id`.")]
TreeSize = Annotated[int | None, Query(ge=1, le=2**53, description="Of the newest head, else.")]
CursorText = Annotated[str | None, Query(description="An earlier page's `next_cursor`.")]


def tenant_of(caller: Caller) -> str | None:
    """Whose receipts are shown; None: everybody's."""
    return None if caller.is_master else caller.tenant


def router(attested: Attested, prefix: str) -> APIRouter:
    """`prefix` is `/v1` or its other name."""
    routes = APIRouter(prefix=prefix, tags=["receipts"], include_in_schema=prefix == "/v1")
    archive, reader = attested.archive, Depends(Reader(attested.authenticator))

    @routes.get("/receipts", **documented("list_receipts", "ReceiptList"))
    async def list_receipts(
        *,
        caller: Caller = reader,
        status: Status = None,
        kind: OfKind = None,
        model: Wanted = None,
        provider: Wanted = None,
        request_id: RequestId = None,
        since: Annotated[AtTime, Query(alias="from")] = None,
        until: Annotated[AtTime, Query(alias="to", description="Exclusive.")] = None,
        limit: Limit = 100,
        cursor: CursorText = None,
    ) -> Response:
        """Receipts of calls that began in a time, the newest first."""
        after = cursor_of(cursor)
        wanted = ReceiptFilter(
            tenant=tenant_of(caller),
            label=status,
            kind=kind,
            model=model,
            provider=provider,
            request_id=request_id,
            since=since,
            until=until,
        )
        async with answering():
            page = await attested.receipts.page(wanted, limit=limit, after=after)
        return answer(
            {
                "object": "list",
                "data": [entry_of(row, with_owner=caller.is_master) for row in page.rows],
                "next_cursor": None if page.next is None else str(page.next),
            }
        )

    @routes.get("/receipts/{receipt_id}", **documented("get_receipt", "ExportedReceipt", "404"))
    async def get_receipt(
        receipt_id: InPath, evidence: bool = True, caller: Caller = reader
    ) -> Response:
        """A receipt by its id or its request's (the newest one of that), with all its evidence."""
        async with answering():
            return answer(
                await archive.export(receipt_id, tenant_of(caller), with_evidence=evidence)
            )

    @routes.get(
        "/receipts/{receipt_id}/proof",
        **documented("get_receipt_proof", "InclusionProof", "400", "404"),
    )
    async def get_proof(
        receipt_id: InPath, tree_size: TreeSize = None, caller: Caller = reader
    ) -> Response:
        """That a receipt is in the transparency log."""
        async with answering():
            return answer(await archive.inclusion(receipt_id, tenant_of(caller), tree_size))

    @routes.get("/aci/receipts/{receipt_id}", **documented("get_aci_receipt", "AciReceipt", "404"))
    async def get_aci_receipt(receipt_id: InPath, caller: Caller = reader) -> Response:
        """A settled receipt as ACI has it, by its id, its request's or its answer's."""
        async with answering():
            found = await archive.document(receipt_id.removeprefix("chatcmpl-"), tenant_of(caller))
        return answer(aci_receipt(found, attested.key))

    return routes


def cursor_of(text: str | None) -> Cursor | None:
    """Raises RequestValidationError."""
    try:
        return None if text is None else Cursor.read(text)
    except ValueError as error:
        raise wrong("cursor", "not a cursor of an earlier page") from error
