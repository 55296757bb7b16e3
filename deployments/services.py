"""The services of a local telltale: a Prefect server, its database, its workers, a server of the store's reports.

Everything lives under one folder (`home_folder.py`): Prefect's database, the logs and the store. PostgreSQL may run as
another user, whose environment even root cannot always read: `database.py` knows its processes by its own means.

Nothing here imports Prefect: its settings are read on import, and the server's address is only known afterwards.
"""

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from deployments.database import (
    POSTGRES,
    SETTING,
    SQLITE,
    Database,
    OwnPostgres,
    postgres_account,
    postgres_environment,
    server_settings,
)
from deployments.home_folder import (
    State,
    home,
    is_there,
    load_state,
    locked,
    save_state,
    store_address,
    worker_settings,
)
from deployments.processes import (
    Process,
    Say,
    ServiceFailed,
    await_ready,
    end,
    free_port,
    is_free,
    is_running,
    living,
    marked_processes,
    parent,
    process_ids,
    start,
    start_time,
)
from storage.runs import REPORTS_SETTING
from storage.store import STORE_SETTING

REPORT_TIME_S = 3.0


@dataclass(frozen=True)
class ServerHandle:
    """A server that answers, and the environment of its clients: put it into `os.environ` before importing Prefect."""

    api_url: str
    ui_url: str
    environment: Mapping[str, str]


def ensure_server(say: Say = print, database: Database | None = None) -> ServerHandle:
    """Reuse the server that runs, or start one and wait until it answers.

    In this order: the server of `PREFECT_API_URL` if it answers, the one that was started here before, a new one
    on a free port (the previous one where possible, so that exported addresses stay right).

    Args:
        say: is told what takes time.
        database: where a new server keeps its runs; without it as the one before that was not stopped, else in SQLite.
            Our own PostgreSQL is started where the server needs it and it does not run.

    Raises:
        ServiceFailed: it did not answer in time; the message ends with the log.
        DatabaseFailed: our own PostgreSQL cannot be had here.
    """
    named = os.environ.get("PREFECT_API_URL")
    named_answers = bool(named and answers(named))
    if named and named_answers and named.rstrip("/") != _api_url(load_state(home()).port or 0):
        if database is not None:
            say(f"{SETTING} has no effect: PREFECT_API_URL names a server, which keeps its runs where it does")
        return _handle(named.rstrip("/"), own=False)
    with locked(home()):
        state = load_state(home())
        if state.server is not None and state.port is not None and is_running(state.server, home()):
            if database is not None and database.kind != state.kept_in:
                say(f"the server keeps its runs in {state.kept_in}: stop and serve again to change to {database.kind}")
            if state.kept_in == POSTGRES:
                _ensure_postgres(state, say, fixed_port=True)
            _await_server(state.server, state.port, say)
            return _handle(_api_url(state.port), own=True)
        if named and named_answers:
            return _handle(named.rstrip("/"), own=True)
        if named and (state.port is None or named.rstrip("/") != _api_url(state.port)):
            say(f"PREFECT_API_URL is {named}, which does not answer; starting a server of our own")
        database = database or _database_before(state, say)
        if database.kind == POSTGRES:
            _ensure_postgres(state, say)
        state.kept_in = database.kind
        kept = server_settings(database, OwnPostgres(home()), state.database_port, os.environ)

        def begin(port: int) -> Process:
            settings = {**_server_environment(port), **kept}
            state.port, state.server = port, start("server", _server_command(port), settings, home())
            save_state(home(), state)
            return state.server

        port = _begun_on_a_port(state.port, begin, lambda server, port: _await_server(server, port, say))
        return _handle(_api_url(port), own=True)


def running_server() -> ServerHandle | None:
    """The server that `ensure_server` would reuse, without starting one."""
    named, state = os.environ.get("PREFECT_API_URL"), load_state(home())
    own = None if state.port is None else _api_url(state.port)
    if named and named.rstrip("/") != own and answers(named):
        return _handle(named.rstrip("/"), own=False)
    return _handle(own, own=True) if own and answers(own) else None


def _begun_on_a_port(
    preferred: int | None, begin: Callable[[int], Process], wait: Callable[[Process, int], None]
) -> int:
    """Begin a program on a free port, if possible the preferred one, and wait until it answers; returns the port.

    Raises:
        ServiceFailed: it did not answer in time.
    """
    for attempt in (1, 2, 3):
        port = free_port(preferred if attempt == 1 else None)
        process = begin(port)
        try:
            wait(process, port)
        except ServiceFailed:
            # Between looking and binding another program may have taken the port.
            if attempt == 3 or is_running(process, home()) or is_free(port):
                raise
            continue
        return port
    raise AssertionError("unreachable")


