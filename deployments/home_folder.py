"""The folder of a local telltale, `TELLTALE_HOME`: what was started from it, and the settings under which.

It is `.telltale` of the working directory by default. `services.json` in it says what was started.
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deployments.database import SQLITE
from deployments.processes import MARK, Process, ServiceFailed
from storage.credentials import BLOCK_SETTING
from storage.errors import SpecError
from storage.opening import DEFAULT_HOME, HOME_SETTING, local_folder, open_store
from storage.paths import absolute, with_home
from storage.runs import REPORTS_SETTING
from storage.store import STORE_SETTING
from tasks.app_files import APP_SETTING
from tasks.cache import CACHE_SETTING, cache_folder
from tasks.device import PRICE_SETTING, hourly_price
from tasks.threads import THREADS_SETTING, parallel_tasks

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


def home() -> Path:
    """The absolute path of the folder in which everything lives."""
    return absolute(os.environ.get(HOME_SETTING) or DEFAULT_HOME)


def check_settings() -> None:
    """Refuse settings that would otherwise fail in a worker, or after minutes.

    Raises:
        SpecError: the store, the folder of the cache, the tasks at once, the price of a GPU hour, the address of the
            reports, or a setting of Prefect's is none.
        StoreRefused: the store cannot be there.
    """
    if os.environ.get(STORE_SETTING):
        open_store(store_address())
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


def worker_settings() -> dict[str, str]:
    """The `TELLTALE_*` settings as workers get them: flow runs work in temporary folders, so paths become absolute."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("TELLTALE_") and name != MARK}
    # What is there is a path. Folders that are only going to be made are known by their settings' names.
    paths = {
        name: str(absolute(value))
        for name, value in settings.items()
        if value and name not in NO_PATHS and (name in MADE_PATHS or is_there(with_home(value)))
    }
    return {**settings, **paths, HOME_SETTING: str(home()), STORE_SETTING: store_address()}


def is_there(path: str) -> bool:
    # Unlike `Path.exists`, without an error for a value that is too long for a path.
    return os.access(path, os.F_OK)


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


def store_address() -> str:
    """The store's address, absolute: the configured one, else a folder of the home."""
    configured = os.environ.get(STORE_SETTING)
    if not configured:
        return str(home() / "store")
    folder = local_folder(configured)
    return configured if folder is None else str(folder)
