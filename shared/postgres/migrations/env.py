"""What Alembic runs for every command: the migrations, on the connection it was given."""

from alembic import context
from sqlalchemy import Connection

from shared.postgres.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
