"""Folders that npm builds and tests: `mobile/` and `explorer/`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = Path(os.environ.get("TELLTALE_CHROMIUM", "/usr/bin/chromium"))


def skip_without_npm() -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is missing: apt-get install nodejs npm")


def skip_without_chromium() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium, or set TELLTALE_CHROMIUM")


def install(project: Path) -> None:
    """What `make` does first: the packages of the lock file, unless they are there."""
    installed, lock = project / "node_modules" / ".installed", project / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm(project, "ci")
        installed.touch()


def npm(project: Path, *arguments: str, **environment: str) -> None:
    """Run npm in a project's folder; its output goes with the failure."""
    finished = subprocess.run(
        ["npm", *arguments], cwd=project, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"npm {' '.join(arguments)}:\n{finished.stdout}\n{finished.stderr}"
