"""Processes of a local telltale: found again, never confused with others, and gone after `stop`."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import services
from deployments.services import Process, ServiceFailed, State

SLEEPER = "import time; time.sleep(60)"
# Starts a child in a session of its own, as a process worker does with flow runs; both ignore SIGTERM.
STUBBORN = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"],
                 start_new_session=True)
time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("PREFECT_API_URL", "TELLTALE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TELLTALE_HOME", str(folder))
    monkeypatch.setattr(services, "STOP_TIMEOUT_S", 1.0)
    monkeypatch.setattr(services, "REPORT_TIME_S", 0.0)
    yield folder
    for pid in services.marked_processes(folder):
        os.kill(pid, signal.SIGKILL)
    for child in services._children.values():
        child.wait(timeout=10)
    services._children.clear()


def _start(folder: Path, code: str = SLEEPER, name: str = "worker-cpu") -> Process:
    return services._start(name, [sys.executable, "-c", code], dict(os.environ), folder)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_state_comes_back_as_it_was_written_and_a_broken_file_counts_as_none(home: Path) -> None:
    process = Process("server", 12, 345, "/log")
    state = State(4200, process, {"cpu": process}, {"TELLTALE_COCO": "/coco"}, "abc", "off")
    services.save_state(home, state)
    assert services.load_state(home) == state
    (home / "services.json").write_text('{"port": 1', encoding="utf-8")
    assert services.load_state(home) == State()
    (home / "services.json").write_text("[]", encoding="utf-8")
    assert services.load_state(home) == State()


def test_a_process_runs_until_it_is_killed_and_a_zombie_does_not_run(home: Path) -> None:
    process = _start(home)
    assert services.is_running(process, home)
    os.kill(process.pid, signal.SIGKILL)
    _wait_for(lambda: not services.is_running(process, home))


def test_a_process_that_got_a_recycled_id_is_neither_taken_for_ours_nor_stopped(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as stranger:
        started = services._start_time(stranger.pid)
        assert started is not None
        same_id = Process("worker-cpu", stranger.pid, started - 1, "")
        same_time = Process("worker-cpu", stranger.pid, started, "")
        services.save_state(home, State(workers={"cpu": same_id, "gpu": same_time}))
        assert not services.is_running(same_id, home)
        assert not services.is_running(same_time, home)
        assert services.stop(say=lambda line: None) == []
        assert stranger.poll() is None
        stranger.kill()


def test_stop_ends_processes_that_ignore_sigterm_and_their_children_in_other_sessions(home: Path) -> None:
    worker = _start(home, STUBBORN)
    _wait_for(lambda: len(services.marked_processes(home)) == 2)
    child = next(pid for pid in services.marked_processes(home) if pid != worker.pid)
    assert os.getsid(child) == child
    services.save_state(home, State(port=1234, workers={"cpu": worker}))
    time.sleep(0.3)  # until both have set their handlers
    assert services.stop(say=lambda line: None) == sorted([worker.pid, child])
    assert services.marked_processes(home) == []
    # The port stays, so that an exported address is right again after the next start.
    assert services.load_state(home) == State(port=1234)


def test_stop_finds_what_was_started_when_the_state_file_is_lost(home: Path) -> None:
    worker = _start(home)
    _wait_for(lambda: services.marked_processes(home) == [worker.pid])
    assert services.stop(say=lambda line: None) == [worker.pid]
    assert not services.is_running(worker, home)


def test_stop_leaves_the_processes_of_another_home_alone(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "home-2"
    process = _start(other)
    try:
        assert services.stop(say=lambda line: None) == []
        assert services.is_running(process, other)
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_a_server_that_dies_while_starting_is_reported_with_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]
    monkeypatch.setattr(services, "_server_command", lambda port: broken)
    with pytest.raises(ServiceFailed, match="no such table"):
        services.ensure_server(say=lambda line: None)


def test_waiting_for_a_server_says_how_long_and_gives_up_in_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_server_command", lambda port: [sys.executable, "-c", SLEEPER])
    monkeypatch.setattr(services, "START_TIMEOUT_S", 0.5)
    said: list[str] = []
    with pytest.raises(ServiceFailed, match="does not answer"):
        services.ensure_server(say=said.append)
    assert "starting the Prefect server" in said[0]


@pytest.fixture
def healthy_port() -> Iterator[int]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_server_that_the_user_names_is_reused_with_the_users_profile(
    home: Path, healthy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{healthy_port}/api")
    handle = services.ensure_server(say=lambda line: None)
    assert handle.api_url == f"http://127.0.0.1:{healthy_port}/api"
    assert handle.ui_url == f"http://127.0.0.1:{healthy_port}"
    assert "PREFECT_HOME" not in handle.environment
    assert handle.environment["DO_NOT_TRACK"] == "1"
    assert services.marked_processes(home) == []


def test_the_server_that_runs_already_is_reused(home: Path, healthy_port: int) -> None:
    process = _start(home, name="server")
    services.save_state(home, State(port=healthy_port, server=process))
    handle = services.ensure_server(say=lambda line: None)
    assert handle.api_url == f"http://127.0.0.1:{healthy_port}/api"
    assert handle.environment["PREFECT_HOME"] == str(home / "prefect")
    assert services.load_state(home).server == process


def test_a_port_is_kept_where_it_is_free_and_left_where_it_is_taken(healthy_port: int) -> None:
    free = services._free_port(None)
    assert services._free_port(free) == free
    assert services._free_port(healthy_port) != healthy_port
    assert not services.answers(services._api_url(free))


def test_workers_get_absolute_paths_because_flow_runs_work_in_temporary_folders(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coco").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELLTALE_COCO", "coco")
    monkeypatch.setenv("TELLTALE_THREADS", "2")
    settings = services.worker_settings()
    assert settings["TELLTALE_COCO"] == str(tmp_path / "coco")
    assert settings["TELLTALE_THREADS"] == "2"
    assert settings["TELLTALE_STORE"] == str(home / "store")
    monkeypatch.setenv("TELLTALE_STORE", "s3://bucket/telltale")
    assert services.worker_settings()["TELLTALE_STORE"] == "s3://bucket/telltale"
    monkeypatch.setenv("TELLTALE_STORE", "results")
    assert services.worker_settings()["TELLTALE_STORE"] == str(tmp_path / "results")


def test_the_server_tells_its_ui_where_the_api_is_and_sends_nothing_home(home: Path) -> None:
    environment = services._server_environment(4321)
    assert environment["PREFECT_UI_API_URL"] == "http://127.0.0.1:4321/api"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert json.loads(json.dumps(environment)) == environment
