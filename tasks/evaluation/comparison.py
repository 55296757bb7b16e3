"""What compression costs and saves: networks compared on the same pictures of a cell, and what they are and weigh.

Test pictures are those that the networks know: photographs, and fakes of the generators among their classes, each once,
as many as there are. Thresholds on p(fake) come from val pictures of the cell's uncompressed view, fold by fold.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS, Ref, read_part
from storage.store import Store
from storage.tables import COMPARISON_SCHEMA, NETWORK_SCHEMA, REAL
from tasks.evaluation.cells import read_scores
from tasks.evaluation.classification import ScoredImages, few_groups_of_a_class, resampled_metrics
from tasks.evaluation.intervals import Boolean, Float, Integer, Names, Resampled, Weights, group_weights, share
from tasks.evaluation.thresholds import threshold_per_picture, val_thresholds
from tasks.networks.exported import CARD, MODEL
from tasks.networks.trained import TrainedNetwork
from tasks.networks.variants import Variant, origin
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Name, Spec
from tasks.spec.detectors import Distilled, FineTuned, Fit
from tasks.spec.views import Cell

# With a colon and a class behind it: among the pictures of that class.
CLASS_ACCURACY = "class_accuracy"
OVER_SEEDS = "class_accuracy_over_seeds"
FROM_ORIGIN = "class_accuracy_from_origin"
BINARY_METRICS = ("balanced_accuracy", "auroc")

# The numbers of a training that a table of networks shows, as `about` names them.
_TRAINING = ("epochs", "loss", "training_accuracy", "validation_loss", "validation_accuracy")
_COMPRESSION = 6

Row = dict[str, Any]


def compare(
    scores: Mapping[Fit, pl.DataFrame],
    first: Fit,
    classes: Sequence[str],
    cell: Cell,
    *,
    references: Mapping[Fit, pl.DataFrame],
    origins: Mapping[Fit, Fit] | None = None,
    seed: int,
    resamples: int,
) -> list[Row]:
    """Rows in COMPARISON_SCHEMA: every network's metrics in one cell and their paired changes from the network `first`.

    `class_accuracy`: share of pictures whose most probable class is the true one; `class_accuracy:<class>`: the same
    among the pictures of one class. `balanced_accuracy`: photographs against fakes, at each fold's val threshold.
    `auroc`: of p(fake). For a network with an origin also `class_accuracy_from_origin` and, for each class,
    `class_accuracy_from_origin:<class>`: their changes are from that origin.

    All have 95 % percentile bootstrap intervals over groups, the same resamples for all networks, thresholds fixed;
    none where the pictures that a metric counts (photographs or fakes, of the last two) are of fewer than ten groups.

    Args:
        scores: SCORE_SCHEMA rows of the cell's view by network, none with a generator left out.
        first: the network that all others are compared with; its own changes are null.
        classes: what the networks tell apart, in the order of their class probabilities; the first is `real`.
        references: SCORE_SCHEMA rows that give a network's thresholds; their val rows are used.
        origins: the network that some networks were made from, such as a quantized one.

    Raises:
        SpecError: scores of different pictures, or of other classes; a picture twice; an unknown `first` or origin.
    """
    origins = origins or {}
    unknown = {first, *origins, *origins.values()} - set(scores)
    if unknown or set(scores) != set(references):
        raise SpecError(
            f"{cell.name}: expected scores and references of the same networks, {first.label} among them; "
            f"got scores of {_labels(scores)}, references of {_labels(references)}, none of {_labels(unknown)}"
        )
    answers = _all_answers(scores, classes)
    weights = group_weights(answers[first].groups, resamples, seed)
    measured = {
        name: _measured(one, classes, val_thresholds(_known(references[name], classes)), weights)
        for name, one in answers.items()
    }
    rows: list[Row] = []
    for name, metrics in measured.items():
        key = _key(name.detector, name.seed, cell)
        for metric, found in metrics.items():
            change = None if name == first else found.minus(measured[first][metric])
            rows.append(key | _counts(answers[name], metric, classes) | _values(metric, found, change))
        if name in origins:
            for metric in (CLASS_ACCURACY, *(f"{CLASS_ACCURACY}:{one}" for one in classes)):
                found = metrics[metric]
                change = found.minus(measured[origins[name]][metric])
                named = metric.replace(CLASS_ACCURACY, FROM_ORIGIN)
                rows.append(key | _counts(answers[name], metric, classes) | _values(named, found, change))
    return rows


def _labels(fits: Iterable[Fit]) -> list[str]:
    return sorted(fit.label for fit in fits)


def compare_seeds(
    scores: Mapping[Fit, pl.DataFrame],
    classes: Sequence[str],
    cell: Cell,
    *,
    alone: Mapping[str, str] | None = None,
    seed: int,
    resamples: int,
) -> list[Row]:
    """Rows in COMPARISON_SCHEMA of every network with several training seeds: its mean class accuracy over them.

    The metric is `class_accuracy_over_seeds`; `seed` is null. `change` is a student's mean minus that of the same
    student alone. Intervals are over groups of pictures, of each picture's share of seeds that name its class; what
    another set of training seeds would change is not in them, each seed's own rows show it.

    Arguments and errors as for `compare`; `alone` has for each student the name of the same student without its
    teachers. SpecError also where these two have different seeds.
    """
    seeds: dict[str, dict[int, Fit]] = {}
    for fit in scores:
        seeds.setdefault(fit.detector, {})[fit.seed] = fit
    several = {name: found for name, found in seeds.items() if len(found) > 1}
    if not several:
        return []
    answers = _all_answers(scores, classes)
    some = next(iter(answers.values()))
    weights = group_weights(some.groups, resamples, seed)
    everything = np.ones(len(some.truth), dtype=bool)
    means = {
        name: share(np.mean([answers[fit].correct for fit in found.values()], axis=0), everything, some.groups, weights)
        for name, found in several.items()
    }
    rows = []
    for name, mean in means.items():
        other = (alone or {}).get(name)
        if other in seeds and set(seeds[other]) != set(seeds[name]):
            raise SpecError(f"{name} has the seeds {sorted(seeds[name])}, {other} has {sorted(seeds[other])}")
        change = mean.minus(means[other]) if other in means else None
        rows.append(_key(name, None, cell) | _counts(some, OVER_SEEDS, classes) | _values(OVER_SEEDS, mean, change))
    return rows


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a network says of the N test pictures of a cell, sorted by picture."""

    pictures: pl.DataFrame  # image_id, source, fold, group_id, label
    truth: Integer  # (N,) class index
    correct: Boolean  # (N,) whether the most probable class is the true one
    p_fake: Float  # (N,)

    @property
    def groups(self) -> Names:
        names: Names = self.pictures["group_id"].to_numpy()
        return names


