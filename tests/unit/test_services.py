"""Processes of a local telltale: found again, never confused with others, and gone after `stop`."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments import home_folder, processes, services
from deployments.database import Database, OwnPostgres
from deployments.home_folder import State
from deployments.processes import Process, ServiceFailed
from storage.errors import SpecError

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
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 1.0)
    monkeypatch.setattr(services, "REPORT_TIME_S", 0.0)
    yield folder
    for pid in processes.marked_processes(folder):
        os.kill(pid, signal.SIGKILL)
    for child in processes._children.values():
        child.wait(timeout=10)
    processes._children.clear()


def _start(folder: Path, code: str = SLEEPER, name: str = "worker-cpu") -> Process:
    return processes.start(name, [sys.executable, "-c", code], dict(os.environ), folder)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_state_comes_back_as_it_was_written_and_a_broken_file_counts_as_none(home: Path) -> None:
    process = Process("server", 12, 345, "/log")
    state = State(4200, process, {"cpu": process}, {"TELLTALE_COCO": "/coco"}, "abc", "off")
    home_folder.save_state(home, state)
    assert home_folder.load_state(home) == state
    state = State(4200, process, kept_in="postgres", database=process, database_port=5000)
    state = replace(state, reports=process, reports_port=5001, reports_store="s3://bucket/store")
    home_folder.save_state(home, state)
    assert home_folder.load_state(home) == state
    (home / "services.json").write_text('{"port": 1', encoding="utf-8")
    assert home_folder.load_state(home) == State()
    (home / "services.json").write_text("[]", encoding="utf-8")
    assert home_folder.load_state(home) == State()


def test_a_process_runs_until_it_is_killed_and_a_zombie_does_not_run(home: Path) -> None:
    process = _start(home)
    assert processes.is_running(process, home)
    os.kill(process.pid, signal.SIGKILL)
    _wait_for(lambda: not processes.is_running(process, home))


def test_a_process_that_got_a_recycled_id_is_neither_taken_for_ours_nor_stopped(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as stranger:
        started = processes.start_time(stranger.pid)
        assert started is not None
        same_id = Process("worker-cpu", stranger.pid, started - 1, "")
        same_time = Process("worker-cpu", stranger.pid, started, "")
        home_folder.save_state(home, State(workers={"cpu": same_id, "gpu": same_time}))
        assert not processes.is_running(same_id, home)
        assert not processes.is_running(same_time, home)
        assert services.stop(say=lambda line: None) == []
        assert stranger.poll() is None
        stranger.kill()


def test_stop_ends_processes_that_ignore_sigterm_and_their_children_in_other_sessions(home: Path) -> None:
    worker = _start(home, STUBBORN)
    _wait_for(lambda: len(processes.marked_processes(home)) == 2)
    child = next(pid for pid in processes.marked_processes(home) if pid != worker.pid)
    _wait_for(lambda: os.getsid(child) == child)
    home_folder.save_state(home, State(port=1234, workers={"cpu": worker}))
    time.sleep(0.3)  # until both have set their handlers
    assert services.stop(say=lambda line: None) == sorted([worker.pid, child])
    assert processes.marked_processes(home) == []
    # The port stays, so that an exported address is right again after the next start.
    assert home_folder.load_state(home) == State(port=1234)


def test_stop_finds_what_was_started_when_the_state_file_is_lost(home: Path) -> None:
    worker = _start(home)
    _wait_for(lambda: processes.marked_processes(home) == [worker.pid])
    assert services.stop(say=lambda line: None) == [worker.pid]
    assert not processes.is_running(worker, home)


def test_stop_leaves_the_processes_of_another_home_alone(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "home-2"
    process = _start(other)
    try:
        assert services.stop(say=lambda line: None) == []
        assert processes.is_running(process, other)
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_a_server_that_dies_while_starting_is_reported_with_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]
    monkeypatch.setattr(services, "_server_command", lambda port: broken)
    with pytest.raises(ServiceFailed, match="no such table"):
        services.ensure_server(say=lambda line: None)


def test_a_python_program_that_ended_is_reported_by_its_last_error_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys\n"
        "try:\n    raise ValueError('the first')\n"
        "except ValueError as error:\n"
        "    import traceback\n    traceback.print_exc()\n"
        "    try:\n        raise ConnectionRefusedError(111, 'Connect call failed') from error\n"
        "    except OSError:\n        traceback.print_exc()\n"
        "print('ERROR:    Application startup failed. Exiting.', file=sys.stderr)\nraise SystemExit(3)"
    )
    monkeypatch.setattr(services, "_server_command", lambda port: [sys.executable, "-c", program])
    with pytest.raises(ServiceFailed) as failed:
        services.ensure_server(say=lambda line: None)
    assert str(failed.value) == (
        "the Prefect server ended while starting: ConnectionRefusedError: [Errno 111] Connect call failed "
        f"(its log is {home}/logs/server.log)"
    )


def test_waiting_for_a_server_says_how_long_and_gives_up_in_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_server_command", lambda port: [sys.executable, "-c", SLEEPER])
    monkeypatch.setattr(processes, "START_TIMEOUT_S", 0.5)
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
    assert processes.marked_processes(home) == []


def test_the_server_that_runs_already_is_reused(home: Path, healthy_port: int) -> None:
    process = _start(home, name="server")
    home_folder.save_state(home, State(port=healthy_port, server=process))
    handle = services.ensure_server(say=lambda line: None)
    assert handle.api_url == f"http://127.0.0.1:{healthy_port}/api"
    assert handle.environment["PREFECT_HOME"] == str(home / "prefect")
    assert home_folder.load_state(home).server == process


def test_a_port_is_kept_where_it_is_free_and_left_where_it_is_taken(healthy_port: int) -> None:
    free = processes.free_port(None)
    assert processes.free_port(free) == free
    assert processes.free_port(healthy_port) != healthy_port
    assert not services.answers(services._api_url(free))


def test_workers_get_absolute_paths_because_flow_runs_work_in_temporary_folders(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coco").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELLTALE_COCO", "coco")
    monkeypatch.setenv("TELLTALE_THREADS", "2")
    settings = home_folder.worker_settings()
    assert settings["TELLTALE_COCO"] == str(tmp_path / "coco")
    assert settings["TELLTALE_THREADS"] == "2"
    assert settings["TELLTALE_STORE"] == str(home / "store")
    monkeypatch.setenv("TELLTALE_STORE", "s3://bucket/telltale")
    assert home_folder.worker_settings()["TELLTALE_STORE"] == "s3://bucket/telltale"
    monkeypatch.setenv("TELLTALE_STORE", "results")
    assert home_folder.worker_settings()["TELLTALE_STORE"] == str(tmp_path / "results")


def test_the_server_tells_its_ui_where_the_api_is_and_sends_nothing_home(home: Path) -> None:
    environment = services._server_environment(4321)
    assert environment["PREFECT_UI_API_URL"] == "http://127.0.0.1:4321/api"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert json.loads(json.dumps(environment)) == environment


# PostgreSQL, by a stand-in that keeps its promises: the file about itself, a child, an end in order on SIGINT.

STAND_IN = f"""#!{sys.executable}
import os, pathlib, signal, subprocess, sys, time
if "--version" in sys.argv:
    print("postgres (PostgreSQL) 15.1")
    raise SystemExit
