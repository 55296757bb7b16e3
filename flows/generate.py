"""Generating the fakes of an experiment, shard by shard."""

from dataclasses import dataclass

from flows.collect import collect
from flows.shard import Images, image_shards
from flows.stages import stage
from flows.train_gan import generation, submit_training
from storage.objects import Ref
from tasks.data.sources.base import Deployment, GeneratedSource
from tasks.kept_networks import networks_kept
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
    with networks_kept():
        untrained = [(source.name, source.generate(run, None)) for source in sources if not source.is_trained]
        training = submit_training(sources, run)
        shards = {name: tuple(collect(futures)) for name, futures in untrained}
    weights = dict(zip(training, collect(training.values()), strict=True))
    trained = [(source.name, source.generate(run, weights[source.name])) for source in sources if source.is_trained]
    return Generated(shards | {name: tuple(collect(futures)) for name, futures in trained}, weights)


generate_gan = stage(
    "generate",
    "generate GAN pictures of",
    "Generate the missing GAN pictures of an experiment, training the GAN first where it is missing.",
    lambda spec: generated(spec, image_shards(spec), made_by="generate/gan"),
)


generate_stable_diffusion = stage(
    "generate",
    "generate diffusion pictures of",
    "Generate the missing text-to-image pictures of an experiment, one for each photograph. With the preset's seed "
    "only shards with new captions are made; another one makes every picture anew.",
    lambda spec: generated(spec, image_shards(spec), made_by="generate/stable-diffusion"),
)
