"""The faults: each is injected into an evaluation that is under way, and repaired, or not, as the world would.

A fault comes at a random moment of the work: when a drawn number of objects is finished for the first one, and drawn
seconds after the one before for the others.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from tests.chaos.cluster import WORKER_HOSTS
from tests.chaos.hosts import Program
from tests.chaos.trial import Trial, flow_runs
from tests.integration.served import wait_for

# Of some fifty objects; a fault before the first says little about what is kept.
FIRST_OBJECTS = (2, 15)
PAUSE_S = (10.0, 40.0)


def kill_lanes(trial: Trial, times: int = 1) -> None:
    """The process of a lane dies; its worker lives, and says so."""
    for _ in moments(trial, times):
        victim, runs = lane_at_work(trial)
        if not runs:
            return
        trial.remember(f"{trial.host_of(victim).name}, {victim.name}", hit=len(set(runs.values())))
        for pid in runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stop_lanes(trial: Trial, times: int = 1) -> None:
    """The process of a lane stands still for longer than its claims hold, and goes on."""
    for _ in moments(trial, times):
        victim, runs = lane_at_work(trial)
        if not runs:
            return
        seconds = trial.random.uniform(100, 130)
        trial.remember(f"{trial.host_of(victim).name}, {victim.name} for {seconds:.0f} s", hit=len(set(runs.values())))
        for sent, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in runs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sent)
            time.sleep(pause)


def kill_coordinator(trial: Trial, times: int = 1) -> None:
    """The process of the evaluation's own run dies; its worker lives, and says so."""
    for _ in moments(trial, times):
        (coordinator,) = trial.running(trial.run)
        trial.remember(trial.host_of(coordinator).name)
        for pid, run in flow_runs(coordinator).items():
            if run == trial.run:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def lane_at_work(trial: Trial) -> tuple[Program, dict[int, str]]:
    """A worker with a lane that is making something, drawn, and its processes; none if the evaluation ends first."""
    lanes = wait_for(lambda: trial.has_ended() or trial.at_work())
    if trial.has_ended():
        return trial.cluster.workers()[0], {}
    run = trial.random.choice(sorted(lanes))
    return lanes[run], {pid: each for pid, each in flow_runs(lanes[run]).items() if each == run}


def cut_off(trial: Trial, times: int = 1) -> None:
    """A host that works is cut off from all others for one to two minutes, and comes back."""
    for _ in moments(trial, times):
        host = trial.host_of(trial.random.choice(trial.busy()))
        seconds = trial.random.uniform(60, 120)
        trial.remember(f"{host.name} for {seconds:.0f} s", hit=trial.lanes_on(*host.programs.values()))
        host.cut()
        time.sleep(seconds)
        host.restore()


def kill_workers(trial: Trial, times: int = 1) -> None:
    """A worker that has a flow run dies with all its processes; its supervisor restarts it."""
    for _ in moments(trial, times):
        victim = trial.random.choice(trial.busy())
        trial.remember(f"{trial.host_of(victim).name}, {victim.name}", hit=trial.lanes_on(victim))
        victim.kill()


def restart_s3(trial: Trial, times: int = 1, seconds: tuple[float, float] = (5, 30)) -> None:
    """The S3 server is killed, and is back after some seconds."""
    for _ in moments(trial, times):
        away = trial.random.uniform(*seconds)
        trial.remember(f"for {away:.0f} s", hit=trial.lanes_on(*trial.cluster.workers()))
        trial.cluster.s3.kill()
        time.sleep(away)
        trial.cluster.s3.start()


def restart_prefect(trial: Trial, times: int = 1) -> None:
    """The Prefect server is killed, and is started again after some seconds."""
    for _ in moments(trial, times):
        away = trial.random.uniform(5, 20)
        hit = trial.lanes_on(*trial.cluster.workers())
        trial.remember(f"for {away:.0f} s, and as long as it takes to start", hit=hit)
        trial.cluster.network.hosts["server"].programs["server"].kill()
        time.sleep(away)
        trial.cluster.start_server()
        trial.cluster.await_server()


def fill_disks(trial: Trial, times: int = 1) -> None:
    """The disks of both worker hosts, with home and temporary folder, are full for one to two minutes."""
    for _ in moments(trial, times):
        hosts = [trial.cluster.network.hosts[name] for name in WORKER_HOSTS]
        seconds = trial.random.uniform(60, 120)
        trial.remember(f"for {seconds:.0f} s", hit=trial.lanes_on(*trial.cluster.workers()))
        for host in hosts:
            host.fill_disk()
        time.sleep(seconds)
        for host in hosts:
            host.free_disk()


def lose_host(trial: Trial, times: int = 1) -> None:
    """The host of the evaluation's own flow run dies for good, with all that runs on it."""
    assert times == 1, "only one of the two hosts can be lost"
    for _ in moments(trial, times):
        (coordinator,) = trial.running(trial.run)
        host = trial.host_of(coordinator)
        trial.remember(host.name, hit=trial.lanes_on(*host.programs.values()))
        trial.cluster.supervised.discard(host.name)
        host.kill()


def moments(trial: Trial, times: int) -> Iterator[int]:
    """Wait for so many random moments of the evaluation at which it is being worked on; fewer, where it ends first."""
    trial.await_objects(trial.random.randint(*FIRST_OBJECTS))
    for number in range(times):
        if number:
            time.sleep(trial.random.uniform(*PAUSE_S))
        if not trial.await_work():
            return
        yield number