if "--pgdata" in sys.argv:
    data = pathlib.Path(sys.argv[sys.argv.index("--pgdata") + 1])
    data.mkdir()
    (data / "PG_VERSION").write_text("15\\n")
    raise SystemExit
data = pathlib.Path(sys.argv[sys.argv.index("-D") + 1])
if (data / "broken").exists():
    print("could not map the memory")
    raise SystemExit(1)
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
child = subprocess.Popen([sys.executable, "-c", stubborn])
def told(number, frame):
    (data / "told").write_text(signal.Signals(number).name)
    child.kill()
    child.wait()
    (data / "postmaster.pid").unlink()
    raise SystemExit
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, told)
port = next(word for word in sys.argv if word.startswith("port="))[5:]
(data / "postmaster.pid").write_text(f"{{os.getpid()}}\\n{{data}}\\n1\\n{{port}}\\n\\n127.0.0.1\\n1 2\\nready\\n")
time.sleep(60)
"""


@pytest.fixture
def own_postgres(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnPostgres:
    """A PostgreSQL of this home, not started yet."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("initdb", "postgres"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(services, "postgres_account", lambda uid: None)
    return OwnPostgres(home)


def _serve_postgres() -> State:
    state = home_folder.load_state(home_folder.home())
    services._ensure_postgres(state, lambda line: None)
    return home_folder.load_state(home_folder.home())


