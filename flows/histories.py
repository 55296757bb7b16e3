"""How every source's pictures are brought to their views; on the crop path, what is encoded first so that all match."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.generate import generated
from flows.shard import Images, image_shards
from storage.objects import Ref
from storage.opening import open_store
from tasks.data.histories import (
    Encodings,
    are_all_jpegs,
    clean_pictures,
    control_histories,
    count_encodings,
    encodings_of,
    matched_histories,
    photographs_as,
)
from tasks.data.sources.folder import FolderSource
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.views import CLEAN_QUALITY, REDUCTION, Canonical, History, Resolution

# Of clean photographs that have a window in the control: with fewer in a fold a detector may see none of a class.
LEAST_OF_A_FOLD = 10


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
    shards = images.shards | generated(experiment, images).shards
    return pictures_by_source(experiment, images, shards, counted_encodings(experiment, shards))


def counted_encodings(experiment: Experiment, shards: Mapping[str, tuple[Ref, ...]]) -> dict[str, Ref]:
    """How the files of each source are encoded, by source; nothing where no history is matched."""
    sources = (*experiment.real_names, *experiment.fake_names) if experiment.matches_history else ()
    counting = [count_encodings.submit(images=shards[source], source=source) for source in sources]
    return dict(zip(sources, collect(counting), strict=True))


def pictures_by_source(
    experiment: Experiment, images: Images, shards: Mapping[str, tuple[Ref, ...]], counted: Mapping[str, Ref]
) -> dict[str, Pictures]:
    """Pictures by what their rows are called: the source, or a source of photographs as those of a generator are.

    `counted` is what `counted_encodings` found.
    """
    if not experiment.matches_history:
        smaller = {source.name for source in experiment.sources if source.may_be_enlarged}
        enlarged = smaller if experiment.path == "fair" else set()
        return {name: Pictures(refs, images.canonical, name in enlarged) for name, refs in shards.items()}

    def pictures(source: str, history: History | None) -> Pictures:
        return Pictures(shards[source], images.canonical.model_copy(update={"history": history}), enlarge=False)

    fakes, photographs = _encodings(experiment, counted)
    all_jpegs = are_all_jpegs(open_store(), [counted[real] for real in experiment.real_names])
    for_photographs, for_fakes = matched_histories(fakes, photographs, all_jpegs)
    own = {fake: pictures(fake, history) for fake, history in for_fakes.items()}
    matched = {
        photographs_as(real, fake): pictures(real, history)
        for fake, history in for_photographs.items()
        for real in experiment.real_names
    }
    return own | matched


def history_control(
    experiment: Experiment, images: Images, shards: Mapping[str, tuple[Ref, ...]], counted: Mapping[str, Ref]
) -> tuple[Experiment, dict[str, Pictures]] | None:
    """An experiment whose two classes are the same photographs with the two histories that are taken for one.

    What tells them apart tells histories apart. Its mixes have the names of the generators; generators whose files are
    encoded alike have the same pictures. `counted` is what `counted_encodings` found. None where no generator's files
    are JPEGs, or where too few clean photographs have a window when they are reduced.
    """
    fakes, photographs = _encodings(experiment, counted)
    resolutions = tuple(side for side in experiment.resolutions if _is_controlled(experiment, counted, side))
    alike: dict[tuple[tuple[int, str, int], ...], list[str]] = {}
    for fake, encodings in fakes.items():
        if encodings:
            alike.setdefault(_shares(encodings), []).append(fake)
    if not alike or not resolutions or all(quality < CLEAN_QUALITY for quality, _, _ in photographs):
        return None
    sources, mixes, pictures = [], [], {}
    for of in alike.values():
        once = f"once-{of[0]}"
        histories = control_histories(fakes[of[0]], photographs)
        twice_canonical, once_canonical = (images.canonical.model_copy(update={"history": one}) for one in histories)
        for real in experiment.real_names:
            pictures[photographs_as(real, once)] = Pictures(shards[real], twice_canonical, enlarge=False)
        every = tuple(ref for real in experiment.real_names for ref in shards[real])
        pictures[once] = Pictures(every, once_canonical, enlarge=False)
        sources.append(FolderSource(name=once, path=once, label="fake"))
        mixes += [Mix(name=fake, real=experiment.real_names, fakes=(once,)) for fake in of]
    real_sources = [one for one in experiment.evaluated_sources if one.label == "real"]
    update: dict[str, Any] = {"sources": (*real_sources, *sources), "mixes": tuple(mixes), "families": {}}
    update["resolutions"] = resolutions
    # A copy is not validated: its mixes are called like generators that it does not have.
    return experiment.uncompressed().model_copy(update=update), pictures


def _shares(encodings: Encodings) -> tuple[tuple[int, str, int], ...]:
    """The same for files that are encoded alike, however many there are."""
    divisor = math.gcd(*(count for _, _, count in encodings))
    return tuple((quality, subsampling, count // divisor) for quality, subsampling, count in encodings)


def _is_controlled(experiment: Experiment, counted: Mapping[str, Ref], resolution: Resolution) -> bool:
    """Whether enough photographs for every fold have a window of this side when they are reduced."""
    assert resolution != "native"
    of_photographs = [counted[real] for real in experiment.real_names]
    there = clean_pictures(open_store(), of_photographs, math.ceil((resolution + 1) / REDUCTION))
    return there >= LEAST_OF_A_FOLD * experiment.splits.rotations


def _encodings(experiment: Experiment, counted: Mapping[str, Ref]) -> tuple[dict[str, Encodings], Encodings]:
    """How the files of each generator are encoded, and those of all photographs."""
    store = open_store()
    fakes = {fake: encodings_of(store, [counted[fake]]) for fake in experiment.fake_names}
    return fakes, encodings_of(store, [counted[real] for real in experiment.real_names])
