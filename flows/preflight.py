"""Checks before any work: everything that a run needs, and for everything missing its remedy, within seconds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from storage.errors import MissingInput, StoreError, TelltaleError
from storage.opening import open_store
from storage.store import check_writable
from tasks.facts import FactPool, Question, answered_by, ask_all, fact
from tasks.networks.mobilenet_weights import check_mobilenet, mobilenet_digest
from tasks.presets import load_unfilled
from tasks.spec.base import on_this_machine
from tasks.spec.detectors import FineTuned
from tasks.spec.experiment import Experiment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# Gives what this machine lacks of an experiment, each with its remedy.
Check = Callable[[Experiment], tuple[str, ...]]

POOLS = ("coordinator", "cpu", "gpu")
# Prefect's workers report every 30 s unless told otherwise.
WORKER_SILENCE_S = 120


def checked_experiment(
    name: str,
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    pools: Sequence[str] = (),
    checks: Sequence[Check] | None = None,
) -> Experiment:
    """Load an experiment, and raise `MissingInput` that names everything missing at once.

    Where work is spread over pools, data directories, weights and models are looked for by their workers
    (`refuse_missing`), else here.

    Args:
        name: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        pools: work pools that must exist and have a worker online.
        checks: what is looked for here, where no pools are named; without them all of `CHECKS`.
    """
    experiment, unset = load_unfilled(name, overrides, seed)
    of_data = () if pools else [line for check in checks or CHECKS for line in check(experiment)]
    missing = [*unset.values(), *dict.fromkeys(of_data), *_missing_store(pools), *missing_pools(pools)]
    if missing:
        raise MissingInput(*missing)
    return experiment


def refuse_missing(experiment: Experiment, pools: Sequence[str]) -> None:
    """Raise `MissingInput` with all that the workers of the pools lack of an experiment's data, weights and models.

    What makes pictures alone needs no detector: these are asked about where work goes to all pools.
    """
    asked = CHECKS if {"cpu", "gpu"} <= set(pools) else CHECKS[:2]
    checks = [check for check in asked if check.pool in pools]
    ask_all([(check, (experiment,)) for check in checks])
    found: dict[str, str | None] = {}
    for check in checks:
        for line in check(experiment):
            found.setdefault(line, answered_by(check, experiment))
    if found:
        raise MissingInput(
            *(line if worker is None else f"{line} (on worker {worker})" for line, worker in found.items())
        )


def wanted_facts(experiment: Experiment) -> list[Question]:
    """Every fact that planning an experiment asks, with its arguments: first what is missing, so that it is said."""
    wanted: list[Question] = [(check, (experiment,)) for check in CHECKS]
    for extractor in experiment.extractors:
        wanted += extractor.facts()
    wanted += [question for source in experiment.sources for question in source.facts()]
    wanted += [question for detector in experiment.all_detectors for question in detector.facts()]
    wanted += [(mobilenet_digest, (network.weights, network.width)) for network in _networks_with_weights(experiment)]
    return wanted


@fact(pool="cpu")
def missing_photographs(experiment: Experiment) -> tuple[str, ...]:
    """What this machine lacks of an experiment's photographs and folders, each with its remedy; fast."""
    return tuple(line for check in _of_sources(experiment, "cpu") for line in _lacking(check))


@fact(pool="gpu")
def missing_weights(experiment: Experiment) -> tuple[str, ...]:
    """What this machine lacks of an experiment's weights and models, each with its remedy; a few seconds at most."""
    checks = _of_sources(experiment, "gpu")
    checks += [extractor.missing for extractor in experiment.extractors]
    checks += [partial(_check_network, network) for network in _networks_with_weights(experiment)]
    return tuple(line for check in checks for line in _lacking(check))


@fact(pool="cpu")
def missing_detectors(experiment: Experiment) -> tuple[str, ...]:
    """What this machine lacks of perturbations, and of detectors that score on the pool `cpu`, each with its remedy."""
    return _missing_of_detectors(experiment, "cpu")