def test_postgres_is_made_once_started_once_and_found_again(home: Path, own_postgres: OwnPostgres) -> None:
    first = _serve_postgres()
    assert first.database is not None
    assert own_postgres.data.is_dir()
    assert (own_postgres.folder / "password").stat().st_mode & 0o777 == 0o600
    password = (own_postgres.folder / "password").read_text()
    assert _serve_postgres() == first
    # Without the file that says what was started it is still known.
    (home / "services.json").unlink()
    again = _serve_postgres()
    assert (again.database, again.database_port) == (first.database, first.database_port)
    os.kill(first.database.pid, signal.SIGKILL)
    _wait_for(lambda: own_postgres.postmaster() is None)
    restarted = _serve_postgres()
    assert restarted.database != first.database
    assert restarted.database_port == first.database_port
    assert (own_postgres.folder / "password").read_text() == password


def test_stop_ends_postgres_last_and_tells_only_its_first_process(home: Path, own_postgres: OwnPostgres) -> None:
    state = _serve_postgres()
    assert state.database is not None
    _wait_for(lambda: len(services._database_processes(state, home)) == 2)
    ours = services._database_processes(state, home)
    assert next(iter(ours)) == state.database.pid
    worker = _start(home)
    state.workers["cpu"] = worker
    home_folder.save_state(home, state)
    said: list[str] = []
    assert services.stop(say=said.append) == sorted([worker.pid, *ours])
    assert said == ["stopping 1 workers", "stopping PostgreSQL"]
    assert (own_postgres.data / "told").read_text() == "SIGINT"
    assert processes.living(ours) == []
    assert home_folder.load_state(home).database is None
    assert home_folder.load_state(home).database_port == state.database_port
    assert services.stop(say=said.append) == []


