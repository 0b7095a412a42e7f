"""`gateway keys`: makes, lists, changes, rotates and revokes API keys, and makes sealing keys."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli.environment import settings_for
from api.cli.options import (
    DEFAULT_DATA_DIR,
    Concurrent,
    DataDir,
    PerMinute,
    TokensPerMinute,
    limits_given,
)
from api.cli.secrets import new_seal_key
from api.cli.store import CLOCK, PAGE, checked, in_store, pages, show, table, with_spend
from api.management import resets_of
from api.routes.keys import change_of, documents_of, options_of
from api.schemas.bodies import KeyChangeBody, NewKeyBody, RotationBody
from shared.api_key import ApiKey
from shared.caller import DEFAULT_TENANT, UserField
from shared.document import Compat
from shared.job import Lane
from shared.postgres.audit import CLI
from shared.postgres.catalogs import CatalogStore
from shared.postgres.engine import Engine
from shared.postgres.keys import KeyInfo, KeyStore
from shared.postgres.windows import ResetInfo, WindowStore

HEAD = ("key", "state", "tenant", "user", "lane", "models", "scopes", "expires", "used", "name")

Key = Annotated[str, typer.Argument(help="The key, its id, or its public id of 12 characters.")]
KeyName = Annotated[str | None, typer.Option("--name", help="What the key is for.")]
BestLane = Annotated[
    Lane | None, typer.Option(help="The best lane of the queue it may ask for: `priority` else.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="A model it may use; give it again for more, or `*` for every model."
    ),
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="Something it may do, such as dryrun, cache or bill_others; give it again for more.",
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-from",
        help="An address or network it may be used from; give it again for more. Everywhere else.",
    ),
]
UserSelector = Annotated[
    UserField | None,
    typer.Option(
        help="What a body's `user` is: a label (`attribute`), or whom to bill (`bill`). As the"
        " catalog's compat.user_field says else."
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="The id of a budget of its own, beside its user's.")
]
Attestation = Annotated[
    Literal["record", "require", "default"] | None,
    typer.Option(
        help="Of confidential models: that each call has a receipt (`record`), or is made to machines"
        " alone that have proven themselves (`require`). As the model is set to else (`default`)."
    ),
]
Expiry = Annotated[str | None, typer.Option(help="An ISO 8601 time from which on it is refused.")]


def add_to(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Make, list, change, rotate and revoke API keys, and make sealing keys.",
        no_args_is_help=True,
    )
    for name, command in (
        ("create", create), ("list", list_keys), ("show", show_key), ("update", update),
        ("rotate", rotate), ("revoke", revoke), ("delete", delete),
        ("resets", resets), ("seal", seal),
    ):  # fmt: skip
        family.command(name)(command)
    app.add_typer(family, name="keys")


def create(
    *,
    name: KeyName = None,
    user: Annotated[
        str | None,
        typer.Option(help="Whom its use is billed to; a user of its own otherwise."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to.")] = DEFAULT_TENANT,
    best_lane: BestLane = None,
    model: Models = None,
    scope: Scopes = None,
    allow_from: Networks = None,
    user_field: UserSelector = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    budget: Budget = None,
    attestation: Attestation = None,
    expires_at: Expiry = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an API key and print it. It is shown this once: only a hash of it is kept."""
    body = checked(
        NewKeyBody,
        key_name=name,
        user_id=user,
        tenant=tenant,
        best_lane=best_lane,
        allowed_models=model or None,
        scopes=scope,
        ip_allow_list=allow_from,
        user_field=user_field,
        limits=limits_given(requests_per_minute, tokens_per_minute, concurrent),
        budget_id=budget,
        attestation=attestation,
        expires_at=expires_at,
    )

    async def ask(engine: Engine) -> ApiKey:
        active = await CatalogStore(engine).active()
        options = options_of(body, active.document.compat if active else Compat())
        key, _ = await KeyStore(engine, CLOCK).create(options, actor=CLI)
        return key

    typer.echo(in_store(data_dir, ask).text)


