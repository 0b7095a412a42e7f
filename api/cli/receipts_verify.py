"""`gateway receipts verify`: judges a receipt again from its file alone, offline."""

import math
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from api.cli.store import show, table
from shared.attestation.audit import Audit, Link, audit
from shared.attestation.export import Kind, NotAReceipt
from shared.attestation.factor import Factor
from shared.attestation.roots import PRODUCTION, Roots, load

STDIN = Path("-")
UNREADABLE = 2
KEY_DIGITS = 64
_LINKS: dict[Link, str] = {
    "bytes": "the client's own bytes are what is signed",
    "word": "other bytes than the client's are signed: for the step between them, the gateway's word",
    "open": "not all of the bytes were hashed",
}


def verify(
    file: Annotated[
        Path, typer.Argument(help="The receipt, as `GET /v1/receipts/{id}` gives it; `-`: stdin.")
    ],
    *,
    now: Annotated[
        float | None,
        typer.Option(help="The time to judge at, in epoch seconds; when it was verified, else."),
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option(help="A file with other roots of trust than Intel's and NVIDIA's."),
    ] = None,
    gateway_key: Annotated[
        str | None,
        typer.Option(help="The gateway's public key as hex; several with commas between."),
    ] = None,
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Take test roots, which prove nothing.")
    ] = False,
    kind: Annotated[
        Kind, typer.Option(help="What the receipt should be: a proof, a policy record, a refusal.")
    ] = "tee",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a receipt again from its file, with roots of your own, and print every factor.

    Needs no network, and says what rests on the gateway's word. Exits with 0 only if the receipt is
    verified and all in it comes out again, with 1 if not, with 2 if there is nothing to read.
    """
    if now is not None and not math.isfinite(now):
        _unreadable("--now takes seconds since 1970")
    trusted = _roots(roots, allow_synthetic=allow_synthetic)
    try:
        found = audit(_read(file), roots=trusted, now=now, gateway_key=_keys(gateway_key))
    except NotAReceipt as error:
        _unreadable(f"{_clean(str(file))}: {_clean(str(error))}")
    if as_json:
        show(_document(found, kind))
    else:
        for line in scorecard(found, kind):
            typer.echo(_clean(line))
    raise typer.Exit(0 if found.holds(kind) else 1)


def scorecard(found: Audit, kind: Kind) -> Iterator[str]:
    """One line for each factor and each check of the file, then what it comes to."""
    yield f"receipt   {found.receipt_id}"
    yield f"request   {found.request_id}"
    yield f"model     {found.model} as {found.upstream_model}, by {found.provider}"
    yield f"judged    {_time(found.verified_at)}, roots {found.roots}"
    yield ""
    yield from _factors(found.verdict.factors)
    yield ""
    rows = [(check.status, check.name, check.detail) for check in found.checks]
    yield from table(("status", "of the file", "detail"), rows)
    yield ""
    if found.kind != "zdr":
        yield f"request:  {_LINKS[found.request_link]}."
        yield f"answer:   {_LINKS[found.response_link]}."
    yield from found.notes
    yield _conclusion(found, kind)


def _factors(factors: Iterable[Factor]) -> list[str]:
    rows = [(one.status, one.name, one.source, one.detail) for one in factors]
    return table(("status", "factor", "source", "detail"), rows) if rows else ["no factors"]


def _conclusion(found: Audit, kind: Kind) -> str:
    label = found.verdict.label
    told = f"{label} ({found.verdict.detail})" if found.verdict.detail else label
    if found.holds(kind):
        loud = "SYNTHETIC, NO PROOF: " if found.synthetic else ""
        return f"{loud}{told}; all of it comes out again."
    if found.kind != kind:
        return f"NOT VERIFIED: this is a receipt of kind {found.kind}."
    wrong = [check.name for check in found.checks if check.status == "fail"]
    return f"NOT VERIFIED: {told}" + (f"; fails: {', '.join(wrong)}." if wrong else ".")


def _document(found: Audit, kind: Kind) -> object:
    return {**msgspec.to_builtins(found), "holds": found.holds(kind)}


def _roots(path: Path | None, *, allow_synthetic: bool) -> Roots:
    if path is None:
        return PRODUCTION
    try:
        found = load(path)
    except (OSError, ValueError) as error:
        _unreadable(str(error))
    if found.synthetic and not allow_synthetic:
        _unreadable("these roots are synthetic and prove nothing: take them with --allow-synthetic")
    return found


def _keys(given: str | None) -> str | None:
    if given is None:
        return None
    keys = [one.strip().lower().removeprefix("0x") for one in given.split(",")]
    if any(len(one) != KEY_DIGITS or set(one) - set("0123456789abcdef") for one in keys):
        _unreadable(f"--gateway-key takes keys of {KEY_DIGITS} hex digits")
    return ",".join(keys)


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        _unreadable(str(error))


def _unreadable(message: str) -> NoReturn:
    typer.echo(f"gateway: {message}", err=True)
    raise typer.Exit(UNREADABLE)


def _clean(line: str) -> str:
    """A file that nobody trusts does not write control sequences to a terminal."""
    return "".join(one if one.isprintable() else "?" for one in line)


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
