"""Small private files, replaced whole: a reader sees the old one or the new one, never a part."""

import os
from pathlib import Path

PRIVATE = 0o600
"""They hold keys, or addresses with passwords: only their owner may read them."""


def replace_private(path: Path, content: bytes) -> None:
    """Writes `content` beside `path` and renames it into place."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    beside.replace(path)
