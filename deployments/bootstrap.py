"""`make serve`, `make stop`: a local telltale with server, UI, pools, deployments and workers.

    python -m deployments.bootstrap serve|register|stop|status

`serve` may be called again at any time: it reuses what runs and restarts what died. What it deploys is in
`prefect.yaml`; the pools and the order of their queues are made here first, because `prefect deploy` would create
queues in the order in which it meets them.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from deployments import home_folder, processes, services
from deployments.database import POSTGRES, OwnPostgres, take_setting
from deployments.failures import exit_status, sentence
from storage.errors import SpecError, TelltaleError
from storage.runs import REPORTS_SETTING
from tasks.presets import PRESETS, load_unfilled
from tasks.spec.experiment import Experiment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HERE = Path(__file__).parent
PREFECT_FILE = HERE / "prefect.yaml"
SCHEDULES_SETTING = "SCHEDULES"
DEVICES_SETTING = "GPU_DEVICES"

POOLS = {
    "coordinator": "Runs that have their work done by lanes in the other pools: they never take a place there.",
    "cpu": "Lanes without a GPU: shards, detectors, cells of the grid; downloads, the app, sweeping.",
    "gpu": "Lanes for a GPU (they run without one, slowly). One worker per device, each with limit 1; no limit here.",
}
# More than anybody has at once, and they wait most of the time: maintain/recover must find a place beside them.
COORDINATOR_LIMIT = 12
# In this order: what a person waits for goes before what a schedule started.
QUEUES = {"gpu": {"interactive": 1, "scheduled": 2}}

application = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Limit = Annotated[int, typer.Option(min=1, help="How many flow runs this pool's worker runs at once.")]


@application.command()
def serve(coordinator_limit: Limit = COORDINATOR_LIMIT, cpu_limit: Limit = 1, gpu_limit: Limit = 1) -> None:
    """Start server and UI, make the pools, register all deployments, start one worker per pool.

    GPU_DEVICES=0,1 starts a worker of the gpu pool for each of these devices.

    DATABASE says where Prefect keeps its runs: sqlite (default), postgres (a server of our own), or the address of a
    PostgreSQL database.
    """
    database = take_setting(os.environ)
    check_presets()
    wanted = schedules_setting()
    devices_setting()
    home_folder.check_settings()
    handle = services.ensure_server(typer.echo, database)
    os.environ.update(handle.environment)
    reports = services.ensure_reports(handle, typer.echo)
    if reports is not None:
        # Workers get it as a setting: links to reports lead there.
        os.environ[REPORTS_SETTING] = reports
    with home_folder.locked(home_folder.home()):
        state = home_folder.load_state(home_folder.home())
        make_pools()
        # Another database knows other deployments, at the same address.
        fingerprint = deployment_fingerprint(f"{handle.api_url} {state.kept_in}")
        # Registering again would reset schedules that a person has switched in the UI.
        if state.deployed == fingerprint and everything_is_deployed():
            typer.echo("deployments: up to date")
        else:
            deploy()
            state.deployed, state.schedules = fingerprint, "off"
        if state.schedules != wanted:
            switch_schedules(active=wanted == "on")
            state.schedules = wanted
        typer.echo("schedules: run" if wanted == "on" else "schedules: paused; SCHEDULES=on make serve starts them")
        home_folder.save_state(home_folder.home(), state)
        limits = {"coordinator": coordinator_limit, "cpu": cpu_limit, "gpu": gpu_limit}
        start_workers(state, limits, handle)
    print_address(handle, reports)


@application.command()
def register() -> None:
    """Only make the pools and register all deployments, on the server that PREFECT_API_URL names."""
    address = os.environ.get("PREFECT_API_URL")
    if not address or not services.answers(address):
        raise SpecError(f"PREFECT_API_URL: expected the address of a server that answers, got {address!r}")
    check_presets()
    wanted = schedules_setting()
    make_pools()
    deploy()
    switch_schedules(active=wanted == "on")


@application.command()
def stop() -> None:
    """Stop all that `serve` or the demo started here, and check that it is gone."""
    stopped = services.stop()
    typer.echo(f"stopped {len(stopped)} processes; none is left" if stopped else "nothing was running")


@application.command()
def status() -> None:
    """Say what runs."""
    folder = home_folder.home()
    state = home_folder.load_state(folder)
    if postgres := OwnPostgres(folder).postmaster():
        typer.echo(f"{'database':12} runs, process {postgres.pid}")
    elif state.server is not None and state.kept_in == POSTGRES:
        typer.echo(f"{'database':12} does not run")
    for name, process in {"server": state.server, "reports": state.reports, **state.workers}.items():
        running = process is not None and processes.is_running(process, folder)
        typer.echo(f"{name:12} {f'runs, process {process.pid}' if process and running else 'does not run'}")
    if state.server is not None and state.port is not None and processes.is_running(state.server, folder):
        typer.echo(f"UI           http://127.0.0.1:{state.port}")
    if state.reports is not None and processes.is_running(state.reports, folder):
        typer.echo(f"reports      http://127.0.0.1:{state.reports_port}")


def check_presets() -> dict[str, Experiment]:
    """Validate every preset's structure; environment variables that it names may be missing still.

    One bad default would stop all deployments half-way, so this comes first.
    """
    return {path.stem: load_unfilled(path.stem)[0] for path in sorted(PRESETS.glob("*.yaml"))}


def make_pools() -> None:
    """Create or update the work pools, and put their queues into order."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for name, description in POOLS.items():
            template = json.loads((HERE / "pools" / f"{name}.json").read_text(encoding="utf-8"))
            try:
                pool = client.read_work_pool(name)
            except ObjectNotFound:
                client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
                )
            else:
                # A pool that was made for a cluster keeps its own template.
                if pool.type == "process" and pool.base_job_template != template:
                    client.update_work_pool(name, WorkPoolUpdate(description=description, base_job_template=template))
            order_queues(client, name)


