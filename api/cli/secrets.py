"""The secrets of one data directory: made once, kept in a private file, the same after a restart."""

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from api.cli.files import replace_private
from shared.seal import KEY_BYTES

FILE = "secrets.json"
TOKEN_BYTES = 32
"""256 bits: beyond guessing."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Later fields are optional: files outlive releases."""

    master_key: str
    seal_key: str
    """Base64 of 32 bytes."""
    simulator_key: str
    api_key: str | None = None
    """The quickstart user's key, in the clear: it opens this laptop's gateway only."""


def new_seal_key() -> str:
    """A fresh sealing key as GATEWAY_SEAL_KEYS takes it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def load_or_make(data_dir: Path) -> Secrets:
    """The secrets kept on `data_dir`; made and kept on its first use."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=Secrets)
    except FileNotFoundError:
        made = Secrets(
            master_key=f"sk-master-{secrets.token_urlsafe(TOKEN_BYTES)}",
            seal_key=new_seal_key(),
            simulator_key=f"sim-{secrets.token_urlsafe(TOKEN_BYTES)}",
        )
        keep(data_dir, made)
        return made


def keep(data_dir: Path, made: Secrets) -> None:
    content = msgspec.json.format(msgspec.json.encode(made), indent=2)
    replace_private(data_dir / FILE, content + b"\n")


def overridden(made: Secrets, environment: Mapping[str, str]) -> Secrets:
    """The same, with what the operator set by hand in its place."""
    return msgspec.structs.replace(
        made,
        master_key=environment.get("GATEWAY_MASTER_KEY") or made.master_key,
        seal_key=environment.get("GATEWAY_SEAL_KEYS") or made.seal_key,
        simulator_key=environment.get("GATEWAY_SIMULATOR_KEY") or made.simulator_key,
    )
