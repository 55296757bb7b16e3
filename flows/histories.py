"""How every source's pictures are brought to their views; on the crop path, what is encoded first so that all match."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.generate import generated
from flows.shard import Images, image_shards
from storage.objects import Ref
from storage.opening import open_store
from tasks.data.histories import count_encodings, encodings_of, matched_histories, photographs_as
from tasks.spec.experiment import Experiment
from tasks.spec.views import Canonical, History


@dataclass(frozen=True)
class Pictures:
    """The image shards of a source, and how its pictures are brought to their views."""

    shards: tuple[Ref, ...]
    canonical: Canonical
    enlarge: bool

    @property
    def each_shard(self) -> Iterator[dict[str, Any]]:
        """Every shard, as the arguments of a step that brings its pictures to a view."""
        for shard in self.shards:
            yield {"images": shard, "canonical": self.canonical, "enlarge": self.enlarge}


def all_pictures(experiment: Experiment) -> dict[str, Pictures]:
    """The pictures of all sources, generated ones too."""
    images = image_shards(experiment)
    return pictures_by_source(experiment, images, images.shards | generated(experiment, images).shards)


def pictures_by_source(
    experiment: Experiment, images: Images, shards: Mapping[str, tuple[Ref, ...]]
) -> dict[str, Pictures]:
    """Pictures by what their rows are called: the source, or a source of photographs as those of a generator are."""
    if not experiment.matches_history:
        smaller = {source.name for source in experiment.sources if source.may_be_enlarged}
        enlarged = smaller if experiment.path == "fair" else set()
        return {name: Pictures(refs, images.canonical, name in enlarged) for name, refs in shards.items()}

    def pictures(source: str, history: History | None) -> Pictures:
        return Pictures(shards[source], images.canonical.model_copy(update={"history": history}), enlarge=False)

    for_photographs, for_fakes = _histories(experiment, shards)
    own = {fake: pictures(fake, history) for fake, history in for_fakes.items()}
    matched = {
        photographs_as(real, fake): pictures(real, history)
        for fake, history in for_photographs.items()
        for real in experiment.real_names
    }
    return own | matched


def _histories(
    experiment: Experiment, shards: Mapping[str, tuple[Ref, ...]]
) -> tuple[dict[str, History | None], dict[str, History | None]]:
    sources = (*experiment.real_names, *experiment.fake_names)
    counted = dict(
        zip(
            sources,
            collect([count_encodings.submit(images=shards[source], source=source) for source in sources]),
            strict=True,
        )
    )
    store = open_store()
    fakes = {fake: encodings_of(store, [counted[fake]]) for fake in experiment.fake_names}
    return matched_histories(fakes, encodings_of(store, [counted[real] for real in experiment.real_names]))
