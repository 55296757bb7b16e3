"""Generating the fakes of an experiment, shard by shard."""

from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from flows.train_gan import generation, submit_training
from storage.objects import Ref
from tasks.data.sources.base import Deployment, GeneratedSource
from tasks.spec.experiment import Experiment


@dataclass(frozen=True)
class Generated:
    """Finished image shards of the generators, and the weights of those that are trained; both by source."""

    shards: dict[str, tuple[Ref, ...]]
    weights: dict[str, Ref]


def generated(experiment: Experiment, images: Images, made_by: Deployment | None = None) -> Generated:
    """Image shards of the sources that are generated; with `made_by` only of that deployment's.

    Trainings, and generators that are not trained, run side by side: neither waits for the other.
    """
    run = generation(experiment, images)
    sources = [
        source
        for source in experiment.sources
        if isinstance(source, GeneratedSource) and made_by in (None, source.made_by)
    ]
    untrained = [(source.name, source.generate(run, None)) for source in sources if not source.is_trained]
    training = submit_training(sources, run)
    shards = {name: tuple(collect(futures)) for name, futures in untrained}
    weights = dict(zip(training, collect(training.values()), strict=True))
    trained = [(source.name, source.generate(run, weights[source.name])) for source in sources if source.is_trained]
    return Generated(shards | {name: tuple(collect(futures)) for name, futures in trained}, weights)


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
            lambda spec: generated(spec, image_shards(spec), made_by="generate/gan"),
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
            lambda spec: generated(spec, image_shards(spec), made_by="generate/stable-diffusion"),
        )
