"""A network to give away: fitted on all of an experiment's pictures, with what it was wrong in when it was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.generate import generated
from flows.histories import Pictures, counted_encodings, pictures_by_source
from flows.names import Request, run_name
from flows.networks import canonical_by_source, canonical_shards
from flows.preflight import missing_sources
from flows.runner import attempt, tasks_side_by_side
from flows.shard import image_shards
from storage.errors import MissingInput
from storage.objects import Ref, read_part
from storage.opening import open_store
from storage.paths import absolute
from storage.store import Store, create_once
from tasks.artifacts import artifact_key, show_markdown
from tasks.data.histories import photographs_as
from tasks.evaluation.published_network import CARD_TEXT, LeftOut, UsedSource, published_network
from tasks.networks.delivered_windows import DeliveredPictures, delivered_windows
from tasks.networks.exported import CARD, MODEL
from tasks.networks.published_scores import published_scores
from tasks.spec.experiment import Experiment
from tasks.spec.published import Published

PUBLISHED = "published/networks"
_DIGEST_IN_PLACE = 12


@flow(
    name="publish",
    flow_run_name=run_name("publish a network of"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def publish_network(
    experiment: str = "generators",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
    into: str | None = None,
) -> str:
    """Fit the network that an experiment's `published` part describes, and write it with its card to the store.

    Args:
        experiment: a preset's name or a YAML file, on the crop path.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
        into: a folder that its files are written to as well.
    """
    with attempt():
        folder = None if into is None else _made_folder(absolute(into))
        request = Request("publish a network of", experiment, overrides, seed)
        chosen, ref = computed(request, dispatch, network_of, pools=("cpu",), checks=(missing_sources,))
        place = write_network(open_store(), ref, chosen.network_to_publish.name, folder)
        get_run_logger().info("%s/%s", open_store().url, place)
        words = read_part(open_store(), ref, CARD_TEXT).decode()
        show_markdown(artifact_key("network", chosen.name), words, f"The network {chosen.network_to_publish.name}")
        return place


def write_network(store: Store, network: Ref, name: str, into: Path | None) -> str:
    """Write a published network's files to their place in the store, which is returned, and into a folder.

    Raises:
        MissingInput: the folder cannot be written to.
    """
    files = published_files(store, network, name)
    place = f"{PUBLISHED}/{name}-{network.digest[:_DIGEST_IN_PLACE]}"
    for file, data in files.items():
        create_once(store, f"{place}/{file}", data)
    if into is not None:
        _write(into, files)
    return place


def published_files(store: Store, network: Ref, name: str) -> dict[str, bytes]:
    """The files of a published network by name: the model, its card, and the card in words."""
    return {
        f"{name}.onnx": read_part(store, network, MODEL),
        f"{name}.json": read_part(store, network, CARD),
        f"{name}.md": read_part(store, network, CARD_TEXT),
    }


def network_of(experiment: Experiment) -> Ref:
    """The finished network of an experiment: model, card, and the card in words."""
    spec = experiment.network_to_publish
    images = image_shards(experiment)
    shards = images.shards | generated(experiment, images).shards
    brought = pictures_by_source(experiment, images, shards, counted_encodings(experiment, shards))
    cropped = canonical_shards(experiment, brought)
    as_came = {real: Pictures(shards[real], images.canonical, enlarge=False) for real in experiment.real_names}
    cropped |= canonical_by_source(experiment, as_came)
    delivered = _delivered(experiment, spec, cropped)
    # What the card says besides decides no score.
    common = {"name": spec.name, "delivered": delivered, "splits": experiment.splits}
    scored_as = spec.model_copy(update={"licences": {}})
    families = experiment.all_families if len(experiment.all_families) > 1 else {}
    asked: list[tuple[str | None, tuple[str, ...]]] = [(None, ()), *families.items()]
    scoring = [published_scores.submit(**common, spec=scored_as, without=name, absent=absent) for name, absent in asked]
    scored: dict[str | None, Ref] = dict(zip([None, *families], collect(scoring), strict=True))
    used = tuple(
        UsedSource(name=source.name, is_real=source.label == "real", images=shards[source.name])
        for source in experiment.evaluated_sources
    )
    waiting = published_network.submit(
        **common,
        spec=spec,
        side=experiment.resolutions[0],
        experiment=experiment.name,
        used=used,
        known=scored[None],
        left_out=tuple(LeftOut(family=name, scores=scored[name]) for name in families),
        seed=experiment.seed,
        resamples=experiment.bootstrap_resamples,
    )
    network: Ref = collect([waiting])[0]
    return network


@dataclass(frozen=True)
class _Source:
    """Pictures under the name that their rows have: of photographs by which source, of whose history."""

    name: str
    photographs: str | None
    generator: str | None


def _sources(experiment: Experiment) -> Iterator[_Source]:
    for real in experiment.real_names:
        if experiment.matches_history:
            yield from (_Source(photographs_as(real, fake), real, fake) for fake in experiment.fake_names)
        yield _Source(real, real, None if experiment.matches_history else real)
    yield from (_Source(fake, None, fake) for fake in experiment.fake_names)


def _delivered(
    experiment: Experiment, spec: Published, cropped: dict[str, tuple[Ref, ...]]
) -> tuple[DeliveredPictures, ...]:
    """What is counted in the windows of all pictures in all deliveries."""
    asked = [
        (source, delivery, index, shard)
        for source in _sources(experiment)
        for delivery in spec.deliveries
        for index, shard in enumerate(cropped[source.name])
    ]
    waiting = [
        delivered_windows.submit(
            pictures=shard,
            delivery=delivery,
            side=experiment.resolutions[0],
            windows=spec.windows,
            source=source.name,
            shard=index,
        )
        for source, delivery, index, shard in asked
    ]
    return tuple(
        DeliveredPictures(
            delivery=delivery.name, photographs=source.photographs, generator=source.generator, windows=windows
        )
        for (source, delivery, _, _), windows in zip(asked, collect(waiting), strict=True)
    )


def _made_folder(folder: Path) -> Path:
    """A folder, made before hours are spent on what shall lie in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingInput(f"a folder that can be written to at {folder} ({error.strerror})") from error
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        for name, data in files.items():
            (_made_folder(folder) / name).write_bytes(data)
    except OSError as error:
        raise MissingInput(f"a folder that can be written to at {folder} ({error.strerror})") from error
