"""Which database a setting asks for, what PostgreSQL says about itself, and passwords that nobody sees."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from deployments import database
from deployments.database import (
    SQLITE,
    Account,
    Database,
    DatabaseFailed,
    OwnPostgres,
    Postmaster,
    server_settings,
)
from storage.errors import TelltaleError

ROOT = Path(__file__).parents[2]
ADDRESS = "postgresql+asyncpg://prefect:hid%40den@db.example:5433/runs"
PIDFILE = "4711\n/home/me/.telltale/postgres/data\n1795386000\n50123\n\n127.0.0.1\n  1234567   65536\nready   \n"


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of PATH, and nothing where Debian keeps PostgreSQL."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(database, "DEBIAN_PROGRAMS", tmp_path / "debian")
    return folder


def install(folder: Path, version: str) -> Path:
    """Stand-ins for PostgreSQL's programs, which say their version."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("initdb", "postgres"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}.4 (Debian {version}.4-0+deb12u1)'\n")
        program.chmod(0o755)
    return folder


# What was asked for


@pytest.mark.parametrize("setting", ["sqlite", "postgres"])
def test_the_two_names_are_taken_as_they_are(setting: str) -> None:
    assert database.take_setting({"DATABASE": setting}) == Database(setting)


@pytest.mark.parametrize("environment", [{}, {"DATABASE": ""}])
def test_nothing_is_asked_for_where_the_setting_is_not_there_or_empty(environment: dict[str, str]) -> None:
    assert database.take_setting(environment) is None


def test_an_address_is_kept_and_shown_without_its_password() -> None:
    asked = database.parse_setting(f"{ADDRESS}?ssl=require&password=hid%40den")
    assert asked.address == f"{ADDRESS}?ssl=require&password=hid%40den"
    assert asked.kind == "postgresql+asyncpg://prefect@db.example:5433/runs"
    assert "hid" not in repr(asked)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+asyncpg://[::1]:5432/runs", "postgresql+asyncpg://[::1]:5432/runs"),
        ("postgresql+asyncpg://host/runs", "postgresql+asyncpg://host/runs"),
        ("postgresql+asyncpg:///runs?host=/run/postgresql", "postgresql+asyncpg:///runs"),
    ],
)
def test_addresses_of_other_forms_are_taken_too(address: str, shown: str) -> None:
    assert database.parse_setting(address) == Database(shown, address)


@pytest.mark.parametrize(
    "setting",
    [
        "Postgres",
        "mysql",
        "postgres://me:hidden@host/runs",
        "postgresql://me:hidden@host/runs",
        "me:hidden@host/runs",
        "me:hidden@//host://runs",
        "postgresql+asyncpg://me:hidden@host",
        "postgresql+asyncpg://me:hidden@/runs",
        "postgresql+asyncpg://me:hidden@host:port/runs",
        "postgresql+asyncpg://me:hidden@host:99999/runs",
        "postgresql+asyncpg://me:or/hidden@host/runs",
        "postgresql+asyncpg://me:1?hidden@host/runs",
        "postgresql+asyncpg://me:1#hidden@host/runs",
        "postgresql+asyncpg://me:hidden@[host/runs",
        "postgresql+asyncpg:me:hidden@host/runs",
    ],
)
def test_anything_else_is_refused_with_what_is_expected_and_without_a_password(setting: str) -> None:
    with pytest.raises(TelltaleError, match=r"DATABASE: expected sqlite, postgres, or postgresql\+asyncpg") as raised:
        database.take_setting({"DATABASE": setting})
    assert "got" in str(raised.value)
    assert "hidden" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_starts_later_does_not_inherit_the_setting() -> None:
    environment = {
        "DATABASE": ADDRESS,
        "MAKEFLAGS": f" -- DATABASE={ADDRESS}",
        "MAKEOVERRIDES": ADDRESS,
        "PATH": "/bin",
    }
    database.take_setting(environment)
    assert environment == {"PATH": "/bin"}


def test_make_hands_the_setting_down_and_a_wrong_one_is_one_line() -> None:
    command = [
        "make",
        "--old-file",
        ".venv/.installed",
        "serve",
        f"BIN={Path(sys.executable).parent}",
        "DATABASE=oracle",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"error: DATABASE: expected {database.EXPECTED}, got oracle"


# What Prefect's server is told


def test_only_sqlite_waits_for_its_one_writer(tmp_path: Path) -> None:
    settings = database.server_settings(Database("sqlite"), OwnPostgres(tmp_path), None, {})
    assert settings == {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}


def test_a_named_database_is_used_as_it_was_named_with_the_users_pool_size(tmp_path: Path) -> None:
    size = "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE"
    settings = database.server_settings(database.parse_setting(ADDRESS), OwnPostgres(tmp_path), None, {size: "3"})
    assert settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == ADDRESS
    assert settings[size] == "3"


def test_prefect_reads_every_setting_by_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.server.database import ServerDatabaseSettings

    for name, value in database.server_settings(database.parse_setting(ADDRESS), OwnPostgres(tmp_path), 0, {}).items():
        monkeypatch.setenv(name, value)
    read = ServerDatabaseSettings()
    assert read.connection_url is not None
    assert read.connection_url.get_secret_value() == ADDRESS
    assert (read.connection_timeout, read.timeout) == (30, 30)
    assert (read.sqlalchemy.pool_size, read.sqlalchemy.max_overflow) == (10, 20)
    assert read.sqlalchemy.connect_args.application_name == "telltale"


def test_our_own_server_is_found_by_port_and_password(tmp_path: Path) -> None:
    own = OwnPostgres(tmp_path)
    own.folder.mkdir()
    (own.folder / "password").write_text("0123abcd\n")
    settings = database.server_settings(Database("postgres"), own, 50123, {})
    address = "postgresql+asyncpg://telltale:0123abcd@127.0.0.1:50123/postgres"
    assert settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == address


def test_a_lost_password_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFailed, match=r"password is missing: put it back, or remove"):
        OwnPostgres(tmp_path).address(1)


