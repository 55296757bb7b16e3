"""Ctrl-C, pressed three times during `telltale evaluate` in a fresh home: one sentence and status 130."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.interruption import INTERRUPTED, SAID
from deployments.processes import marked_processes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
    environment = {**kept, "HOME": str(folder), "TELLTALE_HOME": str(folder / "telltale"), "PYTHONUNBUFFERED": "1"}
    try:
        yield environment
    finally:
        stop = [sys.executable, "-m", "deployments.bootstrap", "stop"]
        subprocess.run(stop, cwd=ROOT, env=environment, check=True, capture_output=True)
        assert marked_processes(folder / "telltale") == []


# The first one ends before a server is there, the second one while several tasks are at work.
@pytest.mark.parametrize("during", ["starting the Prefect server", "tasks done"])
def test_three_times_ctrl_c_is_one_sentence_and_a_status(during: str, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "evaluate", "sample"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any(during in line for line in process.stdout), "it ended before"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (INTERRUPTED, f"{SAID}\n")
