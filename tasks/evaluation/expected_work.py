"""How many views an evaluation has to describe, and about how long that takes on this machine's processor."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from storage.store import Store
from storage.tables import IMAGE_SCHEMA
from tasks.data.encoding import encode_jpeg
from tasks.data.histories import photographs_as
from tasks.evaluation.protocols import needed_features
from tasks.features.base import Extractor, ExtractorBase
from tasks.features.shards import embed_images
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.experiment import Experiment
from tasks.spec.views import Canonical, View
from tasks.threads import limit_threads

# Of the time on all cores at once: other programs, cores that share their memory, and pictures unlike the sample.
_SPREAD = 2.5


@dataclass(frozen=True)
class Described:
    """What one extractor has to describe.

    Attributes:
        views: of all pictures together; a window or a quality of a picture is one.
        seconds: about how long one core takes for all of them; None where it was not measured, as its weights would
            have to be fetched.
    """

    extractor: str
    views: int
    seconds: float | None


@dataclass(frozen=True)
class ExpectedWork:
    """What is described by every extractor, and of which sources no pictures are there yet, so that they do not count.

    Nothing that is finished already was left out: it is the work of an evaluation in an empty store.
    """

    described: tuple[Described, ...]
    left_out: tuple[str, ...]

    @property
    def views(self) -> int:
        """Views that are described by all extractors."""
        return sum(one.views for one in self.described)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """From and to about how many seconds all cores take together; None where an extractor was not measured."""
        known = [one.seconds for one in self.described if one.seconds is not None]
        if len(known) < len(self.described):
            return None
        least = sum(known) / len(os.sched_getaffinity(0))
        return least, _SPREAD * least

    @property
    def sentence(self) -> str:
        """What a person reads of it."""
        of = ", ".join(f"{one.extractor} {one.views:,}" for one in self.described)
        text = f"{self.views:,} views are described ({of})"
        if self.seconds is not None:
            text += f", in about {_range(*self.seconds)} on this processor: an estimate from one picture"
        without = ["fitting and testing", *(f"all of {name}" for name in self.left_out)]
        return f"{text}; {' and '.join(without)} come on top"

    @property
    def document(self) -> dict[str, Any]:
        """What a program reads of it."""
        return {
            "views": self.views,
            "seconds": None if self.seconds is None else [round(one, 1) for one in self.seconds],
            "extractors": [{"extractor": one.extractor, "views": one.views} for one in self.described],
            "not_counted": list(self.left_out),
        }


def expected_work(
    store: Store, experiment: Experiment, pictures: Mapping[str, int], size: tuple[int, int]
) -> ExpectedWork:
    """The work on so many `pictures` of each source, of which one of this width and height is described as a sample.

    Nothing is written to the store.
    """
    needed = needed_features(experiment, lambda named: named, [experiment.extractor])
    sources = {name: name for name in pictures} | {
        photographs_as(real, fake): real for real in experiment.real_names for fake in experiment.fake_names
    }
    views: dict[ExtractorBase, dict[tuple[View, ...], int]] = {}
    for (called, extractor), of in needed.items():
        counted = views.setdefault(extractor, {})
        counted[of] = counted.get(of, 0) + pictures.get(sources.get(called, called), 0)
    described = []
    for extractor, counts in views.items():
        total = sum(len(of) * count for of, count in counts.items())
        every = tuple(dict.fromkeys(view for of in counts for view in of))
        per_view = _seconds_of_a_view(store, extractor, every, experiment, size)
        described.append(Described(extractor.name, total, None if per_view is None else per_view * total))
    left_out = tuple(one.name for one in experiment.evaluated_sources if one.name not in pictures)
    return ExpectedWork(tuple(described), left_out)


def _seconds_of_a_view(
    store: Store, extractor: ExtractorBase, views: tuple[View, ...], experiment: Experiment, size: tuple[int, int]
) -> float | None:
    loaded = _loaded(store, extractor)
    if loaded is None:
        return None
    canonical = Canonical(side=experiment.canonical_side, kernel=experiment.canonical_kernel, qualities=((90, 1),))
    table = _sample(size, 90)
    embed_images(table, views, loaded, canonical, enlarge=True)  # what is only made once is not to count
    began = time.perf_counter()
    embed_images(table, views, loaded, canonical, enlarge=True)
    return (time.perf_counter() - began) / len(views)


def _loaded(store: Store, extractor: ExtractorBase) -> Extractor | None:
    """An extractor that takes as long; None where that needs weights which may not be there."""
    if isinstance(extractor, Vgg16Spec):
        limit_threads()
        # The connected layers of `fc7` cost a hundredth of the rest, and seconds to draw.
        alike = extractor.model_copy(update={"weights": "random:0", "layer": "pool5-avg"})
        return alike.load(store, None, "cpu")
    has_weights = type(extractor).import_weights is not ExtractorBase.import_weights
    return None if has_weights else extractor.load(store, None, "cpu")


def _sample(size: tuple[int, int], quality: int) -> pa.Table:
    """An image shard of one picture, which is smooth with some grain as a photograph is."""
    width, height = size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    data = encode_jpeg(np.clip(smooth + random.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8), quality)
    row = dict.fromkeys(IMAGE_SCHEMA.names) | {
        "image": {"bytes": data, "path": "sample"}, "image_id": "sample", "group_id": "sample", "source": "sample",
        "label": 0, "split": "train", "width": width, "height": height, "format": "JPEG",
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=IMAGE_SCHEMA)


def _range(low: float, high: float) -> str:
    """Two figures of each at most: no more is known."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if low >= length:
            return f"{float(f'{low / length:.2g}'):g} to {float(f'{high / length:.2g}'):g} {unit}"
    least = "1" if low < 1 else f"{float(f'{low:.2g}'):g}"
    return f"{least} to {max(2.0, float(f'{high:.2g}')):g} seconds"