def test_a_postgres_that_does_not_start_is_reported_with_its_log(
    home: Path, own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_postgres.prepare(None)
    (own_postgres.data / "broken").touch()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(ServiceFailed, match="could not map the memory"):
        _serve_postgres()


def test_data_that_were_made_by_halves_are_made_again(home: Path, own_postgres: OwnPostgres) -> None:
    (own_postgres.folder / "data.new").mkdir(parents=True)
    (own_postgres.folder / "password").write_text("old")
    own_postgres.prepare(None)
    assert own_postgres.exists
    assert (own_postgres.folder / "password").read_text() != "old"


def test_a_server_that_runs_keeps_the_port_of_its_postgres(
    home: Path, own_postgres: OwnPostgres, healthy_port: int
) -> None:
    """Where it looks for PostgreSQL, another program listens now."""
    own_postgres.prepare(None)
    server = _start(home, name="server")
    home_folder.save_state(home, State(port=1, server=server, kept_in="postgres", database_port=healthy_port))
    with pytest.raises(ServiceFailed, match=f"its port {healthy_port}, .* is taken by another program"):
        services.ensure_server(say=lambda line: None)


def test_another_database_than_the_running_servers_is_told(home: Path, healthy_port: int) -> None:
    home_folder.save_state(home, State(port=healthy_port, server=_start(home, name="server")))
    said: list[str] = []
    services.ensure_server(said.append, Database("postgres"))
    assert said == ["the server keeps its runs in sqlite: stop and serve again to change to postgres"]


def test_a_server_that_the_user_names_keeps_its_database(
    home: Path, healthy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{healthy_port}/api")
    said: list[str] = []
    services.ensure_server(said.append, Database("postgres"))
    assert said == ["DATABASE has no effect: PREFECT_API_URL names a server, which keeps its runs where it does"]
    assert not (home / "postgres").exists()


def test_without_a_word_a_server_keeps_its_runs_where_the_one_before_did(home: Path) -> None:
    ended = Process("server", 1, 1, "")
    said: list[str] = []
    assert services._database_before(State(), said.append) == Database("sqlite")
    assert services._database_before(State(server=ended, kept_in="postgres"), said.append) == Database("postgres")
    with pytest.raises(ServiceFailed, match=r"kept its runs in postgresql.*serve with DATABASE and this address"):
        services._database_before(State(server=ended, kept_in="postgresql+asyncpg://me@host/runs"), said.append)
    assert said == []
    OwnPostgres(home).data.mkdir(parents=True)
    (OwnPostgres(home).data / "PG_VERSION").write_text("15\n")
    assert services._database_before(State(kept_in="postgres"), said.append) == Database("sqlite")
    assert "DATABASE=postgres shows those" in said[0]


@pytest.mark.parametrize("asked", [None, Database("sqlite")])
def test_a_server_on_sqlite_waits_for_its_one_writer(
    home: Path, asked: Database | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_server_command", lambda port: [sys.executable, "-c", SLEEPER])
    monkeypatch.setattr(processes, "START_TIMEOUT_S", 0.5)
    with pytest.raises(ServiceFailed, match="does not answer"):
        services.ensure_server(lambda line: None, asked)
    server = home_folder.load_state(home).server
    assert server is not None
    words = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    assert "PREFECT_SERVER_DATABASE_TIMEOUT=60" in words
    assert not [word for word in words if word.startswith("PREFECT_SERVER_DATABASE_CONNECTION_URL=")]
    assert home_folder.load_state(home).kept_in == "sqlite"


@pytest.mark.parametrize("name", ["a?b%20c#d \u00e9", "a\udcff", "a=b;c"])
def test_a_home_of_any_name_is_found_again_in_the_processes_that_carry_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    monkeypatch.setenv("TELLTALE_HOME", str(folder))
    assert home_folder.home() == folder.resolve()
    with home_folder.locked(folder):
        process = _start(folder)
        home_folder.save_state(folder, State(workers={"cpu": process}))
    _wait_for(lambda: processes.marked_processes(folder) == [process.pid])
    assert home_folder.load_state(folder).workers == {"cpu": process}
    assert services.stop(say=lambda line: None) == [process.pid]
    assert processes.marked_processes(folder) == []


def test_the_store_that_services_get_is_a_path_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_HOME", str(tmp_path / "a?b%20c"))
    for configured, found in {
        "": f"{tmp_path.resolve()}/a?b%20c/store",
        f"{tmp_path}/x?y%20z#": f"{tmp_path.resolve()}/x?y%20z#",
        f"file://{tmp_path}/x%3Fy%20z": f"{tmp_path.resolve()}/x?y z",
        "s3://bucket/a%20b": "s3://bucket/a%20b",
    }.items():
        monkeypatch.setenv("TELLTALE_STORE", configured)
        assert home_folder.worker_settings()["TELLTALE_STORE"] == found


def test_a_state_that_cannot_be_read_counts_as_none(home: Path) -> None:
    (home / "services.json").mkdir()
    assert home_folder.load_state(home) == State()


@pytest.mark.parametrize("address", ["http://[", "http://[::1", "nonsense", "", "http://127.0.0.1:99999/api"])
def test_what_is_no_address_does_not_answer(address: str) -> None:
    assert not services.answers(address)


NO_HANDLE = services.ServerHandle("http://127.0.0.1:1/api", "http://127.0.0.1:1", {})


def _read(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return bytes(answer.read())


def test_reports_are_served_from_the_store_found_again_and_stopped(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TELLTALE_REPORTS_URL", raising=False)
    report = home / "store" / "runs" / "evaluate" / "sample-1" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_bytes(b"a report")
    said: list[str] = []
    url = services.ensure_reports(NO_HANDLE, said.append)
    assert _read(f"{url}/runs/evaluate/sample-1/report.html") == b"a report"
    process = home_folder.load_state(home).reports
    assert process is not None
    assert services.ensure_reports(NO_HANDLE, said.append) == url
    assert home_folder.load_state(home).reports == process
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "other"))
    assert services.ensure_reports(NO_HANDLE, said.append) is None
    assert "another store" in said[-1]
    monkeypatch.delenv("TELLTALE_STORE")
    # Killed, it is started again where links in the UI lead to.
    os.kill(process.pid, signal.SIGKILL)
    _wait_for(lambda: not processes.is_running(process, home))
    # A process that ends loses its memory, by which it is known, a moment before its port.
    port = home_folder.load_state(home).reports_port
    assert port is not None
    _wait_for(lambda: processes.is_free(port))
    assert services.ensure_reports(NO_HANDLE, said.append) == url
    again = home_folder.load_state(home).reports
    assert again is not None
    said.clear()
    assert services.stop(said.append) == [again.pid]
    assert not any("flow runs" in line for line in said)
    state = home_folder.load_state(home)
    assert (state.reports, f"http://127.0.0.1:{state.reports_port}") == (None, url)


def test_reports_that_others_serve_are_linked_to_as_they_say(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_REPORTS_URL", "https://reports.example/store/")
    assert services.ensure_reports(NO_HANDLE) == "https://reports.example/store"
    assert home_folder.load_state(home) == State()
    home_folder.check_settings()
    assert home_folder.worker_settings()["TELLTALE_REPORTS_URL"] == "https://reports.example/store/"
    monkeypatch.setenv("TELLTALE_REPORTS_URL", "javascript:alert(1)")
    with pytest.raises(SpecError, match="TELLTALE_REPORTS_URL: expected an address"):
        home_folder.check_settings()
