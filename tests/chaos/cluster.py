"""A telltale on four hosts: `server` (Prefect), `s3` (SeaweedFS), `one` and `two` (a worker for each pool).

It is what `make serve` starts on one machine, spread out: the same commands and settings. A supervisor restarts workers
that have ended, as systemd or Docker do, and `maintain/recover` is started again and again, as its schedule does;
nothing else is done to a run from outside.
"""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.database import (
    POSTGRES,
    SQLITE,
    Database,
    OwnPostgres,
    parse_postmaster,
    postgres_account,
    server_settings,
)
from deployments.s3 import S3Server
from storage.objects import MANIFEST, Manifest, finished_objects
from storage.s3 import ObjectStore
from storage.store import STORE_SETTING, Store
from tests.chaos.hosts import MARK, Host, Network, Program, bare_environment
from tests.integration.served import PrefectApi, wait_for

POOLS = {"coordinator": 2, "cpu": 1, "gpu": 1}
WORKER_HOSTS = ("one", "two")
WORKER_DISK_MB = 128
EVERY_POOL: Mapping[str, tuple[str, ...]] = {name: tuple(POOLS) for name in WORKER_HOSTS}
# Less than the schedule's two minutes, and than the ten minutes for which it waits for a run that was claimed: what is
# measured is how it recovers, not how long it waits.
RECOVER_EVERY_S = 60
RECOVER = {"pending_minutes": 2}
SUPERVISOR_S = 5.0
PORT = 4200
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# What `maintain/recover` says of a run that it does not put back again, and when it would have done so at the latest.
GIVEN_UP = "was the last"
GIVEN_UP_AFTER_S = 4 * RECOVER_EVERY_S

Snapshot = Mapping[str, bytes]


