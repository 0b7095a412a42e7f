"""The pages made from the code equal what the code says; `make docs` writes them anew."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["metrics", "cli"])
def test_a_generated_page_equals_what_the_code_says(name: str) -> None:
    made = runpy.run_path(str(ROOT / ".ci" / f"{name}_page.py"))["page"]()
    assert (ROOT / "docs" / f"{name}.md").read_text() == made
