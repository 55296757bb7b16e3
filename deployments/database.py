"""Where Prefect keeps its runs: SQLite, a PostgreSQL server of our own, or one that the user names (`DATABASE`).

Our own PostgreSQL lives in `TELLTALE_HOME/postgres`: `data` and `password`. It listens on 127.0.0.1 only, has no
socket in a folder that others see, and asks every connection for the generated password (scram), so other users of
the machine cannot read the runs. PostgreSQL refuses to run as root: root starts it as the user `postgres`.

Processes are started and stopped in `processes.py` and `services.py`; here is what to start and how to recognise it.
"""

import os
import pwd
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from storage.errors import SpecError, TelltaleError

SETTING = "DATABASE"
SQLITE = "sqlite"
POSTGRES = "postgres"
DRIVER = "postgresql+asyncpg"
EXPECTED = f"{SQLITE}, {POSTGRES}, or {DRIVER}://USER:PASSWORD@HOST:PORT/NAME"

ROLE = "telltale"
# The database that every PostgreSQL has from the start: nothing else lives in our server.
NAME = "postgres"
INSTALL = "apt-get install postgresql (Debian, Ubuntu)"
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
# What PostgreSQL gets of our environment: no credentials of the store, nothing of Prefect.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ")
# PostgreSQL takes 100 connections; Prefect's server is one process with one pool and a listener beside it.
POOL_SETTINGS = {
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "10",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "20",
}
# Both in seconds: machines that share their cores are slow to accept a connection and to let a row go.
WAIT_SETTINGS = {
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
}


class DatabaseFailed(TelltaleError):
    """The database is not installed, cannot be made here, or did not start."""


@dataclass(frozen=True)
class Database:
    """A database that was asked for.

    Args:
        kind: `sqlite`, `postgres` (our own), or the named address as it may be shown: without user's password.
        address: the address with its password; only where the user named one.
    """

    kind: str
    address: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Account:
    """The user under whom PostgreSQL runs, where that is another than ours."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Postmaster:
    """What a running PostgreSQL says about itself in `postmaster.pid`."""

    pid: int
    port: int
    ready: bool


def take_setting(environment: dict[str, str] | os._Environ[str]) -> Database | None:
    """Read `DATABASE` and remove it, so that no process started later inherits the password in it.

    Returns:
        The database that is asked for; None where none is.

    Raises:
        TelltaleError: it is none of the values that are expected. What it was is shown only if it holds no secret.
    """
    setting = environment.pop(SETTING, "")
    # make hands the variables of its command line down in these, too.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"):
        environment.pop(name, None)
    return parse_setting(setting) if setting else None


def parse_setting(setting: str) -> Database:
    """What a value of `DATABASE` asks for.

    Raises:
        TelltaleError: as in `take_setting`.
    """
    if setting in (SQLITE, POSTGRES):
        return Database(setting)
    scheme, separator, _ = setting.partition("://")
    if scheme != DRIVER or not separator:
        # Whatever looks like an address may hold a password, wherever it was put.
        got = f"{scheme}://..." if separator and "@" not in scheme else "an address" if "@" in setting else setting
        raise SpecError(f"{SETTING}: expected {EXPECTED}, got {got}")
    address = _split(setting)
    if not address.path.strip("/") or (not address.hostname and "host=" not in address.query):
        raise SpecError(f"{SETTING}: expected {EXPECTED}, got an address without a host or a database's name")
    return Database(shown_address(address), setting)


def shown_address(address: SplitResult) -> str:
    """An address without its password and its options, which may hold one; IPv6 hosts keep their brackets."""
    user = f"{address.username}@" if address.username else ""
    host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname or ""
    port = f":{address.port}" if address.port else ""
    return f"{address.scheme}://{user}{host}{port}{address.path}"


def server_settings(
    database: Database, own: "OwnPostgres", port: int | None, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The settings under which a Prefect server keeps its runs there.

    Args:
        database: where.
        own: our own PostgreSQL, which listens on `port` if it is the one.
        inherited: the environment; what it says of pools and patience comes first.
    """
    if database.kind == SQLITE:
        # SQLite lets one writer in at a time: wait rather than fail while many child runs report.
        settings = {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}
        if "?" in str(own.home):
            # What Prefect makes of such a path ends there, and its database would lie beside the home.
            file = (own.home / "prefect" / "prefect.db").as_uri()
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{file}?uri=true"
        return settings
    if database.address is None and port is None:
        raise DatabaseFailed("our PostgreSQL has no port yet")
    address = database.address or own.address(port or 0)
    settings = {**POOL_SETTINGS, **WAIT_SETTINGS}
    return {
        **{name: inherited.get(name) or value for name, value in settings.items()},
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_APPLICATION_NAME": "telltale",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": address,
    }


