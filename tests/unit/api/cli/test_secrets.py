"""A data directory's secrets are made once, kept private, and give way to the environment."""

import base64
from pathlib import Path

from api.cli.secrets import keep, load_or_make, new_seal_key, overridden


def test_secrets_are_made_once(tmp_path: Path):
    assert load_or_make(tmp_path) == load_or_make(tmp_path)


def test_only_the_owner_may_read_them(tmp_path: Path):
    made = load_or_make(tmp_path)
    keep(tmp_path, made)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secrets.json"]


def test_a_seal_key_is_32_fresh_bytes():
    assert len(base64.b64decode(new_seal_key(), validate=True)) == 32
    assert new_seal_key() != new_seal_key()


def test_the_environment_wins_and_empty_values_do_not(tmp_path: Path):
    made = load_or_make(tmp_path)
    given = overridden(made, {"GATEWAY_MASTER_KEY": "mine", "GATEWAY_SEAL_KEYS": ""})
    assert given.master_key == "mine"
    assert given.seal_key == made.seal_key
    assert load_or_make(tmp_path) == made
