"""Evaluations on several hosts while these, their links, their disks and both servers fail.

The short one is part of every test run. The long one (`make chaos`) writes what it measures, after every evaluation, to
`hosts.json` of the folder TELLTALE_CHAOS_RESULTS; `docs/RELIABILITY.md` shows it.
"""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import faults
from tests.chaos.cluster import Cluster
from tests.chaos.hosts import network
from tests.chaos.trial import Outcome, Reference, Trial, attempt, reference_run
from tests.integration.served import possible_database

# Six workers take a minute of two cores to start, each `maintain/recover` ten seconds of one.
ECONOMICAL: tuple[dict[str, tuple[str, ...]], float] = ({"one": ("coordinator", "cpu"), "two": ("gpu", "cpu")}, 240)
MOST_LOST_S = 120
LONG = os.environ.get("TELLTALE_CHAOS") == "on"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    # Not pytest's own folder, which only its user may enter: PostgreSQL runs as another one.
    folder = Path(tempfile.mkdtemp(prefix="telltale-chaos-"))
    folder.chmod(0o755)
    with network(folder) as made:
        cluster = Cluster(made, possible_database()) if LONG else Cluster(made, possible_database(), *ECONOMICAL)
        try:
            cluster.start()
            with cluster.credentials():
                yield cluster
        finally:
            cluster.stop()
    if request.session.testsfailed:
        print(f"what the hosts wrote: {folder}")
    else:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def reference(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Reference]]:
    with reference_run(cluster, tmp_path_factory.mktemp("undisturbed")) as get:
        if LONG:
            get()  # in the long run the machine is the disturbed evaluation's alone
        yield get


def s3_then_a_lane(trial: Trial) -> None:
    """Two faults of different kinds in one evaluation, neither of which has to wait for `maintain/recover`."""
    faults.restart_s3(trial, seconds=(3, 6))
    faults.kill_lanes(trial)


@pytest.mark.skipif(LONG, reason="the long run has it all")
def test_an_evaluation_outlives_its_s3_server_and_a_lanes_process(
    cluster: Cluster, reference: Callable[[], Reference]
) -> None:
    outcome = attempt(cluster, reference, "S3 server and a lane killed", s3_then_a_lane, seed=1)
    assert outcome.recovered, outcome
    assert outcome.kept == outcome.finished, outcome
    assert outcome.times == 2, outcome


CASES: dict[str, tuple[Callable[[Trial, int], None], tuple[int, ...]]] = {
    "nothing": (lambda trial, times: None, (0,)),
    "lane killed": (faults.kill_lanes, (3,)),
    "process of the evaluation's own run killed": (faults.kill_coordinator, (1,)),
    "host of the evaluation's own run dies for good": (faults.lose_host, (1,)),
    "worker killed with its flow runs": (faults.kill_workers, (3,)),
    "lane stopped for 100 to 130 s": (faults.stop_lanes, (1,)),
    "S3 server killed, back after 5 to 30 s": (faults.restart_s3, (2,)),
    "Prefect server killed, restarted after 5 to 20 s": (faults.restart_prefect, (2,)),
    "worker host cut off for 60 to 120 s": (faults.cut_off, (1,)),
    "disks of both worker hosts full for 60 to 120 s": (faults.fill_disks, (1,)),
}


@pytest.mark.skipif(not LONG, reason="long: make chaos (TELLTALE_CHAOS=on)")
@pytest.mark.parametrize("fault", CASES)
def test_long_an_evaluation_outlives(fault: str, cluster: Cluster, reference: Callable[[], Reference]) -> None:
    inject, evaluations = CASES[fault]
    outcomes: list[Outcome] = []
    for seed, times in enumerate(evaluations):
        cluster.revive()
        outcome = attempt(cluster, reference, fault, lambda trial, times=times: inject(trial, times), seed)  # type: ignore[misc]
        outcomes.append(outcome)
        record(cluster, fault, outcomes)
    # A run starts four times at most: random victims may be one and the same run four times.
    assert all(outcome.recovered or outcome.was_given_up for outcome in outcomes), outcomes
    assert any(outcome.recovered for outcome in outcomes), outcomes
    assert all(outcome.kept == outcome.finished for outcome in outcomes), outcomes
    # Nothing is computed twice but what was at work, nothing of which had lasted long.
    assert all(outcome.tries - outcome.steps <= outcome.hit for outcome in outcomes), outcomes
    assert all(outcome.lost_s <= MOST_LOST_S for outcome in outcomes), outcomes


def record(cluster: Cluster, fault: str, outcomes: Sequence[Outcome]) -> None:
    """Put a fault's outcomes into the results' file, in place of those that it has of an earlier run."""
    folder = os.environ.get("TELLTALE_CHAOS_RESULTS")
    if folder:
        path = Path(folder) / "hosts.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"outcomes": []}
        known["machine"] = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
        known["hosts"] = cluster.network.isolation
        known["database"] = cluster.database
        of_others = [one for one in known["outcomes"] if one["fault"] != fault]
        known["outcomes"] = of_others + [outcome.record() for outcome in outcomes]
        path.write_text(json.dumps(known, indent=1) + "\n")