def ensure_reports(handle: ServerHandle, say: Say = print) -> str | None:
    """Reuse the server of the store's runs, or start one and wait until it answers. Returns its address.

    An address that was set (`TELLTALE_REPORTS_URL`) is taken as it is, and nothing is started. None where one runs that
    serves another store.

    Raises:
        ServiceFailed: it did not answer in time; the message ends with its log.
    """
    if configured := os.environ.get(REPORTS_SETTING):
        return configured.rstrip("/")
    with locked(home()):
        state = load_state(home())
        if state.reports is not None and is_running(state.reports, home()):
            if state.reports_store != store_address():
                say("reports: those of another store are served; stop and serve again to change that")
                return None
            _await_reports(state.reports, state.reports_port or 0, say)
            return _reports_url(state.reports_port or 0)
        settings = {**os.environ, **handle.environment, **worker_settings()}

        def begin(port: int) -> Process:
            command = [sys.executable, "-m", "deployments.reports", str(port)]
            state.reports, state.reports_port = start("reports", command, settings, home()), port
            state.reports_store = store_address()
            save_state(home(), state)
            return state.reports

        port = _begun_on_a_port(state.reports_port, begin, lambda reports, port: _await_reports(reports, port, say))
        return _reports_url(port)


def _await_reports(reports: Process, port: int, say: Say) -> None:
    await_ready(
        lambda: _reports_answer(port),
        lambda: is_running(reports, home()),
        reports.log,
        say,
        name="the server of the reports",
        starting=f"starting the server of the reports on port {port}",
        not_ready="does not answer",
    )


def _reports_answer(port: int) -> bool:
    from deployments.reports import HEALTH, HEALTHY

    return _fetched(f"{_reports_url(port)}{HEALTH}") == HEALTHY


def _reports_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def start_worker(pool: str, limit: int, handle: ServerHandle, device: str | None = None) -> Process:
    """Start a process worker that runs at most `limit` flow runs of a pool at once.

    With `device` the worker, and so all that it runs, sees this GPU alone: flow runs inherit its environment.
    """
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    command += ["--name", worker_name(pool, device), "--limit", str(limit), "--install-policy", "never"]
    environment = {
        **os.environ,
        **handle.environment,
        **worker_settings(),
        "OMP_NUM_THREADS": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    }
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return start(f"worker-{pool}" if device is None else f"worker-{pool}-{device}", command, environment, home())


def worker_name(pool: str, device: str | None = None) -> str:
    """What Prefect calls a worker of this machine."""
    return f"{pool}-local" if device is None else f"{pool}-local-{device}"


def stop(say: Say = print) -> list[int]:
    """Stop all that was started here and all that it started: SIGTERM, then SIGKILL. Returns the ids that were stopped.

    Flow runs go first, then the workers, which report how the runs ended, then the server, then PostgreSQL.

    Raises:
        ServiceFailed: something is still there afterwards.
    """
    folder = home()
    if not is_there(str(folder)):
        return []
    with locked(folder):
        state = load_state(folder)
        server = {state.server.pid} if state.server is not None else set()
        workers = {process.pid for process in state.workers.values()}
        reports = {state.reports.pid} if state.reports is not None else set()
        database = _database_processes(state, folder)

        def marked(without: set[int]) -> list[int]:
            return [pid for pid in marked_processes(folder) if pid not in without and pid not in database]

        found = set(marked(set()))
        if runs := found - workers - server - reports:
            say(f"stopping {len(runs)} flow runs")
            end(lambda: marked(workers | server | reports))
            # Each worker now tells the server that its run has crashed.
            time.sleep(REPORT_TIME_S)
        if found & workers:
            say(f"stopping {len(found & workers)} workers")
            end(lambda: marked(server | reports))
        if found & server:
            say("stopping the Prefect server")
        end(lambda: marked(set()))
        if database:
            say("stopping PostgreSQL")
            _stop_postgres(database)
        left = sorted({*marked_processes(folder), *living(database)})
        if left:
            raise ServiceFailed(f"still running after SIGKILL: {left}")
        save_state(folder, replace(state, server=None, workers={}, worker_settings={}, database=None, reports=None))
        return sorted(found | set(database))


def answers(api_url: str, timeout: float = 3.0) -> bool:
    """Whether a healthy Prefect API answers at this address."""
    return (_fetched(f"{api_url.rstrip('/')}/health", timeout) or b"").strip() == b"true"


def _fetched(url: str, timeout: float = 3.0) -> bytes | None:
    """What is at an address, None where nothing answers; no proxy is asked for what is on this machine."""
    try:
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        with opener.open(url, timeout=timeout) as response:
            return bytes(response.read())
    except (OSError, ValueError):
        return None


def _await_server(server: Process, port: int, say: Say) -> None:
    await_ready(
        lambda: answers(_api_url(port)),
        lambda: is_running(server, home()),
        server.log,
        say,
        name="the Prefect server",
        starting=f"starting the Prefect server on port {port} (10 to 40 s)",
        not_ready="does not answer",
    )