@dataclass
class Cluster(PrefectApi):
    """The four hosts, and what a person or a schedule does with them.

    Args:
        placement: the pools of which each worker host has a worker.
        recover_every: seconds between two runs of `maintain/recover`.
    """

    network: Network
    database: str = SQLITE
    placement: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: EVERY_POOL)
    recover_every: float = RECOVER_EVERY_S
    s3: S3Server = field(init=False)
    database_port: int = field(default_factory=lambda: free_port())
    restarts: int = 0
    supervised: set[str] = field(default_factory=lambda: set(WORKER_HOSTS))

    # What runs where.

    def start(self) -> None:
        """Start everything, and register the deployments."""
        for name in ("server", "s3"):
            self.network.add(name)
        host = self.network.hosts["s3"]
        mark = f"{MARK}={host.mark}weed"
        self.s3 = S3Server(
            host.folder / "weed",
            address=host.address,
            within=lambda command: host.command(["env", mark, *command]),
        )
        self.s3.start()
        if self.database == POSTGRES:
            self._start_postgres()
        self.start_server()
        server = self.network.hosts["server"]
        self.await_server()
        server.run([sys.executable, "-m", "deployments.bootstrap", "register"], self.environment(server), timeout=300)
        for name in WORKER_HOSTS:
            self.network.add(name, WORKER_DISK_MB)
            self.start_workers(name)
        self.await_workers()

    def stop(self) -> None:
        """End the S3 server; all else ends with its host."""
        if hasattr(self, "s3"):
            self.s3.kill()

    @property
    def api_url(self) -> str:
        """The address of the Prefect API on every host."""
        return f"http://{self.network.hosts['server'].address}:{PORT}/api"

    @property
    def _postgres(self) -> OwnPostgres:
        return OwnPostgres(self.network.hosts["server"].folder)

    def _start_postgres(self) -> None:
        host = self.network.hosts["server"]
        account = postgres_account(os.geteuid())
        self._postgres.prepare(account)
        become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"] if account else []
        host.start("database", [*become, *self._postgres.command(self.database_port)], bare_environment())
        # Not `postmaster()`: the process has another id here than on its host.
        told = self._postgres.data / "postmaster.pid"
        wait_for(lambda: told.exists() and (found := parse_postmaster(told.read_text())) and found.ready, 60)

    def start_server(self) -> Program:
        """Start the Prefect server, over the database that is there."""
        host = self.network.hosts["server"]
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", host.address, "--port", str(PORT)]
        settings = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_STATIC_DIRECTORY": f"{host.disk}/ui",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            **server_settings(Database(self.database), self._postgres, self.database_port, {}),
        }
        return host.start("server", command, self.environment(host) | settings)

    def await_server(self) -> None:
        """Wait until the Prefect server answers."""
        program = self.network.hosts["server"].programs["server"]
        wait_for(lambda: self._is_healthy() or not program.is_running(), 300)
        assert program.is_running(), program.log.read_text()[-3000:]

    def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.api_url}/health", timeout=5, trust_env=False).status_code == 200
        return False

    def start_workers(self, name: str) -> None:
        """Start a host's workers."""
        for pool in self.placement[name]:
            self.start_worker(name, pool)

    def start_worker(self, name: str, pool: str) -> Program:
        """Start one worker, as `deployments.services.start_worker` does."""
        host = self.network.hosts[name]
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        command += ["--name", f"{pool}-{name}", "--limit", str(POOLS[pool]), "--install-policy", "never"]
        settings = {
            "OMP_NUM_THREADS": "1",
            "TELLTALE_THREADS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        }
        return host.start(pool, command, self.environment(host) | settings)

    def environment(self, host: Host) -> dict[str, str]:
        """The settings of everything on a host."""
        temporary = host.disk / "tmp"
        if host.network.isolation == "processes":
            temporary.mkdir(exist_ok=True)
        else:
            host.run(["mkdir", "-p", str(temporary)], bare_environment())
        return {
            **bare_environment(),
            **self.s3.environment,
            "HOME": str(host.disk),
            "TMPDIR": str(temporary),
            "TELLTALE_HOME": str(host.disk / "telltale"),
            "PREFECT_HOME": str(host.disk / "prefect"),
            "PREFECT_PROFILE": "ephemeral",
            "PREFECT_API_URL": self.api_url,
            "DO_NOT_TRACK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def await_workers(self) -> None:
        """Wait until the server has heard of all workers."""
        wanted = {f"{pool}-{name}" for name, pools in self.placement.items() for pool in pools}
        wait_for(lambda: set().union(*(self.online(pool) for pool in POOLS)) >= wanted, 300)

    def revive(self) -> None:
        """Bring back a host that has died."""
        for name in WORKER_HOSTS:
            if name not in self.supervised:
                self.network.hosts[name].boot()
                self.start_workers(name)
                self.supervised.add(name)
        self.await_workers()

    def workers(self) -> list[Program]:
        """The workers of all hosts."""
        return [program for name in WORKER_HOSTS for program in self.network.hosts[name].programs.values()]

    # What is done from outside.

    @contextlib.contextmanager
    def tended(self) -> Iterator[None]:
        """Within this block workers that end are restarted, and `maintain/recover` runs as its schedule has it."""
        over = threading.Event()
        threads = [threading.Thread(target=each, args=(over,)) for each in (self._supervise, self._recover)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _supervise(self, over: threading.Event) -> None:
        while not over.wait(SUPERVISOR_S):
            for name in sorted(self.supervised):
                for pool, program in list(self.network.hosts[name].programs.items()):
                    if pool in POOLS and not program.is_running():
                        # A starting program that meets a full disk ends again: the next round tries once more.
                        with contextlib.suppress(subprocess.CalledProcessError):
                            self.start_worker(name, pool)
                            self.restarts += 1

    def _recover(self, over: threading.Event) -> None:
        while not over.wait(self.recover_every):
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                self.start_run("maintain/recover", RECOVER)

    def start_run(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of a deployment, as the UI does; returns its id."""
        url = f"{self.api_url}/deployments/name/{deployment}"
        found = httpx.get(url, timeout=60, trust_env=False).raise_for_status().json()
        run = self.ask(f"/deployments/{found['id']}/create_flow_run", parameters=dict(parameters))
        return str(run["id"])

    # What is asked.

    def online(self, pool: str) -> set[str]:
        """Names of a pool's workers that the server has heard of lately."""
        return {
            worker["name"]
            for worker in self.ask(f"/work_pools/{pool}/workers/filter")
            if worker["status"] == "ONLINE" and worker["last_heartbeat_time"]
        }

    def ended(self, run: str) -> dict[str, Any] | None:
        """A flow run that has ended. One that crashed has not, for a while: `maintain/recover` puts it back."""
        (found,) = self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        state = found["state"]
        if state["type"] == "CRASHED" and not state["message"].endswith(GIVEN_UP):
            age = datetime.now(UTC) - datetime.fromisoformat(state["timestamp"])
            return found if age.total_seconds() > GIVEN_UP_AFTER_S else None
        return found if state["type"] in FINAL else None

    def living_runs(self) -> list[dict[str, Any]]:
        """Flow runs that are in no final state, without those of `maintain`."""
        states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "PAUSED", "CANCELLING"]}}}
        found = self.ask("/flow_runs/filter", flow_runs=states)
        return [run for run in found if not self._is_maintenance(run)]

    def task_runs(self, since: str) -> list[dict[str, Any]]:
        """All task runs that were started since a moment (ISO 8601, UTC)."""
        found: list[dict[str, Any]] = []
        while page := self.ask(
            "/task_runs/filter",
            task_runs={"start_time": {"after_": since}},
            sort="ID_DESC",
            limit=200,
            offset=len(found),
        ):
            found += page
        return found

    def lanes(self, run: str) -> list[dict[str, Any]]:
        """The lanes that a run has started."""
        tags = {"all_": [f"plan {run}-0"]}
        return list(self.ask("/flow_runs/filter", flow_runs={"tags": tags}, limit=200))

    def _is_maintenance(self, run: Mapping[str, Any]) -> bool:
        return "evaluate" not in run["name"] and run["name"].startswith(("recover", "sweep"))

    # The store.

    @contextlib.contextmanager
    def credentials(self) -> Iterator[None]:
        """Within this block this process may use the store."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in self.s3.environment.items():
                patch.setenv(name, value)
            yield

    @property
    def store(self) -> ObjectStore:
        """The store that all workers share."""
        return ObjectStore(self.s3.environment[STORE_SETTING])

    def empty_store(self) -> None:
        """Remove everything."""
        for folder in ("objects", "checkpoints", "runs", "plans", "claims"):
            for key in self.store.list(folder):
                self.store.delete(key)
        self.store.delete("refs/latest.json")


def free_port() -> int:
    """A port that is free on this machine's loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def snapshot(store: Store) -> dict[str, bytes]:
    """Every finished object's manifest, by its place."""
    return {uri: store.read(f"{uri}/{MANIFEST}") for uri in finished_objects(store)}


