"""Small files, replaced whole: a reader sees the old one or the new one, never a part."""

import os
import stat
from pathlib import Path

PRIVATE = 0o600
"""Ours hold keys, or addresses with passwords: only their owner may read them."""


def replace_private(path: Path, content: bytes) -> None:
    """Writes `content` beside `path` and renames it into place."""
    _replace(path, content, PRIVATE)


def replace_kept(path: Path, content: bytes) -> None:
    """The same for a file of the user's: its mode stays, and a link to it still leads to it."""
    target = path.resolve(strict=True)
    _replace(target, content, stat.S_IMODE(target.stat().st_mode))


def _replace(path: Path, content: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the process's own mask has taken from it
        file.write(content)
    beside.replace(path)