@dataclass(frozen=True)
class OwnPostgres:
    """The PostgreSQL server of a home folder; its processes are the business of `services.py`."""

    home: Path

    @property
    def folder(self) -> Path:
        """All that it keeps, for its user alone."""
        return self.home / "postgres"

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.folder / "data"

    @property
    def exists(self) -> bool:
        """Whether it was made before."""
        return (self.data / "PG_VERSION").exists()

    def address(self, port: int) -> str:
        """Where Prefect finds it, with the password: for the environment of a server, for nothing else."""
        return f"{DRIVER}://{ROLE}:{self._password()}@127.0.0.1:{port}/{NAME}"

    def prepare(self, account: Account | None) -> None:
        """Make the data directory with a password of its own, unless it is there.

        Raises:
            DatabaseFailed: PostgreSQL is missing, the folder is out of its user's reach, or it cannot make its data.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if account is not None and self.folder.stat().st_uid == 0:
                os.chown(self.folder, account.uid, account.gid)
            user, owner = account.uid if account else os.geteuid(), self.folder.stat().st_uid
            if owner != user:
                raise DatabaseFailed(
                    f"expected {self.folder} to belong to the user with the number {user}, who would run PostgreSQL, "
                    f"got {owner}: serve as the user who served before, or set TELLTALE_HOME to another folder"
                )
            if account is not None:
                _check_reach(self.folder, account)
            programs = find_programs(self._version())
            if self.exists:
                self._password()
                return
            password = self._make_password(account)
            fresh = self.folder / "data.new"
            # From an attempt that was cut short.
            shutil.rmtree(fresh, ignore_errors=True)
            command = [str(programs / "initdb"), "--pgdata", str(fresh), "--username", ROLE, "--pwfile", str(password)]
            command += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"]
            done = run_as(account, command, self.folder)
            if done.returncode != 0:
                raise DatabaseFailed(f"PostgreSQL could not make its data in {self.data}:\n{done.stdout[-2000:]}")
            # One move: what bears the name is whole.
            fresh.rename(self.data)
        except OSError as error:
            raise DatabaseFailed(f"PostgreSQL's folder {self.folder}: {error}") from error

    def command(self, port: int) -> list[str]:
        """What starts it, in the foreground."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(find_programs(self._version()) / "postgres"), "-D", str(self.data), *options]

    def postmaster(self) -> Postmaster | None:
        """The process that serves this data directory now, whoever started it; None where there is none.

        Its file outlives a crash, and its id may then be another process's: the command line decides.
        """
        try:
            found = parse_postmaster((self.data / "postmaster.pid").read_text(encoding="utf-8"))
            if found is None:
                return None
            words = Path(f"/proc/{found.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return found if os.fsencode(self.data) in words else None

    def _version(self) -> str | None:
        """The major version that made the data; None where there are none."""
        return (self.data / "PG_VERSION").read_text(encoding="utf-8").strip() if self.exists else None

    def _password(self) -> str:
        try:
            return (self.folder / "password").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise DatabaseFailed(
                f"{self.folder / 'password'} is missing: put it back, or remove {self.folder} "
                "(Prefect then forgets its runs; results stay in the store)"
            ) from None
        except OSError as error:
            raise DatabaseFailed(f"PostgreSQL's password: {error}; serve as the user who served before") from error

    def _make_password(self, account: Account | None) -> Path:
        path = self.folder / "password"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(24) + "\n")
        if account is not None:
            os.chown(path, account.uid, account.gid)
        return path


