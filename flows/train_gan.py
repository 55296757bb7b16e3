"""Training the GANs of an experiment."""

from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from storage.objects import Ref
from storage.opening import open_store
from tasks.generators.gan import pack_gan_pictures, train_gan
from tasks.recipe import chosen_device
from tasks.spec.experiment import Experiment
from tasks.spec.sources import GanSource


def submit_training(experiment: Experiment, images: Images) -> dict[str, Any]:
    """Futures of the weights of every GAN source; only train groups of the photographs are used.

    Where a GAN is still to be trained its pictures are decoded first, and waited for.
    """
    wanted: dict[str, dict[str, Any]] = {
        source.name: {
            "images": images.shards[source.trained_on],
            "gan": source.gan,
            "only_train": True,
            "device": chosen_device(),
        }
        for source in experiment.sources
        if isinstance(source, GanSource)
    }
    store = open_store()
    packing = {
        name: pack_gan_pictures.submit(
            images=arguments["images"], side=arguments["gan"].side, only_train=True, device=arguments["device"]
        )
        for name, arguments in wanted.items()
        if train_gan.lookup(store, **arguments) is None
    }
    packed = dict(zip(packing, collect(packing.values()), strict=True))
    return {name: train_gan.submit(**arguments, pictures=packed.get(name)) for name, arguments in wanted.items()}


def gan_weights(experiment: Experiment, images: Images) -> dict[str, Ref]:
    """Trained weights of every GAN source."""
    training = submit_training(experiment, images)
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
            lambda spec: gan_weights(spec, image_shards(spec)),
        )