def order_queues(client: "SyncPrefectClient", pool: str) -> None:
    """Create a pool's queues and give them their priorities (1 comes first)."""
    priorities = {queue.name: queue.priority for queue in client.read_work_queues(work_pool_name=pool)}
    for name, priority in QUEUES.get(pool, {}).items():
        if name not in priorities:
            client.create_work_queue(name=name, priority=priority, work_pool_name=pool)
        elif priorities[name] != priority:
            where = {"work_pool_name": pool, "name": name}
            client.request(
                "PATCH", "/work_pools/{work_pool_name}/queues/{name}", path_params=where, json={"priority": priority}
            ).raise_for_status()


def deploy() -> None:
    """Register everything of `prefect.yaml`, with paused schedules.

    Raises:
        TelltaleError: `prefect deploy` failed; the message ends with what it printed.
    """
    typer.echo(f"registering {len(deployments())} deployments ...")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TelltaleError(f"prefect deploy failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def switch_schedules(active: bool) -> None:
    """Start or pause the schedules of all our deployments."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if (deployment.entrypoint, deployment.name) in deployments():
                for schedule in deployment.schedules:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=active)


def everything_is_deployed() -> bool:
    """Whether the server knows all deployments of `prefect.yaml`."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        known = {(deployment.entrypoint, deployment.name) for deployment in client.read_deployments()}
    return set(deployments()) <= known


def deployments() -> list[tuple[str, str]]:
    """Entrypoint and name of all deployments of `prefect.yaml`."""
    document = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    return [(deployment["entrypoint"], deployment["name"]) for deployment in document["deployments"]]


def deployment_fingerprint(server: str) -> str:
    """Changes when something must be registered again: `prefect.yaml`, the flows' signatures, another server."""
    digest = hashlib.sha256(server.encode())
    for path in (PREFECT_FILE, *sorted((HERE.parent / "flows").glob("*.py"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def schedules_setting() -> str:
    """`SCHEDULES`: on or off, which is the default.

    Raises:
        TelltaleError: it is set to something else.
    """
    setting = os.environ.get(SCHEDULES_SETTING) or "off"
    if setting not in ("on", "off"):
        raise SpecError(f"{SCHEDULES_SETTING}: expected on or off, got {setting!r}")
    return setting


def devices_setting() -> tuple[str, ...]:
    """`GPU_DEVICES`: the GPUs that get a worker each, such as `0,1`; none where it is not set.

    Raises:
        TelltaleError: it is no list of different devices.
    """
    setting = os.environ.get(DEVICES_SETTING) or ""
    devices = tuple(setting.split(",")) if setting else ()
    if not all(re.fullmatch(r"[A-Za-z0-9-]+", device) for device in devices) or len(set(devices)) < len(devices):
        raise SpecError(
            f"{DEVICES_SETTING}: expected different devices as CUDA_VISIBLE_DEVICES names them, such as 0,1, "
            f"got {setting!r}"
        )
    return devices


def wanted_workers(devices: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """Pool and device of every worker, by the name under which it is kept: one per pool, or per device of the gpu pool.

    Without devices the gpu pool's one worker sees what `make serve` sees.
    """
    workers: dict[str, tuple[str, str | None]] = {pool: (pool, None) for pool in POOLS if pool != "gpu" or not devices}
    return workers | {f"gpu-{device}": ("gpu", device) for device in devices}


def start_workers(state: home_folder.State, limits: dict[str, int], handle: services.ServerHandle) -> None:
    """Start the workers that do not run; those that do are left alone, with the flow runs that they have."""
    devices = ",".join(devices_setting())
    settings = home_folder.worker_settings() | {"PREFECT_API_URL": handle.api_url}
    if devices:
        settings[DEVICES_SETTING] = devices
    running = [name for name in state.workers if processes.is_running(state.workers[name], home_folder.home())]
    changed = sorted({name for name, _ in settings.items() ^ state.worker_settings.items()})
    if running and changed:
        typer.echo(f"workers keep the settings they started with: stop and serve again to change {', '.join(changed)}")
    if not running:
        state.workers = {}
        state.worker_settings = settings
    began = datetime.now(UTC)
    kept = state.worker_settings.get(DEVICES_SETTING, "")
    workers = wanted_workers(kept.split(",") if kept else ())
    for name, (pool, device) in workers.items():
        if name not in running:
            state.workers[name] = services.start_worker(pool, limits[pool], handle, device)
    home_folder.save_state(home_folder.home(), state)
    await_workers({workers[name]: state.workers[name] for name in workers if name not in running}, began)
    for name, (pool, device) in workers.items():
        place = pool if device is None else f"{pool}, device {device}"
        typer.echo(f"worker of pool {place}: {'runs already' if name in running else 'started'}")


def await_workers(workers: Mapping[tuple[str, str | None], processes.Process], began: datetime) -> None:
    """Wait until these workers, by pool and device, have reported to the server since `began`.

    Evaluations refuse pools without a worker.

    Raises:
        TelltaleError: one of them ended or is not heard of in time; the message ends with its log.
    """
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + processes.START_TIMEOUT_S
    with get_client(sync_client=True) as client:
        for (pool, device), process in workers.items():
            typer.echo(f"worker of pool {pool}: starting, process {process.pid} ...")
            while not any(
                worker.last_heartbeat_time is not None and worker.last_heartbeat_time >= began
                for worker in client.read_workers_for_work_pool(pool)
                if worker.name == services.worker_name(pool, device)
            ):
                if not processes.is_running(process, home_folder.home()) or time.monotonic() > deadline:
                    raise TelltaleError(
                        f"the worker of pool {pool} did not come online; its log says:\n{processes.tail(process.log)}"
                    )
                time.sleep(0.3)


def print_address(handle: services.ServerHandle, reports: str | None) -> None:
    """Say where the UI is, and the two lines after which `prefect` works in the user's shell."""
    typer.echo(
        f"""
UI: {handle.ui_url}
Reports: {reports or "not served"}
Logs: {home_folder.home() / "logs"}

In your shell:
    export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"
    export PREFECT_API_URL={handle.api_url}
Then, for example:
    prefect deployment run evaluate/sample

`make stop` stops everything."""
    )


def main() -> None:
    """Run a command; what is wrong outside is one message, and exit status 2 where an input or a setting is, else 1."""
    try:
        application()
    except (TelltaleError, OSError) as error:
        typer.echo(f"error: {sentence(error)}", err=True)
        sys.exit(exit_status(error))


if __name__ == "__main__":
    main()
