"""Links between the pages lead somewhere, and paths they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]+)?\)")
CODE_PATH = re.compile(r"`((?:api|workers|shared|tests|docs|bench)/[A-Za-z0-9_./-]+)`")


def anchors(page: Path) -> set[str]:
    """The ids hosts give to headings: lower case, punctuation gone, spaces as dashes."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        assert not anchor or anchor[1:] in anchors(found), target + anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_a_page_names_exist(page: Path) -> None:
    named = CODE_PATH.findall(page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
