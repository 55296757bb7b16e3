"""Ctrl-C: status 130 and one sentence, whatever the process does then and however often it is pressed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from deployments.interruption import INTERRUPTED, SAID, stops_at_ctrl_c

ROOT = Path(__file__).parents[2]
# A command as `telltale` runs it; each line that it prints says what it is doing, so that no test has to guess.
COMMAND = """
import sys, threading, time
import typer
from deployments.interruption import stops_at_ctrl_c

def say(text):
    print(text, flush=True)

def wait():
    say("waits")
    threading.Event().wait()

def command():
    with stops_at_ctrl_c():
{body}

typer.run(command)
"""
STOPS = """
        wait()
"""
HANGS = """
        try:
            wait()
        finally:
            wait()
"""
LEAVES_A_THREAD = """
        threading.Thread(target=wait).start()
        threading.Event().wait()
"""
FAILS_AS_IT_STOPS = """
        try:
            wait()
        except KeyboardInterrupt:
            raise RuntimeError("cannot schedule new futures after shutdown")
"""


@contextmanager
def running(body: str) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-c", COMMAND.format(body=body)]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("body", [STOPS, FAILS_AS_IT_STOPS])
def test_the_first_one_stops_in_order_with_one_sentence(body: str) -> None:
    with running(body) as process:
        assert says(process) == "waits\n"
        process.send_signal(signal.SIGINT)
        assert ended(process) == (INTERRUPTED, f"{SAID}\n")


def test_the_second_one_does_not_wait_for_what_stops_slowly() -> None:
    with running(HANGS) as process:
        for _ in range(2):
            assert says(process) == "waits\n"
            process.send_signal(signal.SIGINT)
        assert ended(process) == (INTERRUPTED, f"{SAID}\n")


def test_one_that_comes_after_the_sentence_says_nothing_more() -> None:
    with running(LEAVES_A_THREAD) as process:
        assert says(process) == "waits\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == f"{SAID}\n"
        process.send_signal(signal.SIGINT)
        assert ended(process) == (INTERRUPTED, "")


def test_whoever_does_not_let_go_sees_the_same() -> None:
    with running(STOPS) as process:
        assert says(process) == "waits\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert ended(process) == (INTERRUPTED, f"{SAID}\n")


def test_what_is_not_interrupted_passes_and_ctrl_c_means_what_it_meant() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with stops_at_ctrl_c():
        assert signal.getsignal(signal.SIGINT) is not usual
    assert signal.getsignal(signal.SIGINT) is usual
    with pytest.raises(typer.Exit) as raised, stops_at_ctrl_c():
        raise typer.Exit(2)
    assert raised.value.exit_code == 2
    assert signal.getsignal(signal.SIGINT) is usual
