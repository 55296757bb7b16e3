"""Processes that belong to a home folder: started, recognised, waited for and ended; and ports for them to listen on.

Each carries that folder's path in its environment (`TELLTALE_SERVICES`), and so does all that it starts. Therefore the
flow runs are found too, which a process worker puts into sessions of their own, and no process that merely got a
recycled id is ever touched.
"""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.database import Account
from storage.errors import TelltaleError

MARK = "TELLTALE_SERVICES"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
SAY_EVERY_S = 3.0
# Below those that systems give to connections by themselves (Linux from 32768, others from 49152).
PORTS = range(20_000, 32_000)

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


def is_running(process: Process, folder: Path) -> bool:
    """Whether this very process still runs: same id, same start time, our mark, and not just a zombie."""
    if start_time(process.pid) != process.started:
        return False
    # In the first moments of a program its environment cannot be read yet; our own children need no mark.
    return process.pid in _children or _carries_mark(process.pid, folder)


def marked_processes(folder: Path) -> list[int]:
    """Ids of all living processes that were started from a home folder, directly or not, without this one."""
    return [
        pid
        for pid in process_ids()
        if pid != os.getpid() and _carries_mark(pid, folder) and start_time(pid) is not None
    ]


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


def start(
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
    return Process(name, child.pid, start_time(child.pid) or 0, str(log))


def await_ready(
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


def living(processes: Mapping[int, int]) -> list[int]:
    """Those of these processes (id: start time) that still live."""
    return [pid for pid, started in processes.items() if start_time(pid) == started]


def end(living: Callable[[], list[int]], signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)) -> None:
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


def process_ids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def start_time(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None where it is gone or a zombie."""
    if pid in _children:
        _children[pid].poll()  # reaps it, if it has ended
    fields = _status(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def parent(pid: int) -> int | None:
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


def free_port(preferred: int | None) -> int:
    """The preferred port, or another: one that no connection gets by itself, so that it is free after a restart."""
    if preferred is not None and is_free(preferred):
        return preferred
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it: a port whose connections are still fading is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
