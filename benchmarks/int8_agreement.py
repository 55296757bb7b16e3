"""Whether VGG16 in int8 may stand for VGG16 in float32: scores of the same pictures by both, and decisions that flip.

    python -m benchmarks.int8_agreement --photographs FOLDER... --fakes FOLDER... --weights FILE [--side 224]

Every picture is brought to three fair views and described exactly and in int8. For each view and rotation of five folds
the project's head is fitted on exact features, with its threshold from the validation fold; it scores the held-out
pictures with their exact and with their int8 features, so each picture is scored once per view. Beside it stands a head
that was fitted on int8 features, with a threshold of its own, as an experiment in int8 would have it.

Prints correlations and flips, of both. The rule is: over at least 2,000 scores, correlations of decision values and of
p(fake) of at least 0.995, and at most 1 % of decisions flipped. Ends with 1 where the one head breaks it: there the
features are all that differs. Two heads differ by their choices too, of C and of the threshold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from benchmarks.inputs import CANONICAL
from storage.errors import MissingInput
from tasks.data.pictures import inspect_picture
from tasks.data.splits import place_groups
from tasks.data.views import make_views
from tasks.detectors import vgg16, vgg16_int8, vgg16_winograd
from tasks.detectors.svm import FeatureRows, LinearHead, fit_head
from tasks.evaluation.classification import balanced_accuracy_threshold
from tasks.spec import Folds, HeadSpec, Vgg16Spec, View
from tasks.threads import limit_threads

CORRELATION = 0.995
FLIPS = 0.01
SCORES = 2_000

VIEWS = (
    View(path="fair", resolution="native"),
    View(path="fair", resolution=256, jpeg_quality=40),
    View(path="fair", resolution=64),
)
FOLDS = Folds(count=5)
_SUFFIXES = (".jpg", ".jpeg", ".png")
_PICTURES_AT_ONCE = 16

Features = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Held-out pictures of one view: decision values, p(fake) and what was called fake, each (N,).

    A machine's decision values are divided by their deviation on its validation fold: those of another C are larger.
    """

    decisions: Float
    scores: Float
    fake: Flags


@dataclass(frozen=True)
class Agreement:
    """How two judgements of the same N pictures compare."""

    count: int
    decisions: float
    scores: float
    flipped: int

    @property
    def holds(self) -> bool:
        """Whether the rule is kept."""
        enough = self.count >= SCORES and self.flipped <= FLIPS * self.count
        return enough and min(self.decisions, self.scores) >= CORRELATION

    def line(self, name: str) -> str:
        """In words."""
        return (
            f"{name}: {self.count:,} scores, correlation {self.decisions:.5f} of decision values, {self.scores:.5f} of "
            f"p(fake); {self.flipped} decisions flip ({self.flipped / self.count:.2%})"
        )


def agreement(exact: Sequence[Judged], other: Sequence[Judged]) -> Agreement:
    """Of several views together."""

    def both(name: str) -> tuple[Float, Float]:
        before, after = (np.concatenate([getattr(one, name) for one in judged]) for judged in (exact, other))
        return before, after

    before, after = both("fake")
    return Agreement(
        count=len(before),
        decisions=float(np.corrcoef(*both("decisions"))[0, 1]),
        scores=float(np.corrcoef(*both("scores"))[0, 1]),
        flipped=int((before != after).sum()),
    )


def judge_out_of_fold(
    rows: FeatureRows, fitted_on: Features, judged: Sequence[Features], view: View, extractor: Vgg16Spec
) -> list[Judged]:
    """What heads that are fitted on one kind of features say of each of several kinds, every picture while held out."""
    head = HeadSpec(name="svm", extractor=extractor, views=(view,), real=("photographs",), fakes=("fakes",))
    of_fitting = FeatureRows(rows.identity, rows.labels, rows.sources, fitted_on)
    machines, _ = fit_head(of_fitting, head, FOLDS)
    return [_judge(of_fitting, machines, features) for features in judged]


def _judge(rows: FeatureRows, machines: LinearHead, features: Features) -> Judged:
    count = len(rows.labels)
    decisions, scores, fake = np.empty(count), np.empty(count), np.empty(count, dtype=bool)
    for rotation in range(FOLDS.count):
        roles = rows.roles(rotation, FOLDS)
        val, test = roles == "val", roles == "test"
        of_val, of_test = machines.decisions(rows.X[val], rotation), machines.decisions(features[test], rotation)
        threshold = balanced_accuracy_threshold(rows.labels[val], machines.probabilities(of_val, rotation))
        decisions[test] = of_test / of_val.std()
        scores[test] = machines.probabilities(of_test, rotation)
        fake[test] = scores[test] >= threshold
    return Judged(decisions, scores, fake)


