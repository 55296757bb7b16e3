"""The explorer of mistakes: its committed files are what its sources build, and it works in Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration import explorer_fixtures
from tests.integration.node_projects import install, npm, skip_without_chromium, skip_without_npm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
EXPLORER = ROOT / "explorer"
COMMITTED = ROOT / "tasks" / "explorer" / "page"
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, built anew."""
    skip_without_npm()
    install(EXPLORER)
    folder = tmp_path_factory.mktemp("explorer")
    npm(EXPLORER, "run", "build", "--", "--outDir", str(folder), "--emptyOutDir")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_committed_files_are_what_the_sources_build(built: Path) -> None:
    committed, found = files_of(COMMITTED), files_of(built)
    differing = [name for name in sorted({*committed, *found}) if committed.get(name) != found.get(name)]
    assert differing == [], "run `make explorer`, and commit what it writes"


def test_the_page_is_small_and_names_its_files_relatively() -> None:
    committed = files_of(COMMITTED)
    assert set(committed) == {"index.html", "assets/explorer.js", "assets/explorer.css", "assets/licences.txt"}
    assert sum(len(data) for data in committed.values()) <= MOST_BYTES
    page = committed["index.html"].decode()
    assert 'src="./assets/explorer.js"' in page
    assert 'href="./assets/explorer.css"' in page


def test_figures_filters_and_addresses_agree_with_what_was_computed_by_hand(built: Path) -> None:
    npm(EXPLORER, "run", "unit")


def test_the_page_works_in_a_real_browser(built: Path) -> None:
    skip_without_chromium()
    explorer_fixtures.write(built)
    npm(EXPLORER, "run", "browser", TELLTALE_EXPLORER=str(built))


def test_the_linter_finds_nothing() -> None:
    skip_without_npm()
    install(EXPLORER)
    npm(EXPLORER, "run", "lint")


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((EXPLORER / "package-lock.json").read_bytes())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
