"""What CONTRIBUTING.md shows is what the tests run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOYS = sorted(Path(__file__).parent.glob("toy_*.py"))


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
def test_a_toy_of_the_guide_is_one_of_the_tests(block: str) -> None:
    assert block in [path.read_text(encoding="utf-8") for path in TOYS]


@pytest.mark.parametrize("path", re.findall(r"`((?:tasks|tests|docs|flows)/[\w./-]+\.\w+)`", GUIDE))
def test_a_file_of_the_guide_is_there(path: str) -> None:
    made_up = {"tasks/detectors/blueness.py", "tasks/data/perturbations/flip.py", "tasks/report/mixes.py"}
    assert path in made_up or (ROOT / path).is_file()
