"""The app: built from a clean folder, compared with Python in Vitest and in Chromium, and given its networks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deployments.app import (
    first_visit_bytes,
    network_files,
    picture_files,
    read_networks,
    read_pictures,
    write_app_files,
)
from storage.errors import DamagedObject, MissingInput, SpecError
from tests.integration import mobile_fixtures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

MOBILE = Path(__file__).parents[2] / "mobile"
CHROMIUM = Path(os.environ.get("TELLTALE_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, pictures and Python's answers."""
    folder = tmp_path_factory.mktemp("fixtures")
    mobile_fixtures.write(folder)
    return folder


@pytest.fixture(scope="module")
def app(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built app with the made networks."""
    if not os.environ.get("TELLTALE_APP_TESTS"):
        pytest.skip("the app's own tests take minutes and want Node and Chromium: make mobile-test")
    if shutil.which("npm") is None:
        pytest.skip("npm is missing: apt-get install nodejs npm")
    if not (MOBILE / "node_modules").is_dir():
        npm("ci")
    folder = tmp_path_factory.mktemp("app")
    npm("run", "build", "--", "--outDir", str(folder), "--emptyOutDir")
    write_app_files(
        folder,
        network_files(read_networks(made / "models")) | picture_files(read_pictures(made / "labelled")),
    )
    return folder


def npm(*arguments: str, **environment: str) -> None:
    """Run npm in the app's folder; its output goes with the failure."""
    finished = subprocess.run(
        ["npm", *arguments], cwd=MOBILE, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"npm {' '.join(arguments)}:\n{finished.stdout}\n{finished.stderr}"


def test_a_first_visit_fetches_at_most_25_megabytes(app: Path) -> None:
    assert first_visit_bytes(app) <= 25_000_000


def test_kernel_rule_and_statistics_agree_with_python(app: Path, made: Path) -> None:
    npm("run", "unit", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_app_works_in_a_real_browser(app: Path, made: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium, or set TELLTALE_CHROMIUM")
    npm("run", "browser", TELLTALE_FIXTURES=str(made), TELLTALE_APP=str(app))


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((MOBILE / "package-lock.json").read_bytes())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []


def test_the_app_starts_with_the_first_network_and_lists_all(made: Path) -> None:
    files = network_files(read_networks(made / "models", first="small"))
    index = json.loads(files["models/index.json"])
    assert [entry["name"] for entry in index] == ["small", "dense"]
    for entry in index:
        assert len(files[f"models/{entry['file']}"]) == entry["bytes"]
        assert json.loads(files[f"models/{entry['card']}"])["sha256"] == entry["sha256"]


def test_networks_and_cards_that_do_not_belong_together_are_refused(made: Path) -> None:
    networks = read_networks(made / "models")
    with pytest.raises(DamagedObject, match="dense: expected sha256"):
        network_files({"dense": (networks["small"][0], networks["dense"][1])})
    with pytest.raises(SpecError, match="not the card of an evaluated network"):
        network_files({"dense": (networks["dense"][0], b"{}")})
    with pytest.raises(SpecError, match="at least one network"):
        network_files({})


def test_missing_files_are_named(tmp_path: Path, made: Path) -> None:
    with pytest.raises(MissingInput, match=r"an exported network\.onnx in"):
        read_networks(tmp_path)
    with pytest.raises(MissingInput, match=r"pruned\.onnx in"):
        read_networks(made / "models", first="pruned")
    (tmp_path / "lonely.onnx").write_bytes(b"")
    with pytest.raises(MissingInput, match=r"the cards lonely\.json in"):
        read_networks(tmp_path)
    with pytest.raises(MissingInput, match="pictures in"):
        read_pictures(tmp_path)
    with pytest.raises(MissingInput, match="the built app in"):
        write_app_files(tmp_path, {})


def test_new_networks_replace_the_old_ones(tmp_path: Path, made: Path) -> None:
    (tmp_path / "index.html").write_text("the app")
    networks = read_networks(made / "models")
    write_app_files(tmp_path, network_files(networks) | picture_files(read_pictures(made / "labelled")))
    write_app_files(tmp_path, network_files({"small": networks["small"]}) | picture_files(()))
    assert [file.suffix for file in sorted((tmp_path / "models").iterdir())] == [".json", ".json", ".onnx"]
    assert [file.name for file in (tmp_path / "pictures").iterdir()] == ["index.json"]