def test_postgres_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    assert database.postgres_environment()["LC_ALL"] == "C"
    assert "AWS_SECRET_ACCESS_KEY" not in database.postgres_environment()


# Where it is and whether it runs


def test_postgres_is_found_through_path_before_anything_else(no_programs: Path, tmp_path: Path) -> None:
    install(tmp_path / "debian" / "17" / "bin", "17")
    assert database.find_programs() == tmp_path / "debian" / "17" / "bin"
    elsewhere = install(tmp_path / "elsewhere", "16")
    # As Debian's own links do it: one of the two programs, from another folder.
    (no_programs / "initdb").symlink_to(elsewhere / "initdb")
    assert database.find_programs() == elsewhere


def test_pg_config_is_asked_but_not_believed_where_it_names_only_the_client(no_programs: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (no_programs / "pg_config").write_text(f"#!/bin/sh\necho '{told}'\n")
    (no_programs / "pg_config").chmod(0o755)
    with pytest.raises(DatabaseFailed, match="not installed"):
        database.find_programs()
    install(told, "15")
    assert database.find_programs() == told


def test_the_newest_version_is_taken_unless_the_data_need_another(no_programs: Path, tmp_path: Path) -> None:
    folders = {version: install(tmp_path / "debian" / version / "bin", version) for version in ("9.6", "10", "15")}
    assert database.find_programs() == folders["15"]
    assert database.find_programs("10") == folders["10"]
    assert database.find_programs("9.6") == folders["9.6"]
    with pytest.raises(DatabaseFailed, match=r"PostgreSQL 13, .* got 10, 15, 9.6: apt-get install postgresql-13"):
        database.find_programs("13")


def test_a_missing_postgres_says_how_to_get_it(no_programs: Path) -> None:
    with pytest.raises(DatabaseFailed, match="apt-get install postgresql"):
        database.find_programs()


def test_root_runs_it_as_postgres_and_others_as_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert database.postgres_account(1000) is None

    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("pwd.getpwnam", unknown)
    with pytest.raises(DatabaseFailed, match="no user postgres"):
        database.postgres_account(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_home_that_the_other_user_cannot_reach_is_named_with_a_remedy(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    nobody = Account("nobody", 65534, 65534, ())
    with pytest.raises(DatabaseFailed, match=r"user nobody, .* may not enter .*: set TELLTALE_HOME"):
        OwnPostgres(closed).prepare(nobody)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_made_is_left_to_that_user(tmp_path: Path) -> None:
    own = OwnPostgres(tmp_path)
    own.folder.mkdir()
    os.chown(own.folder, 65534, 65534)
    with pytest.raises(DatabaseFailed, match=r"expected .* to belong to the user with the number 0, .* got 65534"):
        own.prepare(None)
    assert own.folder.stat().st_uid == 65534


def test_the_file_of_a_running_server_is_read() -> None:
    assert database.parse_postmaster(PIDFILE) == Postmaster(4711, 50123, ready=True)
    assert database.parse_postmaster(PIDFILE.replace("ready   ", "starting")) == Postmaster(4711, 50123, ready=False)


@pytest.mark.parametrize("text", ["", "4711\n", "4711\n/data\n1795386000\n", "x\ny\nz\n1\n"])
def test_a_file_that_is_being_written_says_nothing_yet(text: str) -> None:
    assert database.parse_postmaster(text) is None


def test_a_file_that_outlived_its_server_is_not_believed(tmp_path: Path) -> None:
    own = OwnPostgres(tmp_path)
    assert own.postmaster() is None
    own.data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (own.data / "postmaster.pid").write_text(PIDFILE.replace("4711", str(stranger.pid)))
        assert own.postmaster() is None
        stranger.kill()
    with subprocess.Popen(["sh", "-c", "sleep 60; true", "-D", str(own.data)]) as server:
        (own.data / "postmaster.pid").write_text(PIDFILE.replace("4711", str(server.pid)))
        # In the first moments of a program its command line cannot be read yet.
        deadline = time.monotonic() + 30
        while own.postmaster() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert own.postmaster() == Postmaster(server.pid, 50123, ready=True)
        server.kill()
    assert own.postmaster() is None


def test_it_listens_to_this_machine_only_and_has_no_socket_file(no_programs: Path, tmp_path: Path) -> None:
    install(no_programs, "15")
    command = OwnPostgres(tmp_path / "my home").command(50123)
    assert command[:3] == [str(no_programs / "postgres"), "-D", str(tmp_path / "my home" / "postgres" / "data")]
    assert {"listen_addresses=127.0.0.1", "port=50123", "unix_socket_directories="} <= set(command)


@pytest.mark.parametrize("name", ["a?b%20c#d \u00e9", "?", "a?mode=ro&uri=true"])
def test_sqlite_lies_in_the_home_whatever_its_name(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    (home / "prefect").mkdir(parents=True)
    address = server_settings(Database(SQLITE), OwnPostgres(home), None, {})["PREFECT_SERVER_DATABASE_CONNECTION_URL"]

    async def write() -> None:
        engine = create_async_engine(address)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE runs (id INTEGER)"))
        await engine.dispose()

    asyncio.run(write())
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        f"{name}/prefect/prefect.db"
    ]


def test_sqlite_of_an_ordinary_home_is_left_to_prefect(tmp_path: Path) -> None:
    settings = server_settings(Database(SQLITE), OwnPostgres(tmp_path / "a%20b#c"), None, {})
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in settings