def _all_answers(scores: Mapping[Fit, pl.DataFrame], classes: Sequence[str]) -> dict[Fit, _Answers]:
    """Every network's answers, to the same pictures."""
    for fit in scores:
        if fit.without is not None:
            raise SpecError(f"{fit.label} has other classes than the networks that it was to be compared with")
    answers = {fit: _answers(fit.label, frame, classes) for fit, frame in scores.items()}
    names = list(answers)
    for name in names[1:]:
        own, first = answers[name].pictures, answers[names[0]].pictures
        if not own.equals(first):
            raise SpecError(
                f"{name.label} and {names[0].label} cannot be compared: expected scores of the same test pictures, "
                f"groups and folds, got {len(own)} and {len(first)}, of which "
                f"{len(own.join(first, on=own.columns))} agree"
            )
    return answers


def _answers(name: str, scores: pl.DataFrame, classes: Sequence[str]) -> _Answers:
    if not classes or classes[0] != "real":
        raise SpecError(f"the first class must be real, got {list(classes)}")
    test = _known(scores.filter(pl.col("split") == "test"), classes).sort("image_id", "source")
    if test.select("image_id", "source").is_duplicated().any():
        raise SpecError(f"{name}: a test picture is scored more than once")
    lengths = test["class_probabilities"].list.len().fill_null(0)
    if (lengths != len(classes)).any():
        raise SpecError(
            f"{name}: expected probabilities of {len(classes)} classes {list(classes)}, "
            f"got {sorted(lengths.unique().to_list())}"
        )
    index = {source: number for number, source in enumerate(classes)}
    truth = np.array(
        [0 if label == REAL else index[source] for label, source in test.select("label", "source").iter_rows()],
        dtype=np.int64,
    )
    called = test["class_probabilities"].list.arg_max().to_numpy()
    pictures = test.select("image_id", "source", "fold", "group_id", "label")
    return _Answers(pictures, truth, called == truth, test["p_fake"].to_numpy())


