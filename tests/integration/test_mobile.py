"""The app: built from a clean folder, and compared with Python in Vitest and in Chromium."""

from __future__ import annotations

import json
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
from tests.integration.node_projects import install, npm, skip_without_chromium, skip_without_npm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

MOBILE = Path(__file__).parents[2] / "mobile"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, pictures and Python's answers."""
    skip_without_npm()
    folder = tmp_path_factory.mktemp("fixtures")
    mobile_fixtures.write(folder)
    return folder


@pytest.fixture(scope="module")
def app(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built app with the made networks."""
    install(MOBILE)
    folder = tmp_path_factory.mktemp("app")
    npm(MOBILE, "run", "build", "--", "--outDir", str(folder), "--emptyOutDir")
    networks = read_networks(made / "models")
    write_app(folder, complete_app(read_app(folder), networks, read_pictures(made / "labelled")))
    return folder


def test_a_first_visit_fetches_at_most_25_megabytes(app: Path) -> None:
    assert first_visit_bytes(read_app(app)) <= MOST_BYTES


def test_kernel_rule_and_statistics_agree_with_python(app: Path, made: Path) -> None:
    npm(MOBILE, "run", "unit", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_app_works_in_a_real_browser(app: Path, made: Path) -> None:
    skip_without_chromium()
    npm(MOBILE, "run", "browser", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_linter_finds_nothing() -> None:
    skip_without_npm()
    install(MOBILE)
    npm(MOBILE, "run", "lint")


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((MOBILE / "package-lock.json").read_bytes())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
