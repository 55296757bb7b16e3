"""Training the GANs of an experiment."""

from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from storage.objects import Ref
from tasks.data.sources.base import GeneratedSource, Generation, SourceBase
from tasks.recipe import chosen_device
from tasks.spec.experiment import Experiment


def generation(experiment: Experiment, images: Images) -> Generation:
    """What a run gives to its generators."""
    return Generation(
        shards=images.shards,
        splits=experiment.splits,
        seed=experiment.seed,
        shard_size=experiment.shard_size,
        device=chosen_device(),
    )


def submit_training(sources: Sequence[SourceBase], run: Generation) -> dict[str, Any]:
    """Futures of the weights of every generator that is trained; only train groups of the photographs are used."""
    return {
        source.name: source.train(run)
        for source in sources
        if isinstance(source, GeneratedSource) and source.is_trained
    }


def trained_weights(experiment: Experiment, images: Images) -> dict[str, Ref]:
    """Weights of every generator that is trained."""
    training = submit_training(experiment.sources, generation(experiment, images))
    return dict(zip(training, collect(training.values()), strict=True))


@flow(
    name="train-gan",
    flow_run_name=run_name("train GAN of"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def train_gan_coco(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> None:
    """Train an experiment's DCGAN on the train groups of its photographs; resumes from the newest epoch.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
    """
    with attempt():
        computed(
            Request("train GAN of", experiment, overrides, seed),
            dispatch,
            lambda spec: trained_weights(spec, image_shards(spec)),
        )
