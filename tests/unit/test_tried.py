"""Every row of the log of what was tried is whole, and names a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "tried.md").read_text(encoding="utf-8").splitlines()
CASES = [line for line in LINES if line.startswith("| ") and not line.startswith("| source |")]
_TEST = re.compile(r"((?:mobile/)?tests/[\w/]+\.(?:py|test\.ts))(?:::(\w+))?")


def test_a_case_says_all_five_things() -> None:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in CASES]
    assert [row for row in cells if len(row) != 5 or not all(row)] == []


def test_a_case_names_tests_that_are_there() -> None:
    last = [row.rpartition(" | ")[2] for row in CASES]
    assert [row for row in last if not _TEST.search(row) and "by hand" not in row] == []
    named = [found for row in last for found in _TEST.findall(row)]
    assert [file for file, _ in named if not (ROOT / file).is_file()] == []
    functions = [(file, test) for file, test in named if test]
    assert [one for one in functions if f"def {one[1]}(" not in (ROOT / one[0]).read_text(encoding="utf-8")] == []
