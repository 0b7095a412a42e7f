"""Lists what a reviewer should look at twice: functions over 60 lines and files over 400."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("api", "workers", "shared", "tests", "bench")
FUNCTION_LINES = 60
FILE_LINES = 400


def smells(file: Path) -> Iterator[str]:
    text = file.read_text()
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{file}: {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{file}:{node.lineno}: {node.name} has {length} lines"


def main() -> None:
    for folder in FOLDERS:
        for file in sorted(Path(folder).rglob("*.py")):
            for smell in smells(file):
                sys.stdout.write(smell + "\n")


if __name__ == "__main__":
    main()
