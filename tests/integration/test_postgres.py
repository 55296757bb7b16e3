"""Prefect on PostgreSQL: served, loaded, killed, stopped and served again, and the password seen by nobody."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.database import DatabaseFailed, OwnPostgres, find_programs, postgres_account
from deployments.home_folder import load_state
from deployments.processes import marked_processes
from tests.integration.served import Served, open_folder, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RUNS = 6
AT_ONCE = 4


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a space in its name."""
    try:
        find_programs()
        postgres_account(os.geteuid())
    except DatabaseFailed as error:
        pytest.skip(str(error))
    with open_folder("telltale on postgres ") as folder:
        yield folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    telltale = Served.at(place / "home", DATABASE="postgres")
    try:
        telltale.serve("--cpu-limit", str(AT_ONCE))
        yield telltale
    finally:
        telltale.command("stop")
        assert marked_processes(telltale.home) == []
        assert OwnPostgres(telltale.home).postmaster() is None


def leader(served: Served) -> int:
    """The id of the first process of PostgreSQL."""
    running = OwnPostgres(served.home).postmaster()
    assert running is not None
    return running.pid


def parents() -> dict[int, int]:
    """Every living process with its parent; what waits only to be counted out by its parent does not live."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(entry.parent.name)] = int(fields[1])
    return found


def family(pid: int) -> set[int]:
    """A process and its children."""
    return {pid, *(each for each, parent in parents().items() if parent == pid)}


def password(served: Served) -> str:
    return (served.home / "postgres" / "password").read_text().strip()


async def query(port: int, secret: str, statement: str) -> Any:
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="telltale", password=secret, database="postgres"
    )
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def ask(served: Served, statement: str, secret: str | None = None) -> Any:
    """One value from the database, for who has its password."""
    port = load_state(served.home).database_port
    assert port is not None
    return asyncio.run(query(port, secret or password(served), statement))


def start_sweeps(served: Served, count: int) -> list[str]:
    """Start so many runs of the cheapest deployment at the same moment; returns their ids."""
    sweep = served.deployment("sweep", "flows.maintain.sweep")["id"]
    url = f"{served.api_url}/deployments/{sweep}"
    httpx.patch(url, json={"concurrency_limit": AT_ONCE}, timeout=60, trust_env=False).raise_for_status()
    with ThreadPoolExecutor(count) as pool:
        made = list(pool.map(lambda _: served.ask(f"/deployments/{sweep}/create_flow_run"), range(count)))
    return [run["id"] for run in made]


def states(served: Served, runs: list[str]) -> list[str]:
    found = served.ask("/flow_runs/filter", flow_runs={"id": {"any_": runs}})
    return [run["state_type"] for run in found]


@pytest.fixture(scope="module")
def finished(served: Served) -> list[str]:
    """Runs that were started at once, several of them working at a time."""
    runs = start_sweeps(served, RUNS)
    wait_for(lambda: {"COMPLETED"} == set(states(served, runs)) and len(states(served, runs)) == RUNS)
    return runs


def test_runs_that_work_at_the_same_time_are_kept_in_postgres(served: Served, finished: list[str]) -> None:
    assert ask(served, "select count(*) from flow_run where state_type = 'COMPLETED'") >= RUNS
    assert not (served.home / "prefect" / "prefect.db").exists()
    assert ask(served, "select count(*) from pg_stat_activity where application_name = 'telltale'") >= 1


def test_status_and_state_name_the_database(served: Served) -> None:
    assert f"database     runs, process {leader(served)}" in served.command("status")
    state = load_state(served.home)
    assert state.database is not None
    assert (state.kept_in, state.database.name, state.database.pid) == ("postgres", "database", leader(served))


def test_nobody_else_gets_in(served: Served) -> None:
    import asyncpg

    for wrong in ("wrong", "postgres", "telltale"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            ask(served, "select 1", wrong)
    assert ask(served, "show listen_addresses") == "127.0.0.1"
    assert ask(served, "show unix_socket_directories") == ""
    rules = (served.home / "postgres" / "data" / "pg_hba.conf").read_text().splitlines()
    methods = {rule.split()[-1] for rule in rules if rule.strip() and not rule.startswith("#")}
    assert methods == {"scram-sha-256"}
    assert (served.home / "postgres").stat().st_mode & 0o077 == 0
    assert (served.home / "postgres" / "password").stat().st_mode & 0o077 == 0


def assert_secret(served: Served, secret: str, holders: set[int]) -> None:
    """Neither output, logs, state nor the processes below it know a password, except these processes."""
    assert secret not in served.output
    for path in [served.home / "services.json", *(served.home / "logs").iterdir()]:
        assert secret not in path.read_text(errors="replace"), path
    knowing = set()
    for pid in marked_processes(served.home):
        told = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline")]
        if any(secret.encode() in each for each in told):
            knowing.add(pid)
    assert knowing <= holders


def test_only_the_server_knows_the_password(served: Served, finished: list[str]) -> None:
    assert_secret(served, password(served), family(served.pids()["server"]))


def test_serving_again_changes_nothing_and_another_database_is_told(served: Served) -> None:
    before = {**served.pids(), "database": leader(served)}
    assert "deployments: up to date" in served.command("serve", DATABASE="")
    output = served.command("serve", DATABASE="sqlite")
    assert "the server keeps its runs in postgres: stop and serve again to change to sqlite" in output
    assert {**served.pids(), "database": leader(served)} == before


def test_a_killed_postgres_is_started_again_where_the_server_looks_for_it(served: Served, finished: list[str]) -> None:
    before, first, port = served.pids(), leader(served), load_state(served.home).database_port
    os.kill(first, signal.SIGKILL)
    served.command("serve")
    assert leader(served) != first
    assert load_state(served.home).database_port == port
    assert served.pids()["server"] == before["server"]
    assert states(served, finished) == ["COMPLETED"] * RUNS
    runs = start_sweeps(served, 1)
    wait_for(lambda: states(served, runs) == ["COMPLETED"])


def test_a_database_that_the_user_names_is_used_and_its_password_kept_secret(served: Served, place: Path) -> None:
    """The named server is the one of the other home, with a database and a user for this."""
    ask(served, "create database other")
    secret = "s3cret%25with%40signs"
    ask(served, "create role guest superuser login password 's3cret%with@signs'")
    port = load_state(served.home).database_port
    address = f"postgresql+asyncpg://guest:{secret}@127.0.0.1:{port}/other"
    guest = Served.at(place / "guest", DATABASE=address)
    try:
        guest.serve()
        assert guest.deployment("sweep", "flows.maintain.sweep")["name"] == "sweep"
        assert load_state(guest.home).kept_in == f"postgresql+asyncpg://guest@127.0.0.1:{port}/other"
        assert OwnPostgres(guest.home).postmaster() is None
        for each in (secret, "s3cret%with@signs"):
            assert_secret(guest, each, family(guest.pids()["server"]))
        # A server that ended by itself: where its runs are is known, the password is not.
        os.kill(guest.pids()["server"], signal.SIGKILL)
        again = subprocess.run(
            [sys.executable, "-m", "deployments.bootstrap", "serve"],
            env={**guest.environment, "DATABASE": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 1
        assert f"kept its runs in postgresql+asyncpg://guest@127.0.0.1:{port}/other" in again.stderr
        assert "Traceback" not in again.stderr
    finally:
        guest.command("stop")
    assert marked_processes(guest.home) == []
    assert leader(served)


def test_a_database_that_does_not_let_us_in_is_one_error_without_the_password(served: Served, place: Path) -> None:
    port = load_state(served.home).database_port
    stranger = Served.at(place / "stranger", DATABASE=f"postgresql+asyncpg://telltale:n0t-it@127.0.0.1:{port}/postgres")
    began = time.monotonic()
    with pytest.raises(AssertionError, match="the Prefect server ended while starting") as raised:
        stranger.serve()
    assert time.monotonic() - began < 120
    assert "password authentication failed" in str(raised.value)
    assert "n0t-it" not in str(raised.value)
    assert_secret(stranger, "n0t-it", set())
    stranger.command("stop")


def test_stopping_leaves_nothing_and_serving_again_knows_the_old_runs(served: Served, finished: list[str]) -> None:
    processes = family(leader(served)) | set(served.pids().values())
    output = served.command("stop")
    assert "stopping PostgreSQL" in output
    assert "none is left" in output
    assert marked_processes(served.home) == []
    assert not processes & set(parents())
    # A shutdown in order, which leaves nothing to repair.
    assert "database system is shut down" in (served.home / "logs" / "database.log").read_text()
    assert not (served.home / "postgres" / "data" / "postmaster.pid").exists()
    assert "nothing was running" in served.command("stop")
    served.serve()
    assert states(served, finished) == ["COMPLETED"] * RUNS


def test_a_lost_state_file_loses_no_process(served: Served) -> None:
    processes = family(leader(served)) | set(served.pids().values())
    (served.home / "services.json").unlink()
    assert "stopping PostgreSQL" in served.command("stop")
    assert not processes & set(parents())
