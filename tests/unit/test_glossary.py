"""docs/glossary.md knows every noun: the files of `shared/`."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
NOUNS = sorted(path.name for path in (ROOT / "shared").glob("[!_]*.py"))


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_of_shared_has_an_entry(noun: str) -> None:
    assert f"(`shared/{noun}`): " in GLOSSARY


def test_every_file_the_glossary_names_exists() -> None:
    named = [part for part in GLOSSARY.split("`") if "/" in part]
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