def parse_postmaster(text: str) -> Postmaster | None:
    """What `postmaster.pid` says (PostgreSQL's `pidfile.h`: line 1 id, 4 port, 8 status); None if unfinished."""
    lines = text.splitlines()
    try:
        return Postmaster(int(lines[0]), int(lines[3]), len(lines) > 7 and lines[7].strip() == "ready")
    except (IndexError, ValueError):
        return None


def find_programs(version: str | None = None) -> Path:
    """The folder with `initdb` and `postgres`: through PATH, `pg_config --bindir`, or where Debian keeps them.

    Args:
        version: the major version that the data need; without it the newest one is taken where there is a choice.

    Raises:
        DatabaseFailed: there is none, or none of that version; the message says what to install.
    """
    found = {folder: _major_version(folder / "postgres") for folder in _candidates()}
    for folder, has in found.items():
        if version in (None, has):
            return folder
    if found:
        others = ", ".join(sorted(set(found.values())))
        raise DatabaseFailed(
            f"expected PostgreSQL {version}, which made the data in this home, got {others}: "
            f"apt-get install postgresql-{version}, or pg_upgrade the data"
        )
    raise DatabaseFailed(
        f"PostgreSQL is not installed (initdb and postgres): {INSTALL}, or serve with {SETTING}={SQLITE}"
    )


def postgres_account(uid: int) -> Account | None:
    """The user under whom PostgreSQL has to run: `postgres` where we are root, else ourselves (None).

    Raises:
        DatabaseFailed: we are root and there is no such user.
    """
    if uid != 0:
        return None
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        raise DatabaseFailed(
            "PostgreSQL does not run as root, and there is no user postgres to run it as: "
            f"serve as another user, or {INSTALL}, which makes one"
        ) from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)


def postgres_environment() -> dict[str, str]:
    """PostgreSQL's environment; its messages are in English, whatever the user's language is."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C"}


def run_as(account: Account | None, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end as PostgreSQL's user, in a folder within its reach; output and errors together."""
    return subprocess.run(
        command,
        cwd=folder,
        env=postgres_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=account.groups if account else None,
    )


def _check_reach(folder: Path, account: Account) -> None:
    """Refuse a folder that the account cannot come to; the system is asked, which knows of access lists and mounts."""
    for place in (*reversed(folder.parents), folder):
        if run_as(account, ["test", "-x", str(place)], Path("/")).returncode != 0:
            raise DatabaseFailed(
                f"PostgreSQL runs as the user {account.name}, because it refuses to run as root, and that user may not "
                f"enter {place}: set TELLTALE_HOME to a folder elsewhere (/var/lib/telltale), "
                f"or let it pass (chmod o+x {place}), or serve as another user than root"
            )


def _candidates() -> list[Path]:
    """Folders that hold both programs, those of PATH first, then newest versions first."""
    on_path = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    told = []
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        told = [Path(done.stdout.strip())] if done.returncode == 0 and done.stdout.strip() else []
    by_version = sorted(DEBIAN_PROGRAMS.glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    folders = dict.fromkeys([*on_path, *told, *by_version])
    return [folder for folder in folders if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))]


def _major_version(program: Path) -> str:
    """`15` of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`; empty where it does not say."""
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\(PostgreSQL\) (9\.\d+|\d+)", done.stdout)
    return found[1] if found else ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _split(address: str) -> SplitResult:
    try:
        split = urlsplit(address)
        _ = split.port  # is only read, and refused, when it is asked for
    except ValueError:
        # Not the error's own words: they quote the address.
        split = urlsplit("")
    if "@" in split.path or not split.scheme:
        raise TelltaleError(
            f"{SETTING}: expected {EXPECTED}, got an address that cannot be read "
            "(write special characters of the password as %XX)"
        )
    return split
