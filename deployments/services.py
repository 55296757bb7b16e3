"""The processes of a local telltale: a Prefect server, its database, its workers, a server of the store's reports.

Everything lives under one folder, `TELLTALE_HOME` (default `.telltale` of the working directory): Prefect's database,
the logs, the store, and `services.json`, which says what was started. Each process carries that folder's path in its
environment (`TELLTALE_SERVICES`), and so does all that it starts. Therefore `stop` finds the flow runs too, which a
process worker puts into sessions of their own, and never touches a process that merely got a recycled id. PostgreSQL
may run as another user, whose environment even root cannot always read: `database.py` knows it by its own means.

Nothing here imports Prefect: its settings are read on import, and the server's address is only known afterwards.
"""

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from deployments.database import (
    POSTGRES,
    SETTING,
    SQLITE,
    Account,
    Database,
    OwnPostgres,
    postgres_account,
    postgres_environment,
    server_settings,
)
from storage.credentials import BLOCK_SETTING
from storage.errors import SpecError, TelltaleError
from storage.opening import local_folder, open_store
from storage.paths import absolute, with_home
from storage.runs import REPORTS_SETTING
from storage.store import STORE_SETTING
from tasks.app_files import APP_SETTING
from tasks.cache import CACHE_SETTING, cache_folder
from tasks.device import PRICE_SETTING, hourly_price
from tasks.threads import THREADS_SETTING, parallel_tasks

HOME_SETTING = "TELLTALE_HOME"
MARK = "TELLTALE_SERVICES"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
REPORT_TIME_S = 3.0
SAY_EVERY_S = 3.0
# Below those that systems give to connections by themselves (Linux from 32768, others from 49152).
PORTS = range(20_000, 32_000)

# Values that no path is meant by, even where a file has that name.
NO_PATHS = (BLOCK_SETTING, PRICE_SETTING, REPORTS_SETTING, STORE_SETTING, THREADS_SETTING)
MADE_PATHS = (APP_SETTING, CACHE_SETTING)

WRONG_SETTING = 3
PREFECT_SETTINGS = f"""
import json, pydantic
try:
    import prefect.main
except pydantic.ValidationError as error:
    wrong = error.errors()[0]
    print(json.dumps([error.title, "_".join(map(str, wrong["loc"])), wrong["msg"]]))
    raise SystemExit({WRONG_SETTING}) from None
"""

Say = Callable[[str], None]


class ServiceFailed(TelltaleError):
    """A server, worker or database did not start, or did not stop."""


@dataclass(frozen=True)
class Process:
    """A process that was started here; `started` is its start time in clock ticks since boot (proc(5), field 22)."""

    name: str
    pid: int
    started: int
    log: str


@dataclass
class State:
    """What `services.json` says: which processes were started, where the server listens, what was deployed on it.

    `kept_in` is where the server that was started last keeps its runs, as it may be shown (`Database.kind`).
    """

    port: int | None = None
    server: Process | None = None
    workers: dict[str, Process] = field(default_factory=dict)
    worker_settings: dict[str, str] = field(default_factory=dict)
    deployed: str | None = None
    schedules: str | None = None
    kept_in: str = SQLITE
    database: Process | None = None
    database_port: int | None = None
    reports: Process | None = None
    reports_port: int | None = None
    reports_store: str | None = None


@dataclass(frozen=True)
class ServerHandle:
    """A server that answers, and the environment of its clients: put it into `os.environ` before importing Prefect."""

    api_url: str
    ui_url: str
    environment: Mapping[str, str]


def home() -> Path:
    """The absolute path of the folder in which everything lives."""
    return absolute(os.environ.get(HOME_SETTING) or ".telltale")


def check_settings() -> None:
    """Refuse settings that would otherwise fail in a worker, or after minutes.

    Raises:
        SpecError: the store, the folder of the cache, the tasks at once, the price of a GPU hour, the address of the
            reports, or a setting of Prefect's is none.
        StoreRefused: the store cannot be there.
    """
    if os.environ.get(STORE_SETTING):
        open_store(_store())
    parallel_tasks()
    hourly_price("cuda")
    cache_folder()
    reports = os.environ.get(REPORTS_SETTING)
    if reports and not re.match(r"https?://[^/]", reports):
        raise SpecError(f"{REPORTS_SETTING}: expected an address such as http://host:8000, got {reports!r}")
    _check_prefect()