@fact(pool="gpu")
def missing_gpu_detectors(experiment: Experiment) -> tuple[str, ...]:
    """The same of the pool `gpu`, whose workers make views as well; a few seconds at most."""
    return _missing_of_detectors(experiment, "gpu")


def _missing_of_detectors(experiment: Experiment, pool: FactPool) -> tuple[str, ...]:
    checks = [detector.missing for detector in experiment.all_detectors if detector.pool == pool]
    checks += [perturbation.missing for perturbation in experiment.perturbations]
    return tuple(line for check in checks for line in _lacking(check))


def missing_sources(experiment: Experiment) -> tuple[str, ...]:
    """What this machine lacks of an experiment's sources, on whichever pool: enough for who needs pictures alone."""
    return tuple(line for source in experiment.sources for line in _lacking(source.missing))


CHECKS = (missing_photographs, missing_weights, missing_detectors, missing_gpu_detectors)


def _lacking(check: Callable[[], list[str]]) -> list[str]:
    """What a check finds; what hangs on a variable that is not set cannot be looked for."""
    try:
        return check()
    except MissingInput as error:
        return list(error.missing)
    except TelltaleError as error:
        return [str(error)]


def _of_sources(experiment: Experiment, pool: FactPool) -> list[Callable[[], list[str]]]:
    """What asks each source of a pool what this machine lacks of it."""
    return [source.missing for source in experiment.sources if source.pool == pool]


def _check_network(network: FineTuned) -> list[str]:
    return check_mobilenet(on_this_machine(network))


def _networks_with_weights(experiment: Experiment) -> list[FineTuned]:
    """The networks that start from a file, one for each file: an address may be slow."""
    networks = () if experiment.mobile is None else experiment.mobile.networks
    tuned = [network for network in networks if isinstance(network, FineTuned)]
    return list({(network.weights, network.width): network for network in tuned}.values())


def _missing_store(pools: Sequence[str]) -> Iterator[str]:
    try:
        store = open_store()
        check_writable(store)
        exclusive = store.is_exclusive()
    except StoreError as error:
        yield f"a writable store ({error}): set TELLTALE_STORE to a folder or bucket that takes writes"
        return
    if not exclusive and (pools or _online_workers() > 1):
        yield (
            f"a store for several workers ({store.url} does not honour If-None-Match, so of two writers of one object"
            " both would win): take another server, or a single worker and dispatch=inline"
        )


def _online_workers() -> int:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    online = 0
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            with suppress(ObjectNotFound):
                online += len(online_workers(client, pool))
    return online


def missing_pools(pools: Sequence[str]) -> Iterator[str]:
    """Which of these work pools are not there, or have no worker, each with its remedy."""
    if not pools:
        return
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                online = online_workers(client, pool)
            except ObjectNotFound:
                yield f"work pool {pool!r}: run `make serve`, or create it with `prefect work-pool create`"
                continue
            if not online:
                yield f"a worker of pool {pool!r}: start one with `prefect worker start --pool {pool}`"


def online_workers(client: "SyncPrefectClient", pool: str) -> set[str]:
    """Names of a pool's workers that may still be there; `ObjectNotFound` where there is no such pool.

    A worker's status says OFFLINE after a few lost heartbeats, as on a busy machine.
    """
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    now = datetime.now(UTC)
    try:
        workers = client.read_workers_for_work_pool(pool)
    except PrefectHTTPStatusError as error:
        # Unlike other questions about a pool, this one is answered so.
        if error.response.status_code == httpx.codes.NOT_FOUND:
            raise ObjectNotFound(error) from error
        raise
    return {
        worker.name
        for worker in workers
        if worker.last_heartbeat_time is not None
        and (now - worker.last_heartbeat_time).total_seconds() < WORKER_SILENCE_S
    }
