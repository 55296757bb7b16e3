"""The app: built from a clean folder, and compared with Python in Vitest and in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.app_files import (
    MOST_BYTES,
    complete_app,
    first_visit_bytes,
    read_app,
    read_networks,
    read_pictures,
    write_app,
)
from tests.integration import mobile_fixtures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

MOBILE = Path(__file__).parents[2] / "mobile"
CHROMIUM = Path(os.environ.get("TELLTALE_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, pictures and Python's answers."""
    if shutil.which("npm") is None:
        pytest.skip("npm is missing: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("fixtures")
    mobile_fixtures.write(folder)
    return folder


@pytest.fixture(scope="module")
def app(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built app with the made networks."""
    install()
    folder = tmp_path_factory.mktemp("app")
    npm("run", "build", "--", "--outDir", str(folder), "--emptyOutDir")
    networks = read_networks(made / "models")
    write_app(folder, complete_app(read_app(folder), networks, read_pictures(made / "labelled")))
    return folder


def install() -> None:
    """What `make mobile` does first: the packages of the lock file, unless they are there."""
    installed, lock = MOBILE / "node_modules" / ".installed", MOBILE / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm("ci")
        installed.touch()


def npm(*arguments: str, **environment: str) -> None:
    """Run npm in the app's folder; its output goes with the failure."""
    finished = subprocess.run(
        ["npm", *arguments], cwd=MOBILE, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"npm {' '.join(arguments)}:\n{finished.stdout}\n{finished.stderr}"


def test_a_first_visit_fetches_at_most_25_megabytes(app: Path) -> None:
    assert first_visit_bytes(read_app(app)) <= MOST_BYTES


def test_kernel_rule_and_statistics_agree_with_python(app: Path, made: Path) -> None:
    npm("run", "unit", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_app_works_in_a_real_browser(app: Path, made: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium, or set TELLTALE_CHROMIUM")
    npm("run", "browser", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((MOBILE / "package-lock.json").read_bytes())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