def _check_prefect() -> None:
    """Let Prefect read its settings in a process of its own; not where none is set, because that takes a second."""
    settings = [name for name in os.environ if name.startswith("PREFECT_") and name != "PREFECT_API_URL"]
    if not settings:
        return
    command = [sys.executable, "-c", PREFECT_SETTINGS]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == WRONG_SETTING:
        section, name, reason = json.loads(done.stdout.splitlines()[-1])
        # Not its value, which may be a secret. A setting that no variable has comes from a profile.
        named = sorted((each for each in settings if each.endswith(name.upper())), key=len)
        raise SpecError(f"{named[0] if named else f'Prefect, {section}, {name}'}: {reason}")


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
        for attempt in (1, 2, 3):
            state.port = _free_port(state.port if attempt == 1 else None)
            settings = {**_server_environment(state.port), **kept}
            state.server = _start("server", _server_command(state.port), settings, home())
            save_state(home(), state)
            try:
                _await_server(state.server, state.port, say)
            except ServiceFailed:
                # Between looking and binding another program may have taken the port.
                if attempt == 3 or is_running(state.server, home()) or _is_free(state.port):
                    raise
                continue
            return _handle(_api_url(state.port), own=True)
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
            if state.reports_store != _store():
                say("reports: those of another store are served; stop and serve again to change that")
                return None
            _await_reports(state.reports, state.reports_port or 0, say)
            return _reports_url(state.reports_port or 0)
        settings = {**os.environ, **handle.environment, **worker_settings()}
        for attempt in (1, 2, 3):
            port = _free_port(state.reports_port if attempt == 1 else None)
            command = [sys.executable, "-m", "deployments.reports", str(port)]
            state.reports, state.reports_port = _start("reports", command, settings, home()), port
            state.reports_store = _store()
            save_state(home(), state)
            try:
                _await_reports(state.reports, port, say)
            except ServiceFailed:
                # Between looking and binding another program may have taken the port.
                if attempt == 3 or is_running(state.reports, home()) or _is_free(port):
                    raise
                continue
            return _reports_url(port)
    raise AssertionError("unreachable")