def read_folders(folders: Sequence[Path], most: int) -> list[tuple[str, bytes]]:
    """(name, file) of at most so many pictures that a fair view takes, an equal share of each folder, by name.

    Raises:
        MissingInput: a folder without such pictures.
    """
    found: list[list[tuple[str, bytes]]] = []
    for number, folder in enumerate(folders):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        files = ((f"{number}/{path.name}", path.read_bytes()) for path in paths)
        found.append([(name, data) for name, data in files if _is_large(data)])
        if not found[-1]:
            raise MissingInput(f"pictures of at least {CANONICAL.side} pixels in {folder}")
    chosen: list[tuple[str, bytes]] = []
    for left, pictures in zip(range(len(found), 0, -1), sorted(found, key=len), strict=True):
        chosen += pictures[: (most - len(chosen)) // left]
    return chosen


def _is_large(data: bytes) -> bool:
    facts = inspect_picture(data)
    return min(facts.width, facts.height) >= CANONICAL.side


def identity_of(photographs: Sequence[str], fakes: Sequence[str]) -> FeatureRows:
    """Rows without features: photographs, then fakes, each a group of its own, in folds drawn by hash."""
    folds = []
    for names in (photographs, fakes):
        ascending = sorted(names)
        places = place_groups(pa.array(ascending, pa.large_string()), FOLDS, seed=0)
        fold_of = dict(zip(ascending, (places - places.min()).tolist(), strict=True))
        folds += [fold_of[name] for name in names]
    identity = pl.DataFrame(
        {"group_id": [*photographs, *fakes], "split": pl.Series([None] * len(folds), dtype=pl.String), "fold": folds}
    )
    labels = np.repeat([0, 1], [len(photographs), len(fakes)])
    return FeatureRows(identity, labels, np.array(["photographs", "fakes"])[labels], np.empty((len(labels), 0), "f4"))


def describe(
    files: Sequence[tuple[str, bytes]], exact: Vgg16Spec, tensors: dict[str, np.ndarray] | None
) -> Iterator[dict[tuple[View, str], Features]]:
    """Features of some pictures at a time, exactly and in int8, in all views."""
    in_int8 = exact.model_copy(update={"precision": "int8"})
    floats = vgg16_winograd.WinogradVgg16(exact, tensors)
    weights = vgg16.random_tensors(exact) if tensors is None else tensors
    quantized = vgg16_int8.quantize_vgg16(weights, vgg16_int8.calibration_pictures(in_int8))
    integers = vgg16_int8.Int8Vgg16(in_int8, quantized)
    for start in range(0, len(files), _PICTURES_AT_ONCE):
        made = [make_views(data, name, VIEWS, CANONICAL) for name, data in files[start : start + _PICTURES_AT_ONCE]]
        described = {}
        for view in VIEWS:
            pixels = [views[view].pixels for views in made]
            described[view, "exact"] = vgg16.embed_on_cpu(floats, exact, pixels)
            described[view, "int8"] = vgg16.embed_on_cpu(integers, in_int8, pixels)
        yield described


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the agreement; 1 where the rule is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8_agreement", description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--fakes", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--weights", required=True, metavar="FILE", help="safetensors, imagenet, or random:0")
    parser.add_argument("--layer", default="pool5-avg", choices=list(vgg16.DIMENSIONS))
    parser.add_argument("--side", type=int, default=224, help="the network's input size")
    parser.add_argument("--count", type=int, default=350, help="at most so many photographs, and so many fakes")
    chosen = parser.parse_args(arguments)
    limit_threads()

    extractor, path = vgg16.resolve_vgg16(Vgg16Spec(layer=chosen.layer, side=chosen.side, weights=chosen.weights))
    tensors = None if path is None else vgg16.read_vgg16_tensors(Path(path), chosen.layer)
    photographs = read_folders(chosen.photographs, chosen.count)
    fakes = read_folders(chosen.fakes, chosen.count)
    rows = identity_of([f"photograph {name}" for name, _ in photographs], [f"fake {name}" for name, _ in fakes])
    print(
        f"{extractor.name}: {len(photographs)} photographs, {len(fakes)} fakes, views "
        f"{', '.join(view.name for view in VIEWS)}",
        flush=True,
    )

    pieces: list[dict[tuple[View, str], Features]] = []
    began = time.monotonic()
    for described in describe([*photographs, *fakes], extractor, tensors):
        pieces.append(described)
        done = sum(len(piece[VIEWS[0], "exact"]) for piece in pieces)
        print(f"{done} of {len(rows.labels)} pictures, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    features = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}

    exact, one_head, own_head = [], [], []
    for view in VIEWS:
        floats, integers = features[view, "exact"], features[view, "int8"]
        by_exact = judge_out_of_fold(rows, floats, [floats, integers], view, extractor)
        by_int8 = judge_out_of_fold(rows, integers, [integers], view, extractor)
        accuracy = ", ".join(f"{(judged.fake == (rows.labels == 1)).mean():.2%}" for judged in (*by_exact, *by_int8))
        print(agreement(by_exact[:1], by_exact[1:]).line(f"{view.name}, one head"))
        print(agreement(by_exact[:1], by_int8).line(f"{view.name}, a head of its own"))
        print(f"{view.name}, accuracy exact, int8 with the exact head, int8 with its own: {accuracy}", flush=True)
        exact.append(by_exact[0])
        one_head.append(by_exact[1])
        own_head.append(by_int8[0])

    together, own = agreement(exact, one_head), agreement(exact, own_head)
    print(together.line("all views, one head"))
    print(own.line("all views, a head of its own"))
    for name, found in (("one head", together), ("a head of its own", own)):
        print(
            f"the rule ({SCORES:,} scores, {CORRELATION}, {FLIPS:.0%}), {name}: {'kept' if found.holds else 'broken'}"
        )
    return 0 if together.holds else 1


if __name__ == "__main__":
    sys.exit(main())
