"""`gateway reconcile`: counters of budgets compared with the ledger and the queue, and set right."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from api.cli.environment import settings_for
from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.store import fail, table
from api.reconcile import Difference, Reconciliation
from shared.clickhouse.client import ClickHouse, ClickHouseAway
from shared.clickhouse.user_spend import UserSpend
from shared.errors import Overloaded
from shared.money import plain
from shared.postgres.session import PostgresAway, open_postgres
from shared.postgres.windows import WindowStore
from shared.settings import Settings
from shared.valkey.client import CommandRefused, ValkeyAway, open_client
from shared.valkey.inspect import StoreAway
from shared.valkey.keys import ShardKeys

HEAD = ("account", "what", "counter", "should be", "state")


def add_to(app: typer.Typer) -> None:
    app.command("reconcile")(reconcile)


def reconcile(
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Set what differs.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Compare what accounts have spent with the ledger, and what they hold with the jobs that run.

    The gateway may go on meanwhile. Ends with 1 where a difference is left.
    """
    try:
        found = asyncio.run(_differences(settings_for(data_dir), fix=fix))
    except (
        *(ClickHouseAway, PostgresAway, StoreAway),
        *(Overloaded, ValkeyAway, CommandRefused),
    ) as error:
        fail(str(error))
    for line in difference_table(found):
        typer.echo(line)
    if any(not one.is_fixed for one in found):
        raise typer.Exit(1)


async def _differences(settings: Settings, *, fix: bool) -> list[Difference]:
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value())
    shards = [ShardKeys(shard) for shard in range(settings.shards)]
    try:
        async with (
            open_client(settings.valkey_url.get_secret_value(), name="cli") as client,
            open_postgres(settings.database_url.get_secret_value(), "cli") as engine,
        ):
            owners, ledger = WindowStore(engine), UserSpend(clickhouse)
            return await Reconciliation(client, shards, owners, ledger).differences(fix=fix)
    except TimeoutError as error:
        raise StoreAway("Valkey: it cannot be reached") from error
    finally:
        await clickhouse.close()


def difference_table(found: Sequence[Difference]) -> list[str]:
    """A line for each difference; one alone that says that there is none."""
    if not found:
        return ["every counter is right"]
    return table(HEAD, [_row(one) for one in found])


def _row(one: Difference) -> tuple[str, ...]:
    should = plain(one.lowest)
    if one.highest != one.lowest:
        should += f" to {plain(one.highest)}"
    state = "set" if one.is_fixed else "differs"
    return (_shown(one.account), one.what, plain(one.counter), should, state)


def _shown(account: str) -> str:
    """Clients may have named it: what would steer the terminal is spelled out."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in account)