def _await_reports(reports: Process, port: int, say: Say) -> None:
    _await(
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

    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{_reports_url(port)}{HEALTH}", timeout=3.0) as response:
            return bool(response.read() == HEALTHY)
    except (OSError, ValueError):
        return False


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
    return _start(f"worker-{pool}" if device is None else f"worker-{pool}-{device}", command, environment, home())


def worker_name(pool: str, device: str | None = None) -> str:
    """What Prefect calls a worker of this machine."""
    return f"{pool}-local" if device is None else f"{pool}-local-{device}"


def worker_settings() -> dict[str, str]:
    """The `TELLTALE_*` settings as workers get them: flow runs work in temporary folders, so paths become absolute."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("TELLTALE_") and name != MARK}
    # What is there is a path. Folders that are only going to be made are known by their settings' names.
    paths = {
        name: str(absolute(value))
        for name, value in settings.items()
        if value and name not in NO_PATHS and (name in MADE_PATHS or _is_there(with_home(value)))
    }
    return {**settings, **paths, HOME_SETTING: str(home()), STORE_SETTING: _store()}


def _is_there(path: str) -> bool:
    # Unlike `Path.exists`, without an error for a value that is too long for a path.
    return os.access(path, os.F_OK)


def stop(say: Say = print) -> list[int]:
    """Stop all that was started here and all that it started: SIGTERM, then SIGKILL. Returns the ids that were stopped.

    Flow runs go first, then the workers, which report how the runs ended, then the server, then PostgreSQL.

    Raises:
        ServiceFailed: something is still there afterwards.
    """
    folder = home()
    if not _is_there(str(folder)):
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
            _end(lambda: marked(workers | server | reports))
            # Each worker now tells the server that its run has crashed.
            time.sleep(REPORT_TIME_S)
        if found & workers:
            say(f"stopping {len(found & workers)} workers")
            _end(lambda: marked(server | reports))
        if found & server:
            say("stopping the Prefect server")
        _end(lambda: marked(set()))
        if database:
            say("stopping PostgreSQL")
            _stop_postgres(database)
        left = sorted({*marked_processes(folder), *_living(database)})
        if left:
            raise ServiceFailed(f"still running after SIGKILL: {left}")
        save_state(folder, replace(state, server=None, workers={}, worker_settings={}, database=None, reports=None))
        return sorted(found | set(database))


def is_running(process: Process, folder: Path) -> bool:
    """Whether this very process still runs: same id, same start time, our mark, and not just a zombie."""
    if _start_time(process.pid) != process.started:
        return False
    # In the first moments of a program its environment cannot be read yet; our own children need no mark.
    return process.pid in _children or _carries_mark(process.pid, folder)


def marked_processes(folder: Path) -> list[int]:
    """Ids of all living processes that were started from a home folder, directly or not, without this one."""
    return [
        pid
        for pid in _process_ids()
        if pid != os.getpid() and _carries_mark(pid, folder) and _start_time(pid) is not None
    ]


def answers(api_url: str, timeout: float = 3.0) -> bool:
    """Whether a healthy Prefect API answers at this address."""
    try:
        local = urlsplit(api_url).hostname in ("127.0.0.1", "localhost", "::1")
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        with opener.open(f"{api_url.rstrip('/')}/health", timeout=timeout) as response:
            return bool(response.read().strip() == b"true")
    except (OSError, ValueError):
        return False


def load_state(folder: Path) -> State:
    """What was started from this home folder; an empty state where nothing was, or the file is not readable."""
    try:
        document = json.loads((folder / "services.json").read_text(encoding="utf-8"))
        server = Process(**document["server"]) if document["server"] else None
        workers = {pool: Process(**process) for pool, process in document["workers"].items()}
        database = Process(**document["database"]) if document.get("database") else None
        reports = Process(**document["reports"]) if document.get("reports") else None
        return State(**{**document, "server": server, "workers": workers, "database": database, "reports": reports})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return State()


def save_state(folder: Path, state: State) -> None:
    """Write `services.json` in one move, so that a reader never sees half of it; `ServiceFailed` where it cannot be."""
    fresh = folder / "services.json.new"
    try:
        fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        fresh.replace(folder / "services.json")
    except OSError as error:
        # The system names no file where a disk is full.
        raise ServiceFailed(f"{HOME_SETTING}: cannot write to {folder}: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One start or stop at a time per home folder, which is made; a second caller waits.

    Raises:
        SpecError: the folder cannot be made or takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "services.lock").open("w")
    except OSError as error:
        raise SpecError(
            f"{HOME_SETTING}: {folder} cannot be used as a folder of our own ({error.strerror}): set it to another one"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tail(log: str, lines: int = 15) -> str:
    """The last lines of a log, or a remark that there are none."""
    try:
        return "\n".join(Path(log).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) or "(empty log)"
    except OSError:
        return "(no log)"


def last_error(log: str) -> str | None:
    """The exception with which a Python program's log ends, on one line; None where it ends otherwise."""
    lines = tail(log, 40).splitlines()
    found = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    if not found or not any(line.startswith("  File ") for line in lines[: found[-1]]):
        return None
    return lines[found[-1]].strip()


_children: dict[int, subprocess.Popen[bytes]] = {}


def _start(
    name: str, command: list[str], environment: dict[str, str], folder: Path, account: Account | None = None
) -> Process:
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # A session of its own: no Ctrl-C of the terminal reaches it. Python starts it, because a process that a shell
        # starts in the background ignores signals.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, MARK: str(folder)},
            start_new_session=True,
            # Another user may not enter the folder that we are in.
            cwd="/" if account else None,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=account.groups if account else None,
        )
    _children[child.pid] = child
    return Process(name, child.pid, _start_time(child.pid) or 0, str(log))


def _await_server(server: Process, port: int, say: Say) -> None:
    _await(
        lambda: answers(_api_url(port)),
        lambda: is_running(server, home()),
        server.log,
        say,
        name="the Prefect server",
        starting=f"starting the Prefect server on port {port} (10 to 40 s)",
        not_ready="does not answer",
    )


