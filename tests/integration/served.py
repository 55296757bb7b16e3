"""A telltale that serves, for tests: started, asked through the API, and stopped as a user does it."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from deployments.database import POSTGRES, SQLITE, DatabaseFailed, find_programs, postgres_account
from deployments.home_folder import load_state

ANSWER_SECONDS = 300  # machines that share their cores have kept a server from answering for more than one minute


def wait_for(condition: Callable[[], Any], seconds: float = 600) -> Any:
    """Ask until the answer is true, and return it; a failed assertion after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(1)
    return found


def answered(method: str, url: str, body: Any) -> httpx.Response | None:
    """The server's answer, or nothing where none came, or only that its database is locked for a moment."""
    try:
        answer = httpx.request(method, url, json=body, timeout=60, trust_env=False)
    except httpx.TransportError:
        return None
    return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer


def possible_database() -> str:
    """PostgreSQL where it is installed, as many child runs want it; else SQLite, which lets one writer in at a time."""
    try:
        find_programs()
        postgres_account(os.geteuid())
    except DatabaseFailed:
        return SQLITE
    return POSTGRES


@contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that others may pass: PostgreSQL's user, where we are root, may not enter pytest's own."""
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


class PrefectApi:
    """What answers at `api_url`; a server that is too busy to answer is asked again, as Prefect's client does."""

    @property
    def api_url(self) -> str:
        """The address of the API."""
        raise NotImplementedError

    def ask(self, path: str, **body: Any) -> Any:
        """POST to the API."""
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers to a request, None for nothing."""
        answer = wait_for(lambda: answered(method, f"{self.api_url}{path}", body), ANSWER_SECONDS)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@dataclass
class Served(PrefectApi):
    """A telltale of its own in a temporary folder."""

    home: Path
    environment: dict[str, str]
    output: str = ""

    @classmethod
    def at(cls, home: Path, **environment: str) -> Self:
        """A telltale whose services keep everything below `home`; nothing is started yet."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
        return cls(home, {**kept, "TELLTALE_HOME": str(home), "SCHEDULES": "", **environment})

    def serve(self, *options: str) -> None:
        """`make serve`: start what does not run."""
        self.output = self.command("serve", *options)

    def command(self, *words: str, **environment: str) -> str:
        """Run `python -m deployments.bootstrap <words>` and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "deployments.bootstrap", *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def api_url(self) -> str:
        """The address that `serve` printed for the user's shell."""
        found = re.search(r"export PREFECT_API_URL=(\S+)", self.output)
        assert found is not None, self.output
        return found[1]

    def deployment(self, name: str, entrypoint: str = "flows.evaluate.evaluate_all") -> dict[str, Any]:
        """One deployment as the API knows it."""
        (found,) = [
            known
            for known in self.ask("/deployments/filter")
            if (known["name"], known["entrypoint"]) == (name, entrypoint)
        ]
        return dict(found)

    def pids(self) -> dict[str, int]:
        """Process ids of the server and the workers."""
        state = load_state(self.home)
        assert state.server is not None
        return {"server": state.server.pid, **{pool: process.pid for pool, process in state.workers.items()}}
