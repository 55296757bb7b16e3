"""Hosts for tests: each has an address, a disk of its own, a link that can be cut, and dies as a whole.

A host is a set of Linux namespaces (network, processes, mounts, name) behind a bridge, which lives in a namespace too.
Nothing has a name in the machine's own tables but one end of a cable, and all of it goes when the process that made it
ends, even by SIGKILL. Where namespaces are not permitted a host is a group of processes with a home folder of its own
and an address of the loopback network; "cut off" then means that all its processes are stopped (SIGSTOP), and its disk
has no limit. `Network.isolation` says which of the two it is.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.chaos.init import DISK

INIT = Path(__file__).with_name("init.py")
PROGRAMS = ("ip", "mount", "nsenter", "setpriv", "unshare")
MARK = "CHAOS_PROCESS"
BALLAST = "ballast"
START_TIMEOUT_S = 30.0

Isolation = Literal["namespaces", "processes"]


class NoDisk(RuntimeError):
    """This host's disk has no limit and cannot be filled."""


def marked(mark: str) -> list[int]:
    """Ids of all living processes whose mark begins like this, on whatever host of this machine."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if not any(line.startswith(wanted) for line in (entry / "environ").read_bytes().split(b"\0")):
                    continue
                # The name stands in parentheses and may hold anything: the state is what follows the last one.
                if (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX":
                    found.append(int(entry.name))
    return found


def signal_all(mark: str, sent: signal.Signals) -> int:
    """Send a signal to all processes with this mark; returns how many there were."""
    found = marked(mark)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
    return len(found)


def kill_all(mark: str) -> int:
    """SIGKILL for all processes with this mark and all that they start meanwhile; returns how many there were first."""
    killed = signal_all(mark, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while signal_all(mark, signal.SIGKILL):
        assert time.monotonic() < deadline, f"{marked(mark)} outlive SIGKILL"
        time.sleep(0.05)
    return killed


@dataclass
class Program:
    """A program that was started on a host, with everything that it starts."""

    name: str
    mark: str
    log: Path
    popen: subprocess.Popen[bytes] = field(repr=False)

    def pids(self) -> list[int]:
        """Ids, on this machine, of the program and its descendants."""
        return marked(self.mark)

    def kill(self) -> int:
        """SIGKILL for the program and all that it started; returns how many processes that were."""
        killed = kill_all(self.mark)
        self.popen.wait()
        return killed

    def is_running(self) -> bool:
        """Whether the program itself still runs."""
        return self.popen.poll() is None


@dataclass
class Host:
    """One host.

    Args:
        folder: holds its logs and, unless its disk is limited, its files.
        megabytes: size of its disk, which begins empty at every boot; None: without limit, and lasting.
    """

    name: str
    address: str
    folder: Path
    network: "Network" = field(repr=False)
    megabytes: int | None = None
    programs: dict[str, Program] = field(default_factory=dict)
    _init: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pid: int = 0

    @property
    def disk(self) -> Path:
        """Its disk, as its own processes see it."""
        return Path(DISK) if self.network.isolation == "namespaces" else self.folder

    @property
    def mark(self) -> str:
        """What the marks of its processes begin with."""
        return f"{self.network.name}/{self.name}/"

    def boot(self) -> None:
        """Switch it on; nothing runs on it yet."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        if self.network.isolation == "namespaces":
            self._make_namespaces()
            self.network.connect(self)

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, to be run on this host. It is killed when its starter is."""
        if self.network.isolation == "processes":
            return list(command)
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--uts", "--net", "--pid", f"--wdns={DISK}"]
        return [*enter, "setpriv", "--pdeathsig", "KILL", *command]

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Program:
        """Start a program; its output goes to `logs/<name>.log` of the host's folder."""
        log = self.folder / "logs" / f"{name}.log"
        mark = f"{self.mark}{name}/{secrets.token_hex(4)}"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                self.command(command),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, MARK: mark},
                start_new_session=True,
            )
        self.programs[name] = Program(name, mark, log, popen)
        return self.programs[name]

    def run(self, command: Sequence[str], environment: Mapping[str, str], timeout: float = 60) -> str:
        """Run a command to its end, and return what it printed; `CalledProcessError` unless it succeeds."""
        done = subprocess.run(
            self.command(command),
            cwd=self.folder,
            env={**environment, MARK: f"{self.mark}run"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, list(command), done.stdout, done.stderr)
        return done.stdout

    def cut(self) -> None:
        """Cut its link: what it sends goes nowhere, and no answer says so."""
        if self.network.isolation == "namespaces":
            self.network.switch_port(self, "down")
        else:
            signal_all(self.mark, signal.SIGSTOP)

    def restore(self) -> None:
        """Put its link back."""
        if self.network.isolation == "namespaces":
            self.network.switch_port(self, "up")
        else:
            signal_all(self.mark, signal.SIGCONT)

    def kill(self) -> None:
        """The power fails: every process dies at once. `boot` brings an empty host back."""
        if self._init is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._init.communicate()
            self._init = None
        kill_all(self.mark)
        for program in self.programs.values():
            program.popen.wait()
        self.programs.clear()

    def fill_disk(self) -> int:
        """Fill its disk to the last block; returns how many bytes that took.

        Raises:
            NoDisk: it has no limit.
        """
        if self.megabytes is None or self.network.isolation == "processes":
            raise NoDisk(f"the disk of host {self.name} has no limit here")
        code = (
            "import errno, sys\n"
            "with open(sys.argv[1], 'wb', buffering=0) as file:\n"
            "    try:\n"
            "        while True: file.write(bytes(4096))\n"
            "    except OSError as error:\n"
            "        assert error.errno == errno.ENOSPC, error\n"
            "    print(file.tell())\n"
        )
        return int(self.run([sys.executable, "-I", "-c", code, f"{self.disk}/{BALLAST}"], bare_environment()))

    def free_disk(self) -> None:
        """Take away what `fill_disk` has put there."""
        self.run(["rm", f"{self.disk}/{BALLAST}"], bare_environment())

    def _make_namespaces(self) -> None:
        self._init, self._pid = start_namespaces(self.name, self.folder, self.megabytes or 0)


@dataclass
class Network:
    """Hosts and the bridge that joins them; see `network`."""

    folder: Path
    isolation: Isolation
    name: str = field(default_factory=lambda: f"tt{secrets.token_hex(3)}")
    hosts: dict[str, Host] = field(default_factory=dict)
    _subnet: str = ""
    _switch: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pid: int = 0

    def open(self) -> None:
        """Make the bridge, and a cable from this machine to it."""
        if self.isolation == "processes":
            self._subnet = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
            return
        self._subnet = _free_subnet()
        self._switch, self._pid = start_namespaces("switch", self.folder, 0)
        self._on_switch("link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self._on_switch("link", "set", "bridge", "up")
        # Its one end lies in the machine's own tables; it goes with the other.
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "machine", "netns", str(self._pid))
        _ip("address", "add", f"{self._subnet}.1/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        self._on_switch("link", "set", "machine", "master", "bridge", "up")

    def add(self, name: str, megabytes: int | None = None) -> Host:
        """A new host, switched on."""
        host = Host(name, f"{self._subnet}.{len(self.hosts) + 2}", self.folder / name, self, megabytes)
        self.hosts[name] = host
        host.boot()
        return host

    def close(self) -> None:
        """Switch everything off."""
        for host in self.hosts.values():
            host.kill()
        if self._switch is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._switch.communicate()
            self._switch = None

    def connect(self, host: Host) -> None:
        """Lay a cable between a host that has just been switched on and the bridge."""
        pid = host._pid
        # What a host leaves behind when it dies goes a moment later.
        with contextlib.suppress(subprocess.CalledProcessError):
            self._on_switch("link", "delete", host.name)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip("link", "add", host.name, "netns", str(self._pid), *cable)
        self._on_switch("link", "set", host.name, "master", "bridge", "up")
        _ip("address", "add", f"{host.address}/24", "dev", "eth0", inside=pid)
        _ip("link", "set", "eth0", "up", inside=pid)

    def switch_port(self, host: Host, state: Literal["up", "down"]) -> None:
        """Switch the bridge's port to a host on or off."""
        self._on_switch("link", "set", host.name, state)

    def _on_switch(self, *words: str) -> None:
        _ip(*words, inside=self._pid)


def start_namespaces(name: str, folder: Path, megabytes: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start the first process of a host; returns it and the process id, on this machine, of the namespaces' first."""
    folder.mkdir(parents=True, exist_ok=True)
    new = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    init = subprocess.Popen(
        ["unshare", *new, sys.executable, "-I", str(INIT), name, str(folder), str(megabytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert init.stdout is not None
    if init.stdout.readline() != b"up\n":
        raise OSError(f"no namespaces for host {name}: {init.communicate()[1].decode()}")
    return init, int(Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()[0])


def possible_isolation() -> Isolation:
    """What this machine permits; `TELLTALE_CHAOS_HOSTS=processes` asks for the lesser one."""
    if os.environ.get("TELLTALE_CHAOS_HOSTS") == "processes" or os.geteuid() or not all(map(shutil.which, PROGRAMS)):
        return "processes"
    new = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--mount-proc"]
    tried = "ip link add bridge type bridge && mount -t tmpfs tmpfs /mnt"
    done = subprocess.run([*new, "sh", "-c", tried], capture_output=True, check=False)
    return "processes" if done.returncode else "namespaces"


@contextlib.contextmanager
def network(folder: Path, isolation: Isolation | None = None) -> Iterator[Network]:
    """A network without hosts, for as long as the block lasts; what is started on its hosts ends with it."""
    made = Network(folder, isolation or possible_isolation())
    try:
        made.open()
        yield made
    finally:
        made.close()


def bare_environment() -> dict[str, str]:
    """This process's environment without anything that would lead a program astray on another host."""
    foreign = ("PREFECT_", "TELLTALE_", "AWS_", "HTTP_", "HTTPS_", "ALL_", "NO_", "CHAOS_")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}


def _ip(*words: str, inside: int | None = None) -> None:
    enter = ["nsenter", f"--target={inside}", "--net"] if inside is not None else []
    subprocess.run([*enter, "ip", *words], check=True, capture_output=True)


def _free_subnet() -> str:
    taken = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True)
    while True:
        subnet = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        if f"{subnet}." not in taken.stdout:
            return subnet
