"""Checks before any work: everything that a run needs, and for everything missing its remedy, within seconds."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from storage.errors import MissingInput, StoreError
from storage.store import check_writable, open_store
from tasks.data.coco import check_coco
from tasks.data.columns import check_column
from tasks.data.folder import check_folder
from tasks.detectors.inception import check_inception
from tasks.detectors.mobilenet_weights import check_mobilenet
from tasks.detectors.vgg16 import check_vgg16
from tasks.generators.diffusion import check_pipeline
from tasks.presets import load_unfilled
from tasks.spec import CocoSource, ColumnSource, DiffusionSource, Experiment, FineTuned, FolderSource

POOLS = ("coordinator", "cpu", "gpu")
WORKER_SILENCE_S = 300


def checked_experiment(
    name: str, overrides: dict[str, Any] | None = None, seed: int | None = None, pools: Sequence[str] = ()
) -> Experiment:
    """Load an experiment, and raise `MissingInput` that names everything missing at once.

    Args:
        name: a preset's name or a YAML file; its data directories, weights and models are looked for.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        pools: work pools that must exist and have a worker online.
    """
    experiment, unset = load_unfilled(name, overrides, seed)
    found = [
        *_missing_data(experiment),
        *check_vgg16(experiment.extractor),
        *check_inception(experiment.inception),
        *_missing_network_weights(experiment),
        *_missing_store(pools),
        *_missing_pools(pools),
    ]
    # What hangs on a variable that is not set cannot be looked for.
    missing = [
        *unset.values(),
        *(line for line in dict.fromkeys(found) if not any(variable in line for variable in unset)),
    ]
    if missing:
        raise MissingInput(*missing)
    return experiment


def _missing_data(experiment: Experiment) -> Iterator[str]:
    for source in experiment.sources:
        if isinstance(source, CocoSource):
            yield from check_coco(source.directory, source.split)
        elif isinstance(source, FolderSource):
            yield from check_folder(source)
        elif isinstance(source, ColumnSource):
            yield from check_column(source)
        elif isinstance(source, DiffusionSource):
            yield from check_pipeline(source.diffusion)


def _missing_network_weights(experiment: Experiment) -> Iterator[str]:
    networks = () if experiment.mobile is None else experiment.mobile.networks
    # Networks that differ in their head alone start from one file: it is asked for once, as an address may be slow.
    files = {(network.weights, network.width): network for network in networks if isinstance(network, FineTuned)}
    for network in files.values():
        yield from check_mobilenet(network)


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
                workers = client.read_workers_for_work_pool(pool)
                online += sum(_was_heard_of(worker.last_heartbeat_time) for worker in workers)
    return online


def _missing_pools(pools: Sequence[str]) -> Iterator[str]:
    if not pools:
        return
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                workers = client.read_workers_for_work_pool(pool)
            except ObjectNotFound:
                yield f"work pool {pool!r}: run `make serve`, or create it with `prefect work-pool create`"
                continue
            if not any(_was_heard_of(worker.last_heartbeat_time) for worker in workers):
                yield f"a worker of pool {pool!r}: start one with `prefect worker start --pool {pool}`"


def _was_heard_of(heartbeat: datetime | None) -> bool:
    """Whether a worker may still be there. Its status says OFFLINE after one lost heartbeat, as on a busy machine."""
    return heartbeat is not None and (datetime.now(UTC) - heartbeat).total_seconds() < WORKER_SILENCE_S
