"""Pages of the modules are made from their docstrings, without a warning."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pages_are_made_of_every_docstring_of_some_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "-m", "pdoc", "--docformat", "google", "--no-show-source"]
    packages = ["storage.store", "tasks.spec", "tasks.detectors", "tasks.data.perturbations"]
    done = subprocess.run(
        [*command, "--output-directory", str(tmp_path), *packages],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "tasks" / "detectors" / "base.html").read_text(encoding="utf-8")
    assert "What an experiment asks of every detector" in page
    assert "Attributes" in page
