"""A file has one subject and a function does one thing: neither is long."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("storage", "tasks", "flows", "deployments", "benchmarks")
LONGEST_FILE = 500
LONGEST_FUNCTION = 60


def files() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_file_has_more_than_500_lines() -> None:
    long = {name: lines for name, text in files() if (lines := len(text.splitlines())) > LONGEST_FILE}
    assert long == {}


def test_no_function_has_more_than_60_lines() -> None:
    long = {}
    for name, text in files():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long[f"{name}: {node.name}"] = lines
    assert long == {}