def _database_before(state: State, say: Say) -> Database:
    """Where the server before kept its runs, if it was not stopped; else SQLite."""
    if state.server is None:
        if OwnPostgres(home()).exists:
            say(f"the runs are kept in SQLite; {SETTING}={POSTGRES} shows those that are in PostgreSQL")
        return Database(SQLITE)
    if state.kept_in in (SQLITE, POSTGRES):
        return Database(state.kept_in)
    raise ServiceFailed(
        f"the server that has ended kept its runs in {state.kept_in}: serve with {SETTING} and this address, "
        "with its password, or stop first"
    )


def _ensure_postgres(state: State, say: Say, fixed_port: bool = False) -> None:
    """Reuse our PostgreSQL, or start it and wait until it takes connections; `state` says afterwards where it listens.

    Args:
        state: of this home; it is saved where something was started.
        say: is told what takes time.
        fixed_port: a server runs that knows PostgreSQL by its port, which must therefore stay.
    """
    own = OwnPostgres(home())
    for attempt in (1, 2, 3):
        if running := own.postmaster():
            # A lost `services.json` must not lose it.
            log = str(home() / "logs" / "database.log")
            state.database = Process("database", running.pid, start_time(running.pid) or 0, log)
            state.database_port = running.port
        else:
            _start_postgres(own, state, say, state.database_port if attempt == 1 or fixed_port else None, fixed_port)
        assert state.database is not None
        try:
            _await_postgres(own, state.database, say)
        except ServiceFailed:
            # Another program may have taken the port, or what a killed predecessor left is still ending.
            if attempt == 3 or living({state.database.pid: state.database.started}):
                raise
            time.sleep(1.0)
            continue
        save_state(home(), state)
        return


def _start_postgres(own: OwnPostgres, state: State, say: Say, preferred: int | None, fixed_port: bool) -> None:
    account = postgres_account(os.geteuid())
    if not own.exists:
        say(f"making a PostgreSQL in {own.folder}")
    own.prepare(account)
    port = free_port(preferred)
    if fixed_port and port != preferred:
        raise ServiceFailed(
            f"PostgreSQL has ended, and its port {preferred}, where the Prefect server looks for it, "
            "is taken by another program: stop and serve again"
        )
    state.database = start("database", own.command(port), postgres_environment(), home(), account)
    state.database_port = port
    save_state(home(), state)


def _await_postgres(own: OwnPostgres, process: Process, say: Say) -> None:
    def ready() -> bool:
        running = own.postmaster()
        return running is not None and running.pid == process.pid and running.ready

    await_ready(
        ready,
        lambda: bool(living({process.pid: process.started})),
        process.log,
        say,
        name="PostgreSQL",
        starting="starting PostgreSQL",
        not_ready="is not ready",
    )


def _stop_postgres(processes: Mapping[int, int]) -> None:
    """End PostgreSQL as it wants it: only its first process is told, and it ends the others."""
    first = next(iter(processes))
    # A fast shutdown, which waits for no client; then an immediate one, after which the next start repairs.
    end(lambda: living({first: processes[first]}), (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
    end(lambda: living(processes))


def _database_processes(state: State, folder: Path) -> dict[int, int]:
    """Process ids and start times of our PostgreSQL: first the one that leads, then its children; empty without one."""
    if running := OwnPostgres(folder).postmaster():
        first = running.pid
    elif state.database is not None and living({state.database.pid: state.database.started}):
        first = state.database.pid
    else:
        return {}
    ids = [first, *(pid for pid in process_ids() if parent(pid) == first)]
    return {pid: started for pid in ids if (started := start_time(pid)) is not None}


def _handle(api_url: str, own: bool) -> ServerHandle:
    return ServerHandle(api_url, api_url.removesuffix("/api"), _client_environment(api_url, own))


def _api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def _client_environment(api_url: str, own: bool) -> dict[str, str]:
    # A server that the user named keeps the user's profile, which may hold its key.
    apart = {"PREFECT_HOME": str(home() / "prefect"), "PREFECT_PROFILE": "ephemeral"} if own else {}
    return {
        **apart,
        "PREFECT_API_URL": api_url,
        STORE_SETTING: store_address(),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"])),
    }


def _server_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _server_environment(port: int) -> dict[str, str]:
    return {
        **os.environ,
        **_client_environment(_api_url(port), own=True),
        # Without it the UI calls the default port.
        "PREFECT_UI_API_URL": _api_url(port),
        "PREFECT_UI_STATIC_DIRECTORY": str(home() / "prefect" / "ui"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Workers report every ten seconds. On a busy machine reports are late: 90 s without one, as is Prefect's own
        # measure, make a worker offline, not 30.
        "PREFECT_SERVER_SERVICES_FOREMAN_INACTIVITY_HEARTBEAT_MULTIPLE": "9",
        # A run that is being cancelled and whose process is gone is waited for: a process gets 30 s to end.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "60",
        # In memory, a restart of the server would forget who holds the deployments' slots, and end their runs.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