def _await(
    ready: Callable[[], bool],
    living: Callable[[], bool],
    log: str,
    say: Say,
    *,
    name: str,
    starting: str,
    not_ready: str,
) -> None:
    """Wait until a program is ready, saying so all the while; `ServiceFailed` with its log where it never is."""
    begin = said = time.monotonic()
    while not ready():
        now = time.monotonic()
        if not living():
            if reason := last_error(log):
                raise ServiceFailed(f"{name} ended while starting: {reason} (its log is {log})")
            raise ServiceFailed(f"{name} ended while starting; its log says:\n{tail(log)}")
        if now - begin > START_TIMEOUT_S:
            waited = f"{START_TIMEOUT_S:.0f} s"
            raise ServiceFailed(f"{name} {not_ready} after {waited}; its log says:\n{tail(log)}")
        if said == begin or now - said >= SAY_EVERY_S:
            say(f"{starting} ... {now - begin:.0f} s")
            said = now
        time.sleep(0.1)


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
            state.database = Process("database", running.pid, _start_time(running.pid) or 0, log)
            state.database_port = running.port
        else:
            _start_postgres(own, state, say, state.database_port if attempt == 1 or fixed_port else None, fixed_port)
        assert state.database is not None
        try:
            _await_postgres(own, state.database, say)
        except ServiceFailed:
            # Another program may have taken the port, or what a killed predecessor left is still ending.
            if attempt == 3 or _living({state.database.pid: state.database.started}):
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
    port = _free_port(preferred)
    if fixed_port and port != preferred:
        raise ServiceFailed(
            f"PostgreSQL has ended, and its port {preferred}, where the Prefect server looks for it, "
            "is taken by another program: stop and serve again"
        )
    state.database = _start("database", own.command(port), postgres_environment(), home(), account)
    state.database_port = port
    save_state(home(), state)


def _await_postgres(own: OwnPostgres, process: Process, say: Say) -> None:
    def ready() -> bool:
        running = own.postmaster()
        return running is not None and running.pid == process.pid and running.ready

    _await(
        ready,
        lambda: bool(_living({process.pid: process.started})),
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
    _end(lambda: _living({first: processes[first]}), (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
    _end(lambda: _living(processes))


def _database_processes(state: State, folder: Path) -> dict[int, int]:
    """Process ids and start times of our PostgreSQL: first the one that leads, then its children; empty without one."""
    if running := OwnPostgres(folder).postmaster():
        first = running.pid
    elif state.database is not None and _living({state.database.pid: state.database.started}):
        first = state.database.pid
    else:
        return {}
    ids = [first, *(pid for pid in _process_ids() if _parent(pid) == first)]
    return {pid: started for pid in ids if (started := _start_time(pid)) is not None}


def _living(processes: Mapping[int, int]) -> list[int]:
    """Those of these processes (id: start time) that still live."""
    return [pid for pid, started in processes.items() if _start_time(pid) == started]


def _end(living: Callable[[], list[int]], signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)) -> None:
    """The first signal to all, then the next to what is left; `living` is asked again: new ones may have been born."""
    for sent in signals:
        timeout = STOP_TIMEOUT_S if sent == signals[0] else 5.0
        told: set[int] = set()
        seen_none = 0
        deadline = time.monotonic() + timeout
        # Asked twice, because a program that is just starting cannot be recognised for a moment.
        while seen_none < 2 and time.monotonic() < deadline:
            left = set(living())
            seen_none = 0 if left else seen_none + 1
            for pid in left - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sent)
            told |= left
            time.sleep(0.1)


def _process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _start_time(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None where it is gone or a zombie."""
    if pid in _children:
        _children[pid].poll()  # reaps it, if it has ended
    fields = _status(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def _parent(pid: int) -> int | None:
    fields = _status(pid)
    return int(fields[1]) if fields else None


def _status(pid: int) -> list[str]:
    """The fields of proc(5)'s `stat` from the third one on; empty where there is no such process."""
    try:
        # The command's name stands in parentheses and may hold anything: read from behind the last one.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _carries_mark(pid: int, folder: Path) -> bool:
    try:
        return os.fsencode(f"{MARK}={folder}") in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


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
        STORE_SETTING: _store(),
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


def _store() -> str:
    """The store's address, absolute: the configured one, else a folder of the home."""
    configured = os.environ.get(STORE_SETTING)
    if not configured:
        return str(home() / "store")
    folder = local_folder(configured)
    return configured if folder is None else str(folder)


def _free_port(preferred: int | None) -> int:
    """The preferred port, or another: one that no connection gets by itself, so that it is free after a restart."""
    if preferred is not None and _is_free(preferred):
        return preferred
    return next(port for port in random.sample(PORTS, len(PORTS)) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it: a port whose connections are still fading is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