def digests(manifests: Mapping[str, bytes]) -> dict[str, str]:
    """Content digest of every object."""
    return {place: Manifest.model_validate_json(manifest).content for place, manifest in manifests.items()}


def half_written(store: Store, manifests: Mapping[str, bytes]) -> list[str]:
    """Places of objects a part of which is missing, or has not the size and sha256 that the manifest states."""
    broken = []
    for place, document in manifests.items():
        for part in Manifest.model_validate_json(document).parts:
            key = f"{place}/{part.file}"
            data = store.read(key) if store.size(key) is not None else b""
            if len(data) != part.bytes or hashlib.sha256(data).hexdigest() != part.sha256:
                broken.append(place)
    return broken


def evaluate_undisturbed(
    cluster: Cluster, folder: Path, overrides: Mapping[str, Any], seed: int
) -> "subprocess.Popen[bytes]":
    """Start the same evaluation in one process of this machine, into a store of its own, `folder/store`."""
    code = (
        "import json, sys; from flows.evaluate import evaluate_all; "
        "evaluate_all(experiment='sample', overrides=json.loads(sys.argv[1]), seed=int(sys.argv[2]))"
    )
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **bare_environment(),
        "HOME": str(folder),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_PROFILE": "ephemeral",
        "PREFECT_API_URL": cluster.api_url,
        "TELLTALE_HOME": str(folder / "home"),
        STORE_SETTING: str(folder / "store"),
        "TELLTALE_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
    }
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", code, json.dumps(dict(overrides)), str(seed)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)


def now() -> str:
    """This moment, as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
