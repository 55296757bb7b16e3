"""Generating the fakes of an experiment, shard by shard."""

from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from flows.train_gan import gan_weights, submit_training
from storage.objects import Ref
from tasks.generators import shards
from tasks.generators.shards import keyed_diffusion
from tasks.recipe import chosen_device
from tasks.spec.experiment import Experiment
from tasks.spec.sources import DiffusionSource, GanSource


def gan_shards(experiment: Experiment, weights: dict[str, Ref]) -> dict[str, tuple[Ref, ...]]:
    """Image shards of every GAN source."""
    futures = {
        source.name: [
            shards.generate_gan.submit(
                weights=weights[source.name],
                source=source.name,
                count=source.count,
                start=start,
                stop=min(start + experiment.shard_size, source.count),
                splits=experiment.splits,
                seed=experiment.seed,
                device=chosen_device(),
            )
            for start in range(0, source.count, experiment.shard_size)
        ]
        for source in experiment.sources
        if isinstance(source, GanSource)
    }
    return {name: tuple(collect(waiting)) for name, waiting in futures.items()}


def submit_diffusion(experiment: Experiment, images: Images) -> dict[str, list[Any]]:
    """Futures of the image shards of every text-to-image source: one for each shard that prompts it."""
    futures: dict[str, list[Any]] = {}
    for source in experiment.sources:
        if not isinstance(source, DiffusionSource):
            continue
        left = source.limit
        futures[source.name] = []
        # A new draw of the experiment is a new draw of its pictures, as it is for a GAN.
        drawn = source.diffusion.model_copy(update={"seed": source.diffusion.seed + experiment.seed})
        for shard in images.shards[source.prompted_by]:
            wanted = None if left is None else min(left, shard.rows)
            if wanted == 0:
                break
            futures[source.name].append(
                shards.generate_diffusion.submit(
                    images=shard,
                    source=source.name,
                    diffusion=keyed_diffusion(drawn),
                    limit=wanted,
                    device=chosen_device(),
                    model=source.diffusion.model,
                )
            )
            left = None if left is None or wanted is None else left - wanted
    return futures


def diffusion_shards(experiment: Experiment, images: Images) -> dict[str, tuple[Ref, ...]]:
    """Image shards of every text-to-image source."""
    return {name: tuple(collect(waiting)) for name, waiting in submit_diffusion(experiment, images).items()}


def generators(experiment: Experiment, images: Images) -> tuple[dict[str, Ref], dict[str, tuple[Ref, ...]]]:
    """GAN weights and text-to-image shards, side by side: neither waits for the other."""
    diffusing = submit_diffusion(experiment, images)
    training = submit_training(experiment, images)
    diffused = {name: tuple(collect(waiting)) for name, waiting in diffusing.items()}
    return dict(zip(training, collect(training.values()), strict=True)), diffused


@flow(
    name="generate",
    flow_run_name=run_name("generate GAN pictures of"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def generate_gan(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> None:
    """Generate the missing GAN pictures of an experiment, training the GAN first where it is missing.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
    """
    with attempt():
        computed(
            Request("generate GAN pictures of", experiment, overrides, seed),
            dispatch,
            lambda spec: gan_shards(spec, gan_weights(spec, image_shards(spec))),
        )


@flow(
    name="generate",
    flow_run_name=run_name("generate diffusion pictures of"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def generate_stable_diffusion(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> None:
    """Generate the missing text-to-image pictures of an experiment, one for each photograph.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's. With the preset's (None) only shards with new
            captions are made; another one makes every picture anew.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
    """
    with attempt():
        computed(
            Request("generate diffusion pictures of", experiment, overrides, seed),
            dispatch,
            lambda spec: diffusion_shards(spec, image_shards(spec)),
        )
