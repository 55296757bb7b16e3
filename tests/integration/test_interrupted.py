"""Ctrl-C, pressed three times during `telltale evaluate` in a fresh home: one sentence and status 130."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deployments.interruption import INTERRUPTED, SAID
from tests.integration.finished_run import ROOT, fresh_home

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with fresh_home(tmp_path_factory.mktemp("home")) as environment:
        yield environment | {"PYTHONUNBUFFERED": "1"}


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
