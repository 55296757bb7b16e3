"""Embedding every image shard in every view that an experiment needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from flows.collect import collect
from flows.histories import Pictures, all_pictures
from flows.stages import stage
from storage.objects import Ref
from tasks.evaluation.protocols import needed_features
from tasks.features.base import ExtractorBase
from tasks.features.inception import InceptionSpec
from tasks.features.shards import embed_shard
from tasks.features.vgg16 import Vgg16Spec
from tasks.kept_networks import networks_kept
from tasks.recipe import chosen_device
from tasks.spec.experiment import Experiment
from tasks.spec.views import View

E = TypeVar("E", bound=ExtractorBase)


@dataclass(frozen=True)
class Features:
    """Finished feature shards per source, extractor and view.

    `resolved` are the extractors as the experiment names them, with their weights named by digest. Features are kept
    and asked for by the latter.
    """

    experiment: Experiment
    resolved: dict[ExtractorBase, ExtractorBase]
    shards: dict[tuple[str, ExtractorBase, View], tuple[Ref, ...]]

    def keyed(self, named: E) -> E:
        """An extractor that the experiment names, with its weights named by digest."""
        return cast(E, self.resolved[named])

    @property
    def extractor(self) -> Vgg16Spec:
        """The experiment's own extractor."""
        return self.keyed(self.experiment.extractor)

    @property
    def inception(self) -> InceptionSpec | None:
        """The network for FID, KID and IS, where the experiment has its weights."""
        named = self.experiment.inception_extractor
        return self.keyed(named) if named in self.resolved else None

    def of(self, sources: tuple[str, ...], extractor: ExtractorBase, views: tuple[View, ...]) -> tuple[Ref, ...]:
        """All feature shards of some sources and views, in order."""
        return tuple(ref for source in sources for view in views for ref in self.shards[source, extractor, view])


def feature_shards(experiment: Experiment, pictures: Mapping[str, Pictures], *, is_measured: bool = True) -> Features:
    """Features of every evaluated source in every view that any detector or protocol of the experiment needs.

    Where the generators' quality is not measured, the experiment's own extractor may have none.
    """
    resolved = {named: keyed for named in experiment.extractors if (keyed := named.keyed()) is not None}
    weights = {keyed: named.import_weights() for named, keyed in resolved.items()}
    features = Features(experiment, resolved, {})
    measuring = [one for one in (features.extractor, features.inception) if one is not None and is_measured]
    needed = needed_features(experiment, features.keyed, measuring)
    with networks_kept():
        futures = {
            (source, wanted, views): [
                embed_shard.submit(
                    views=views,
                    extractor=wanted,
                    weights=weights[_owner(wanted, features)],
                    source=source,
                    shard=index,
                    device=chosen_device() if wanted.pool == "gpu" else "cpu",
                    # Nothing is fitted on what a variant describes.
                    rows="all" if wanted in weights else "tested",
                    **shard,
                )
                for index, shard in enumerate(pictures[source].each_shard)
            ]
            for (source, wanted), views in needed.items()
        }
        for (source, wanted, views), waiting in futures.items():
            per_shard = collect(waiting)
            for position, view in enumerate(views):
                features.shards[source, wanted, view] = tuple(refs[position] for refs in per_shard)
    return features


def _owner(wanted: ExtractorBase, features: Features) -> ExtractorBase:
    """Whose weights an extractor has: its own where the experiment names it, else the experiment's own extractor's.

    The seed protocol tests with a variant of that one, on pictures at their own size.
    """
    if wanted in features.resolved.values():
        return wanted
    assert type(wanted) is type(features.extractor), f"{wanted.name} is not among the experiment's extractors"
    return features.extractor


def embeddings_of(experiment: Experiment) -> Features:
    """All features that an experiment needs, and what they are made of."""
    return feature_shards(experiment, all_pictures(experiment))


embed_vgg16 = stage(
    "embed",
    "embed",
    "Compute the VGG16 and probe features of all missing views of an experiment.",
    embeddings_of,
)
