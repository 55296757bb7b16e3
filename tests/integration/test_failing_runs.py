"""A run that fails for its user's reason: one sentence in the terminal, the whole account in the UI."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.home_folder import load_state
from deployments.processes import marked_processes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
# For Prefect an address of its database ends at the question mark, and % begins an escape.
HOME_NAME = "a?b%20c#d é"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("failures") / HOME_NAME
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
    environment = {**kept, "TELLTALE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    try:
        yield environment
    finally:
        _run(environment, "deployments.bootstrap", "stop")
        assert marked_processes(home) == []


def _run(environment: dict[str, str], *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment | changes,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def said_by_demo(environment: dict[str, str], *options: str, status: int = 2, **changes: str) -> str:
    done = _run(environment, "deployments.cli", "evaluate", "sample", *options, **changes)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert "Traceback" not in done.stdout
    return line


def test_what_is_missing_is_one_sentence_and_prefect_adds_nothing(environment: dict[str, str]) -> None:
    line = said_by_demo(environment, "--set", "extractor.weights=nowhere.safetensors")
    assert line.startswith("error: missing: VGG16 weights nowhere.safetensors: no such file; ")
    # Again with a server that runs: its threads have less to do and end otherwise.
    assert said_by_demo(environment, "--set", 'extractor={"weights": "nowhere.safetensors"}') == line


def test_a_store_that_takes_no_writes_is_one_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    line = said_by_demo(environment, TELLTALE_STORE="/proc/store")
    assert "a writable store" in line
    assert "set TELLTALE_STORE" in line


def test_the_ui_keeps_the_whole_account(environment: dict[str, str]) -> None:
    said_by_demo(environment, "--set", "extractor.weights=nowhere.safetensors")
    port = load_state(Path(environment["TELLTALE_HOME"])).port

    def ask(path: str, body: dict[str, Any]) -> Any:
        answer = httpx.post(f"http://127.0.0.1:{port}/api{path}", json=body, timeout=60, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    (run, *_) = ask("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert run["state"]["type"] == "FAILED"
    assert "nowhere.safetensors" in run["state"]["message"]
    logs = ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert "Traceback" in json.dumps(logs)


def test_a_server_without_pools_is_asked_for_none_of_their_work(environment: dict[str, str]) -> None:
    said_by_demo(environment, "--set", "extractor.weights=nowhere.safetensors")
    line = said_by_demo(environment, "--on", "pools")
    assert line.startswith("error: missing: the deployment evaluate/all: `make serve` starts a server with pools")
    assert "work pool 'coordinator'" in line


def test_everything_lies_in_the_home_whatever_its_name(environment: dict[str, str]) -> None:
    home = Path(environment["TELLTALE_HOME"])
    said_by_demo(environment, "--set", "extractor.weights=nowhere.safetensors")
    assert (home / "prefect" / "prefect.db").stat().st_size > 0
    assert [path.name for path in home.parent.iterdir()] == [HOME_NAME]
    assert "runs, process" in _run(environment, "deployments.bootstrap", "status").stdout