def _known(scores: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    """Photographs, and fakes of the classes."""
    return scores.filter((pl.col("label") == REAL) | pl.col("source").is_in(list(classes)))


def _measured(
    answers: _Answers, classes: Sequence[str], thresholds: Mapping[int, float | None], weights: Weights
) -> dict[str, Resampled]:
    """One network's metrics, by name."""
    everything = np.ones(len(answers.truth), dtype=bool)
    measured = {CLASS_ACCURACY: share(answers.correct, everything, answers.groups, weights)}
    for number, name in enumerate(classes):
        measured[f"{CLASS_ACCURACY}:{name}"] = share(answers.correct, answers.truth == number, answers.groups, weights)
    return measured | _binary(answers, thresholds, weights)


def _binary(answers: _Answers, thresholds: Mapping[int, float | None], weights: Weights) -> dict[str, Resampled]:
    """Photographs against fakes."""
    label = answers.pictures["label"].to_numpy()
    limits = threshold_per_picture(answers.pictures["fold"].to_list(), thresholds)
    images = ScoredImages(label, answers.p_fake, answers.p_fake >= limits, answers.groups)
    found = resampled_metrics(images, *weights, BINARY_METRICS)
    if np.isnan(limits).any():
        missing = "no val pictures of both classes to set the threshold by"
        found["balanced_accuracy"] = Resampled(None, None, found["balanced_accuracy"].n_groups, missing)
    if few := few_groups_of_a_class(label, answers.groups):
        return {name: Resampled(one.value, None, one.n_groups, one.reason or few) for name, one in found.items()}
    return found


def _key(name: str, seed: int | None, cell: Cell) -> Row:
    return {
        "network": name,
        "seed": seed,
        "resolution": str(cell.resolution),
        "perturbation": cell.perturbation_name,
    }


def _counts(answers: _Answers, metric: str, classes: Sequence[str]) -> Row:
    """How many pictures and groups a metric is of: all, or those of its class."""
    _, marked, name = metric.partition(":")
    counted = answers.truth == list(classes).index(name) if marked else np.ones(len(answers.truth), dtype=bool)
    return {"n": int(counted.sum()), "n_groups": len(np.unique(answers.groups[counted]))}


def _values(metric: str, found: Resampled, change: Resampled | None) -> Row:
    own = found.measured()
    row = {"metric": metric, **asdict(own)}
    if change is not None:
        paired = change.measured()
        row |= {"change": paired.value, "change_low": paired.low, "change_high": paired.high}
        row["reason"] = own.reason or paired.reason
    return row


def comparison_table(rows: Iterable[Row]) -> pa.Table:
    """Rows in COMPARISON_SCHEMA; columns that a row lacks are null."""
    return pa.Table.from_pylist(list(rows), schema=COMPARISON_SCHEMA)


@dataclass(frozen=True)
class ExportedFile:
    """An exported model and its card."""

    model: bytes
    card: Mapping[str, Any]


def describe(
    variant: Variant,
    among: tuple[Variant, ...],
    networks: Sequence[TrainedNetwork],
    exported: Sequence[ExportedFile],
) -> Row:
    """What one network is and weighs: a row in NETWORK_SCHEMA, numbers averaged over rotations.

    Args:
        variant: the network; one of `among`, as are all that it was made from.
        networks: its weights by rotation; of a quantized one those of its origin, which has the same shape. Zeros and
            training numbers are null for a quantized one, and a number that no rotation has.
        exported: its exported file by rotation.

    Raises:
        SpecError: a network without a rotation, or with a generator left out, whose name is another one's too.
    """
    if variant.absent is not None or not networks or not exported:
        raise SpecError(f"{variant.fit.label}: a described network has all classes and at least one rotation")
    quantized = variant.kind == "quantized"
    spec = variant.network
    return {
        "network": variant.base,
        "seed": variant.seed,
        "kind": variant.kind,
        "of": getattr(spec, "of", None),
        "teachers": " + ".join(spec.teachers) if isinstance(spec, Distilled) and variant.aided else None,
        "pretrained": is_pretrained(variant, among),
        "parameters": _mean(one.shape.parameters for one in networks),
        "macs": _mean(one.shape.macs for one in networks),
        "bytes": _mean(len(one.model) for one in exported),
        "compressed_bytes": _mean(len(zlib.compress(one.model, _COMPRESSION)) for one in exported),
        "zeros": None if quantized else _mean(share_of_zeros(one) for one in networks),
        "in_float": _in_float(exported) if quantized else None,
        **{name: None if quantized else _mean(one.about.get(name) for one in networks) for name in _TRAINING},
    }


def is_pretrained(variant: Variant, among: tuple[Variant, ...]) -> bool:
    """Whether a network, or the first of those that it was made from, began with trained weights."""
    start = origin(variant, among)
    if start is not None:
        return is_pretrained(start, among)
    return isinstance(variant.network, FineTuned) and not variant.network.weights.startswith("random")


def share_of_zeros(network: TrainedNetwork) -> float:
    """How many of the weights of convolutions and linear layers are exactly zero, in [0, 1]; biases do not count."""
    weights = [tensor for name, tensor in network.tensors.items() if name.endswith(".weight")]
    zeros = sum(int(tensor.size - np.count_nonzero(tensor)) for tensor in weights)
    return zeros / sum(int(tensor.size) for tensor in weights)


def _in_float(exported: Sequence[ExportedFile]) -> str | None:
    """The layers that any rotation keeps in float, each once, in order."""
    layers = dict.fromkeys(layer for one in exported for layer in one.card["quantization"]["in_float"])
    return ", ".join(layers) or None


def _mean(values: Iterable[float | None]) -> float | None:
    """None where a value is missing; an untrained network has no loss, which is noted as NaN."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return None if np.isnan(numbers).any() else float(numbers.mean())


class ComparedNetwork(Spec):
    """A network's scores in a cell, and those that give its thresholds.

    It is compared with the first one, with its `origin` where it was quantized from one, and a student over all its
    seeds with `alone`, the same student without its teachers.
    """

    fit: Fit
    origin: Fit | None = None
    alone: Name | None = None
    scores: Ref
    reference: Ref


@step("compare-networks", version=2, label=lambda *, cell, **_: cell.name, libraries=("numpy",))
def compare_networks(
    run: StepRun,
    *,
    cell: Cell,
    networks: tuple[ComparedNetwork, ...],
    classes: tuple[str, ...],
    seed: int,
    resamples: int,
) -> Output:
    """How networks compare with the first of them in one cell, and those of several training seeds over these."""
    scores = {one.fit: _read(run.store, one.fit, one.scores) for one in networks}
    rows = compare(
        scores,
        networks[0].fit,
        classes,
        cell,
        references={one.fit: _read(run.store, one.fit, one.reference) for one in networks},
        origins={one.fit: one.origin for one in networks if one.origin is not None},
        seed=seed,
        resamples=resamples,
    )
    alone = {one.fit.detector: one.alone for one in networks if one.alone is not None}
    rows += compare_seeds(scores, classes, cell, alone=alone, seed=seed, resamples=resamples)
    return Output({ROWS: comparison_table(rows)}, {"networks": [one.fit.label for one in networks]})


def _read(store: Store, fit: Fit, ref: Ref) -> pl.DataFrame:
    """A network's scores; SpecError where they are another one's."""
    scores = read_scores(store, ref)
    foreign = [found for found in scores.select(*Fit.model_fields).unique().to_dicts() if Fit(**found) != fit]
    if foreign:
        raise SpecError(f"expected scores of {fit.label}, got those of {foreign}")
    return scores


class DescribedNetwork(Spec):
    """A network with one training seed: its weights by rotation, none of a quantized one, and its exported files."""

    variant: Variant
    weights: tuple[Ref, ...]
    exported: tuple[Ref, ...]


@step("describe-networks", version=2, label=lambda *, networks, **_: networks[0].variant.base, libraries=("numpy",))
def describe_networks(run: StepRun, *, networks: tuple[DescribedNetwork, ...]) -> Output:
    """What every network is and weighs, as NETWORK_SCHEMA rows; with all that they were made from."""
    weights = {one.variant: one.weights for one in networks}
    among = tuple(weights)
    rows = []
    for one in networks:
        trained = [TrainedNetwork.load(run.store, ref) for ref in weights[_with_weights(one.variant, among)]]
        rows.append(describe(one.variant, among, trained, [_exported_file(run.store, ref) for ref in one.exported]))
    return Output({ROWS: pa.Table.from_pylist(rows, schema=NETWORK_SCHEMA)})


def _with_weights(variant: Variant, among: tuple[Variant, ...]) -> Variant:
    """The network itself, or the one that a quantized one was made from."""
    start = origin(variant, among) if variant.kind == "quantized" else None
    return variant if start is None else start


def _exported_file(store: Store, ref: Ref) -> ExportedFile:
    return ExportedFile(read_part(store, ref, MODEL), json.loads(read_part(store, ref, CARD)))