def list_keys(*, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List all keys, oldest first: who they are for and what they may do, never their secrets."""

    async def ask(engine: Engine) -> list[KeyInfo]:
        store = KeyStore(engine, CLOCK)
        return await pages(lambda skip: store.list_keys(skip=skip, limit=PAGE))

    for line in key_table(in_store(data_dir, ask)):
        typer.echo(line)


def show_key(key: Key, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show all that is known of a key, as the API does."""
    key_id = _key_id(key)
    _show(data_dir, lambda store: store.get(key_id))


def update(
    key: Key,
    *,
    name: KeyName = None,
    active: Annotated[bool | None, typer.Option(help="Whether it works.")] = None,
    best_lane: BestLane = None,
    model: Models = None,
    scope: Scopes = None,
    allow_from: Networks = None,
    allow_from_everywhere: Annotated[
        bool, typer.Option("--allow-from-everywhere", help="Bind it to no network any more.")
    ] = False,
    user_field: UserSelector = None,
    requests_per_minute: PerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent: Concurrent = None,
    budget: Budget = None,
    attestation: Attestation = None,
    expires_at: Expiry = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change what is named of a key, everywhere within a second. Limits are replaced together."""
    body = checked(
        KeyChangeBody,
        key_name=name,
        is_active=active,
        best_lane=best_lane,
        allowed_models=model or None,
        scopes=scope or None,
        ip_allow_list=[] if allow_from_everywhere else allow_from or None,
        user_field=user_field,
        limits=limits_given(requests_per_minute, tokens_per_minute, concurrent),
        budget_id=budget,
        attestation=attestation,
        expires_at=expires_at,
    )
    key_id, change = _key_id(key), change_of(body)
    _show(data_dir, lambda store: store.update(key_id, change, CLI))


def rotate(
    key: Key,
    *,
    overlap_seconds: Annotated[
        int, typer.Option(help="How long the old secret works beside the new one.")
    ] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Give a key a new secret and print it. It is shown this once."""
    body = checked(RotationBody, overlap_seconds=overlap_seconds)
    key_id, overlap = _key_id(key), timedelta(seconds=body.overlap_seconds)

    async def ask(engine: Engine) -> ApiKey:
        rotated, _ = await KeyStore(engine, CLOCK).rotate(key_id, CLI, overlap=overlap)
        return rotated

    typer.echo(in_store(data_dir, ask).text)


def revoke(key: Key, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make an API key useless, everywhere within a second."""
    key_id = _key_id(key)
    in_store(data_dir, lambda engine: KeyStore(engine, CLOCK).revoke(key_id, CLI))
    typer.echo(f"{key_id} is revoked")


def delete(key: Key, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Delete an API key. Its user and its usage stay."""
    key_id = _key_id(key)
    in_store(data_dir, lambda engine: KeyStore(engine, CLOCK).delete(key_id, CLI))
    typer.echo(f"{key_id} is deleted")


def resets(key: Key, *, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List the windows of a key's own budgets that have ended, the newest first."""
    key_id = _key_id(key)

    async def ask(engine: Engine) -> list[ResetInfo]:
        found, store = await KeyStore(engine, CLOCK).get(key_id), WindowStore(engine)
        return await pages(lambda skip: store.history_of_key(found, skip=skip, limit=PAGE))

    show(resets_of(in_store(data_dir, ask)))


def seal() -> None:
    """Print a fresh sealing key for GATEWAY_SEAL_KEYS: 32 random bytes in base64."""
    typer.echo(new_seal_key())


def _show(data_dir: Path, find: Callable[[KeyStore], Awaitable[KeyInfo]]) -> None:
    async def ask(engine: Engine) -> list[dict[str, Any]]:
        found = await find(KeyStore(engine, CLOCK))
        return await with_spend(settings_for(data_dir), lambda spend: documents_of(spend, found))

    show(in_store(data_dir, ask)[0])


def key_table(keys: Sequence[KeyInfo]) -> list[str]:
    return table(HEAD, [_row(key) for key in keys])


def _key_id(key: str) -> str:
    """A secret is not passed on: not even into an error message."""
    parsed = ApiKey.parse(key)
    return key if parsed is None else parsed.public_id


def _row(key: KeyInfo) -> tuple[str, ...]:
    return (
        key.public_id,
        "active" if key.is_active else "revoked",
        key.tenant,
        key.user_id,
        key.best_lane,
        ",".join(key.allowed_models) if key.allowed_models is not None else "all",
        ",".join(key.scopes) or "-",
        _day(key.expires_at),
        _day(key.last_used_at),
        key.name or "-",
    )


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d}"
