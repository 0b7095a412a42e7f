"""The compatibility page names tests that exist, and says something of every field."""

import re
from pathlib import Path

from shared.dialects.chat import KNOWN_FIELDS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
OURS_ALONE = {"ollm::resumable"}
"""Of this gateway, and of no other."""


def test_every_test_it_names_exists() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_field_of_the_gateways_own_is_on_it() -> None:
    ours = {name for name in KNOWN_FIELDS if name.startswith("ollm::")}
    assert {name for name in ours - OURS_ALONE if f"`{name}`" not in PAGE} == set()


def test_a_row_without_a_test_says_that_it_is_not_built_yet() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    untested = [row for row in rows if row.endswith("| |")]
    assert untested
    assert all("*not yet*" in row for row in untested)
