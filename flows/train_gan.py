"""Training the GANs of an experiment."""

from collections.abc import Sequence
from typing import Any

from flows.collect import collect
from flows.shard import Images, image_shards
from flows.stages import stage
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


train_gan_coco = stage(
    "train-gan",
    "train GAN of",
    "Train an experiment's DCGAN on the train groups of its photographs; resumes from the newest epoch.",
    lambda spec: trained_weights(spec, image_shards(spec)),
)
