"""Addresses, secrets and the queue's timings, read from the environment once per process."""

import base64
import binascii
import os

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SEAL_KEY_BYTES = 32
"""AES-256."""
KNOWN_DEFAULT_MASTER_KEYS = frozenset({"changeme", "change-me", "master", "secret", "sk-master"})


class Settings(BaseSettings):
    """Built by the entry points only; its parts are handed on as plain values."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore", populate_by_name=True)

    valkey_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), validation_alias="VALKEY_URL"
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql+asyncpg://postgres@127.0.0.1:5432/gateway"),
        validation_alias="DATABASE_URL",
    )
    clickhouse_url: SecretStr = Field(
        SecretStr("http://127.0.0.1:8123/gateway"), validation_alias="CLICKHOUSE_URL"
    )
    arq_url: SecretStr | None = Field(None, validation_alias="ARQ_URL")
    """arq's own non-cluster server; default: the same Valkey."""

    master_key: SecretStr = SecretStr("")
    seal_keys: SecretStr = SecretStr("")
    """Base64 keys of 32 bytes, separated by commas: the first seals, all open."""

    shards: int = Field(1, ge=1, le=1024)
    lease_seconds: float = Field(15.0, ge=0.5)
    """How long a worker may be silent before others may take its jobs."""
    inbox_lease_seconds: float = Field(5.0, ge=0.5)
    """How long an API process may be silent before its inbox counts as gone."""
    delta_window_ms: float = Field(2.0, ge=0, le=100)
    """Later deltas of a stream are gathered for this long; the first leaves at once."""
    worker_concurrency: int = Field(1000, ge=1)
    """Jobs one worker process runs at a time."""
    drain_seconds: float = Field(30.0, ge=0)
    """How long a process may finish its work after SIGTERM."""
    ledger_keep_days: int = Field(0, ge=0)
    """How long spend rows are kept; 0: for good. Their hourly sums always are."""
    bootstrap_api_key: bool = True
    """Whether the first release of a store without keys makes one, and prints it."""
    webhook_url: SecretStr = SecretStr("")
    """Where budget events are sent; empty: nowhere. It may hold a secret."""
    webhook_secret: SecretStr = SecretStr("")
    """Signs them: `whsec_` and base64."""
    webhook_allow_private: bool = False
    """Whether the webhook may be inside the deployment."""
    receipt_keys: SecretStr = SecretStr("")
    """Base64 seeds of ed25519 keys, separated by commas: the first signs receipts. Empty: one that is
    derived from the first seal key."""
    attestation_roots: str = ""
    """A file with other roots of trust than Intel's and NVIDIA's: for tests alone."""
    log_level: str = "info"

    @field_validator("seal_keys", "receipt_keys")
    @classmethod
    def _keys_are_base64(cls, value: SecretStr) -> SecretStr:
        decode_keys(value.get_secret_value())
        return value

    def seal_key_bytes(self) -> list[bytes]:
        """Raises ValueError where no key is configured."""
        keys = decode_keys(self.seal_keys.get_secret_value())
        if not keys:
            raise ValueError("GATEWAY_SEAL_KEYS is empty: `gateway keys seal` makes one")
        return keys

    def receipt_seeds(self) -> list[bytes]:
        """Of the keys that sign receipts; the first is in use. Empty: none was configured."""
        return decode_keys(self.receipt_keys.get_secret_value())

    def secret(self, name: str | None) -> SecretStr | None:
        """The value of an environment variable that the catalog names, if it is set."""
        value = os.environ.get(name, "") if name else ""
        return SecretStr(value) if value else None


def decode_keys(text: str) -> list[bytes]:
    try:
        keys = [base64.b64decode(part, validate=True) for part in text.split(",") if part.strip()]
    except binascii.Error as error:
        raise ValueError("a list of keys is not base64") from error
    if any(len(key) != SEAL_KEY_BYTES for key in keys):
        raise ValueError(f"each key of a list must be {SEAL_KEY_BYTES} bytes")
    return keys
