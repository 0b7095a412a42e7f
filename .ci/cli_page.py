"""Writes docs/cli.md from the commands' own help; with `--check`, fails where the page differs."""

import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from api.cli import commands

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


def page() -> str:
    command = typer.main.get_command(commands())
    context = typer.Context(command, info_name="gateway")
    return get_docs_for_click(obj=command, ctx=context, name="gateway").rstrip() + "\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text() == page()
        if not same:
            sys.stderr.write("docs/cli.md differs from `gateway --help`: run `make docs`\n")
        return 0 if same else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
