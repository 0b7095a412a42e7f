"""`gateway receipts verify`: judges a receipt again from its file alone, offline."""

import math
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import msgspec
import typer

from api.cli.receipts_scorecard import conclusion, scorecard
from api.cli.store import show
from shared.attestation.audit import Audit, audit
from shared.attestation.export import Kind, NotAReceipt
from shared.attestation.roots import PRODUCTION, Roots, load
from shared.attestation.terms import Terms
from shared.catalog_checks import TCB_STATUSES

STDIN = Path("-")
UNREADABLE = 2
KEY_DIGITS = 64


def verify_receipt(
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
    require_log: Annotated[
        bool,
        typer.Option("--require-log", help="Fail without a proof that the gateway's log holds it."),
    ] = False,
    policy: Annotated[
        Literal["receipt", "default"],
        typer.Option(help="Judge by the gateway's choice in the receipt, or by the default."),
    ] = "receipt",
    allowed_tcb: Annotated[
        str | None, typer.Option(help="Intel's statuses that you accept, with commas between.")
    ] = None,
    no_demoted: Annotated[
        bool, typer.Option("--no-demoted", help="Need every factor, whatever the receipt's policy.")
    ] = False,
    accept_policy: Annotated[
        bool,
        typer.Option("--accept-policy", help="Take a receipt's policy that is laxer than default."),
    ] = False,
    allow_synthetic: Annotated[
        bool, typer.Option("--allow-synthetic", help="Take test roots, which prove nothing.")
    ] = False,
    kind: Annotated[
        Kind, typer.Option(help="What the receipt should be: a proof, a policy record, a refusal.")
    ] = "tee",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a receipt again from its file, with roots of your own, and print every factor.

    Needs no network. Exits with 0 only if the receipt is verified and all in it comes out again; the
    last line says what is not shown. With 1 if not, with 2 if there is nothing to read.
    """
    if now is not None and not math.isfinite(now):
        _unreadable("--now takes seconds since 1970")
    terms = Terms(
        gateway_keys=_keys(gateway_key), require_log=require_log,
        default_policy=policy == "default", allowed_tcb=_statuses(allowed_tcb),
        no_demoted=no_demoted, accept_policy=accept_policy,
    )  # fmt: skip
    if require_log and not terms.gateway_keys:
        _unreadable("--require-log needs --gateway-key: anybody can sign a log with another key")
    trusted = _roots(roots, allow_synthetic=allow_synthetic)
    try:
        found = audit(_read(file), roots=trusted, now=now, terms=terms)
    except NotAReceipt as error:
        _unreadable(f"{file}: {error}")
    _print(found, kind, as_json=as_json)
    raise typer.Exit(0 if found.holds(kind) else 1)


def _print(found: Audit, kind: Kind, *, as_json: bool) -> None:
    if as_json:
        told = {"holds": found.holds(kind), "conclusion": conclusion(found, kind)}
        show({**msgspec.to_builtins(found), **told})
        return
    for line in scorecard(found, kind):
        typer.echo(_clean(line))


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


def _keys(given: str | None) -> frozenset[str]:
    if given is None:
        return frozenset()
    keys = [one.strip().lower().removeprefix("0x") for one in given.split(",")]
    if any(len(one) != KEY_DIGITS or set(one) - set("0123456789abcdef") for one in keys):
        _unreadable(f"--gateway-key takes keys of {KEY_DIGITS} hex digits")
    return frozenset(keys)


def _statuses(given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    found = tuple(one.strip() for one in given.split(","))
    if unknown := [one for one in found if one not in TCB_STATUSES]:
        _unreadable(f"--allowed-tcb: '{unknown[0]}' is none of {', '.join(TCB_STATUSES)}")
    return found


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        _unreadable(str(error))


def _unreadable(message: str) -> NoReturn:
    typer.echo(f"gateway: {_clean(message)}", err=True)
    raise typer.Exit(UNREADABLE)


def _clean(line: str) -> str:
    """A file that nobody trusts does not write control sequences to a terminal."""
    return "".join(one if one.isprintable() else "?" for one in line)
