"""Embedding every image shard in every view that an experiment needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.collect import collect
from flows.dispatch import Dispatch, computed
from flows.generate import diffusion_shards, gan_shards
from flows.names import Request, run_name
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from flows.train_gan import gan_weights
from storage.objects import Ref
from tasks.evaluation.protocols import needed_features
from tasks.features.inception import import_inception, inception_weights
from tasks.features.shards import Rows, embed_shard, networks_kept
from tasks.features.vgg16 import import_vgg16, keyed_vgg16
from tasks.recipe import chosen_device
from tasks.spec.detectors import ExtractorSpec, InceptionSpec, Vgg16Spec
from tasks.spec.experiment import Experiment
from tasks.spec.views import Canonical, View


@dataclass(frozen=True)
class Features:
    """Finished feature shards per source, extractor and view; the extractors are the experiment's, resolved."""

    extractor: Vgg16Spec
    inception: InceptionSpec | None
    shards: dict[tuple[str, ExtractorSpec, View], tuple[Ref, ...]]

    def of(self, sources: tuple[str, ...], extractor: ExtractorSpec, views: tuple[View, ...]) -> tuple[Ref, ...]:
        """All feature shards of some sources and views, in order."""
        return tuple(ref for source in sources for view in views for ref in self.shards[source, extractor, view])


def all_images(experiment: Experiment) -> tuple[Images, dict[str, tuple[Ref, ...]]]:
    """The photographs' shards, and the shards of all sources, generated ones too."""
    images = image_shards(experiment)
    shards = images.shards | gan_shards(experiment, gan_weights(experiment, images))
    return images, shards | diffusion_shards(experiment, images)


def extractor_weights(experiment: Experiment) -> tuple[Vgg16Spec, Ref | None]:
    """The experiment's extractor with its weights named by digest, and their object (None for random ones)."""
    extractor = keyed_vgg16(experiment.extractor)
    algorithm, _, digest = extractor.weights.partition(":")
    weights = None
    if algorithm == "sha256":
        weights = import_vgg16(sha256=digest, layer=extractor.layer, path=experiment.extractor.weights)
    return extractor, weights


def network_of_quality(experiment: Experiment) -> tuple[InceptionSpec | None, Ref | None]:
    """The 2015 Inception network for FID, KID and IS, where the experiment names its weights."""
    sha256 = None if experiment.inception is None else inception_weights(experiment.inception)
    if sha256 is None:
        return None, None
    weights = import_inception(sha256=sha256, path=experiment.inception)
    return InceptionSpec(weights=f"sha256:{sha256}"), weights


def feature_shards(experiment: Experiment, images: dict[str, tuple[Ref, ...]], canonical: Canonical) -> Features:
    """Features of every evaluated source in every view that any detector or protocol of the experiment needs."""
    extractor, vgg16_weights = extractor_weights(experiment)
    inception, inception_weights = network_of_quality(experiment)
    weights = {"vgg16": vgg16_weights, "inception": inception_weights}
    smaller = {source.name for source in experiment.sources if getattr(source, "smaller_by_nature", False)}
    shards: dict[tuple[str, ExtractorSpec, View], tuple[Ref, ...]] = {}
    with networks_kept():
        futures = {
            (source, wanted, views): [
                embed_shard.submit(
                    images=shard,
                    views=views,
                    extractor=wanted,
                    weights=weights.get(wanted.kind),
                    canonical=canonical,
                    enlarge=source in smaller,
                    source=source,
                    shard=index,
                    device=chosen_device() if isinstance(wanted, Vgg16Spec) else "cpu",
                    rows=rows,
                )
                for index, shard in enumerate(images[source])
            ]
            for source, wanted, views, rows in _wanted(experiment, extractor, inception)
        }
        for (source, wanted, views), waiting in futures.items():
            per_shard = collect(waiting)
            for position, view in enumerate(views):
                shards[source, wanted, view] = tuple(refs[position] for refs in per_shard)
    return Features(extractor, inception, shards)


def _wanted(
    experiment: Experiment, extractor: Vgg16Spec, inception: InceptionSpec | None
) -> Iterator[tuple[str, ExtractorSpec, tuple[View, ...], Rows]]:
    """What to embed: sources, extractors, views, and of which of the pictures."""
    for (source, wanted), views in needed_features(experiment, extractor, inception).items():
        # No head is fitted on pictures at their own size: the seed protocol only tests on them.
        at_own_size = isinstance(wanted, Vgg16Spec) and wanted.side is None
        yield source, wanted, views, "tested" if at_own_size else "all"


def embeddings_of(experiment: Experiment) -> Features:
    """All features that an experiment needs, and what they are made of."""
    images, shards = all_images(experiment)
    return feature_shards(experiment, shards, images.canonical)


@flow(
    name="embed",
    flow_run_name=run_name("embed"),
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def embed_vgg16(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> None:
    """Compute the VGG16 and probe features of all missing views of an experiment.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the pools.
    """
    with attempt():
        computed(Request("embed", experiment, overrides, seed), dispatch, embeddings_of)
