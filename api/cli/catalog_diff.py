"""What differs between two catalogs, a line for each member: for people who review a change."""

from collections.abc import Iterator
from typing import Any

from shared.catalog import Catalog
from shared.document import dump

ABSENT = object()


def differences(old: Catalog, new: Catalog) -> list[str]:
    """`+` is new, `-` is gone, `~` has changed; by path, in alphabetical order."""
    return list(_members("", dump(old.document), dump(new.document)))


def _members(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            below = f"{path}.{name}" if path else name
            yield from _members(below, old.get(name, ABSENT), new.get(name, ABSENT))
    elif old is ABSENT:
        yield f"+ {path} = {_shown(new)}"
    elif new is ABSENT:
        yield f"- {path}"
    elif old != new:
        yield f"~ {path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    """On one line, as in the file; what a table leaves at its defaults is left out."""
    if isinstance(value, dict):
        said = {name: one for name, one in value.items() if one not in (None, "", {}, [], ())}
        return "{ " + ", ".join(f"{name} = {_shown(one)}" for name, one in said.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
