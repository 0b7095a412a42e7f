"""`gateway receipts list` and `get`: the archive of receipts, from beside the database."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import checked, fail, in_store, show, table
from api.cli.usage_list import Range
from api.receipt_archive import Archive
from api.receipt_entry import entry_of
from shared.attestation.export import Kind
from shared.postgres.budgets import parse_uuid
from shared.postgres.engine import Engine
from shared.postgres.receipts import Cursor, ReceiptFilter, ReceiptRow, ReceiptStore
from shared.postgres.transparency_log import LogReader

PAGE = 1000
HEAD = ("receipt", "request", "began", "kind", "label", "model", "provider", "why")

Filter = Annotated[str | None, typer.Option(help="Of this one alone.")]


def list_receipts(
    *,
    status: Annotated[
        Literal["pending", "verified", "gateway_only", "failed", "n/a"] | None,
        typer.Option(help="Of this label alone."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind alone.")] = None,
    model: Filter = None,
    provider: Filter = None,
    tenant: Filter = None,
    request: Annotated[str | None, typer.Option(help="Of a request: its id.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="An ISO 8601 time; UTC without a zone.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The same; exclusive.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List receipts, newest first: by when their calls began."""
    moments = checked(Range, **{"from": start, "to": end})
    request_id = None if request is None else parse_uuid(request)
    if request is not None and request_id is None:
        fail("request: not an id")
    wanted = ReceiptFilter(
        tenant=tenant, label=status, kind=kind, model=model, provider=provider, request_id=request_id,
        since=moments.start, until=moments.end,
    )  # fmt: skip

    async def ask(engine: Engine) -> list[ReceiptRow]:
        return await _rows(ReceiptStore(engine), wanted, limit)

    found = in_store(data_dir, ask)
    if as_json:
        show([entry_of(row, with_owner=True) for row in found])
        return
    for line in table(HEAD, [_line(row) for row in found]):
        typer.echo(line)


def get(
    receipt: Annotated[str, typer.Argument(help="A receipt's id, or its request's.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; else it is printed.")
    ] = None,
    evidence: Annotated[bool, typer.Option(help="With the texts that it rests on.")] = True,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Export a receipt as `GET /v1/receipts/{id}` does: one file that proves itself."""

    async def ask(engine: Engine) -> bytes:
        archive = Archive(ReceiptStore(engine), LogReader(engine))
        return msgspec.json.encode(await archive.export(receipt, with_evidence=evidence))

    exported = in_store(data_dir, ask)
    if output is None:
        typer.echo(exported)
        return
    try:
        output.write_bytes(exported)
    except OSError as error:
        fail(f"{output}: {error.strerror}")


async def _rows(store: ReceiptStore, wanted: ReceiptFilter, limit: int) -> list[ReceiptRow]:
    found: list[ReceiptRow] = []
    after: Cursor | None = None
    while len(found) < limit:
        page = await store.page(wanted, limit=min(limit - len(found), PAGE), after=after)
        found += page.rows
        if (after := page.next) is None:
            break
    return found


def _line(row: ReceiptRow) -> tuple[str, ...]:
    why = ": ".join(part for part in (row.reason, row.detail) if part)
    began = f"{row.started_at:%Y-%m-%d %H:%M:%S}"
    ids = (str(row.receipt_id), str(row.request_id))
    return (*ids, began, row.kind, row.label, row.model, row.provider, why or "-")
