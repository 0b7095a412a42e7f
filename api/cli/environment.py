"""The command line's view of the environment: what children inherit, and where the stores are."""

import os
from pathlib import Path

from pydantic import SecretStr

from api.cli.ready import read_ready
from shared.settings import Settings


def inherited() -> dict[str, str]:
    """A copy of this process's environment.

    The supervisor hands it on whole: a provider's key has any name its catalog gives it, so no
    settings class could list what a child needs.
    """
    return dict(os.environ)  # noqa: TID251 - composes child environments; see the doc-string


SIMULATOR_KEY = "GATEWAY_SIMULATOR_KEY"


def has_key(variable: str, data_dir: Path) -> bool:
    """Whether a provider's key is set: here, or by the gateway on `data_dir` for its simulator."""
    if Settings().secret(variable) is not None:
        return True
    ready = read_ready(data_dir) if variable == SIMULATOR_KEY else None
    return ready is not None and ready.simulator_url is not None


def settings_for(data_dir: Path) -> Settings:
    """Settings whose addresses come from the environment, else from the gateway on `data_dir`.

    So that `gateway queue` beside a running `gateway up` needs no addresses.
    """
    settings, ready = Settings(), read_ready(data_dir)
    if ready is None:
        return settings
    environment = inherited()
    addresses = {
        "VALKEY_URL": ready.valkey_url,
        "DATABASE_URL": ready.database_url,
        "CLICKHOUSE_URL": ready.clickhouse_url,
    }
    missing = {
        name.lower(): SecretStr(address)
        for name, address in addresses.items()
        if not environment.get(name)
    }
    return settings.model_copy(update=missing)
