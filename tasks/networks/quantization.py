"""Static 8-bit quantisation of an exported network: calibrated, mended, checked, and which of its stages lose by it.

Sums of 8-bit products must be exact, which `open_session` sees to: on x86-64 without VNNI they saturate otherwise. A
quantised network must answer its self-test as the same network with unsigned weights does, whose kernels are exact
everywhere.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.digest import canonical_json, hash_fraction, sha256_hex
from storage.errors import SpecError
from storage.objects import Ref, read_part
from tasks.data.pictures import Pixels
from tasks.networks.export import file_facts
from tasks.networks.exported import CARD, MODEL, ExportedNetwork
from tasks.networks.onnx_graph import serialised
from tasks.networks.quantized_graph import (
    STEM,
    Ranges,
    activation_ranges,
    parsed_model,
    quantizable_stages,
    quantize_with,
    with_unsigned_weights,
)
from tasks.networks.training_pictures import Pictures, load_pictures
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Quantized
from tasks.spec.splits import Splits
from tasks.spec.views import View

logger = logging.getLogger(__name__)

# More stages in float would leave little of the speed.
MOST_IN_FLOAT = 6
DAMAGE_PICTURES = 64
VAL_PICTURES = 2_000

# What a model, by its bytes' sha256, says of a val picture: most of the work, and kept for an attempt that goes on.
_ANSWER_SCHEMA = pa.schema([("model", pa.string()), ("picture", pa.int32()), ("probabilities", pa.list_(pa.float64()))])

_ONE_SIDED = 1.645  # standard deviations: 95 % of a normal distribution lie below


@dataclass(frozen=True)
class Check:
    """How two networks fared on the same pictures: which of them each got right, bool (N,), and classes (N,)."""

    before: npt.NDArray[np.bool_]
    after: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int64]

    @property
    def points_lost(self) -> float:
        """Accuracy before minus accuracy after, in points (-100..100)."""
        return 100 * float(self.before.mean() - self.after.mean())

    @property
    def points_lost_beyond_chance(self) -> float:
        """`points_lost`, or 0 where as many changed answers could have come out so by chance.

        By McNemar's test, one-sided at 5 %: of some hundred val pictures a few change sides with any rounding, and
        layers kept in float for these would cost size and speed without a gain.
        """
        wrong_now = int((self.before & ~self.after).sum())
        right_now = int((~self.before & self.after).sum())
        if wrong_now - right_now <= _ONE_SIDED * (wrong_now + right_now) ** 0.5:
            return 0.0
        return self.points_lost

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Accuracies in [0, 1], before and after, of all and of each class, with their n."""
        per_class = {name: _accuracies(self, self.classes == number) for number, name in enumerate(names)}
        return {**_accuracies(self, np.ones(len(self.classes), dtype=bool)), "per_class": per_class}


def stages_by_damage(model: bytes, ranges: Ranges, pictures: Sequence[Pixels]) -> list[tuple[str, float]]:
    """Every stage and how far it alone, quantised, moves the answers, worst first.

    The distance of two answers is the largest difference of a class's probability; the mean over the pictures, 0..1.
    """
    stages = quantizable_stages(parsed_model(model))
    before = _probabilities(model, pictures)  # (N, k)
    damage = {}
    for stage in stages:
        alone = quantize_with(model, ranges, set(stages) - {stage})
        damage[stage] = float(np.abs(_probabilities(alone, pictures) - before).max(axis=1).mean())
    return sorted(damage.items(), key=lambda item: -item[1])


def recentred(quantized: bytes, model: bytes, pictures: Sequence[Pixels]) -> bytes:
    """A quantised model whose logits have the mean that the model's own have on calibration pictures.

    Roundings do not cancel: without this, all logits of a class move together, by enough to favour one class over
    another (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2,
    here for the network as a whole). The difference goes into the last bias, which is a float one.
    """
    from onnx import numpy_helper

    moved = _logits(model, pictures).mean(axis=0) - _logits(quantized, pictures).mean(axis=0)  # (k,)
    parsed = parsed_model(quantized)
    biases = [one for one in parsed.graph.initializer if one.name.startswith("head.") and one.name.endswith(".bias")]
    last = biases[-1]
    values = (numpy_helper.to_array(last) + moved).astype(np.float32)
    last.CopyFrom(numpy_helper.from_array(values, last.name))
    return serialised(parsed)


def quantize_within(
    model: bytes,
    ranges: Ranges,
    tolerance: float,
    check: Callable[[bytes], float],
    by_damage: Callable[[], list[tuple[str, float]]],
    mend: Callable[[bytes], bytes] = lambda quantized: quantized,
) -> tuple[bytes, tuple[str, ...]]:
    """The quantised model, and the stages that stay in float because it would lose more than `tolerance` points.

    Args:
        check: points of accuracy that a model loses.
        by_damage: the stages, worst first; only asked for where all of them in 8 bits lose too much.
        mend: what is done to every quantised model before it is checked.

    At most `MOST_IN_FLOAT` stages stay. Where even that does not suffice, the one that lost least is returned.
    """
    quantized = mend(quantize_with(model, ranges))
    lost = check(quantized)
    best: tuple[float, bytes, tuple[str, ...]] = (lost, quantized, ())
    if lost <= tolerance:
        return quantized, ()
    worst = [stage for stage, _ in by_damage()][:MOST_IN_FLOAT]
    for count in range(1, len(worst) + 1):
        kept = tuple(worst[:count])
        quantized = mend(quantize_with(model, ranges, kept))
        lost = check(quantized)
        logger.info("%s in float: %.2f points lost", ", ".join(kept), lost)
        if lost < best[0]:
            best = (lost, quantized, kept)
        if lost <= tolerance:
            break
    return best[1], best[2]


def calibration_indices(pictures: Pictures, count: int) -> list[int]:
    """Which pictures to calibrate on: `count` of them (or all), drawn by hash, as many of each class as there are.

    Raises:
        SpecError: pictures of one class only.
    """
    if len(np.unique(pictures.classes)) < 2:
        raise SpecError("calibration needs pictures of at least two classes: the ranges of one are not those of others")
    drawn = _by_hash(pictures, "calibration")
    rank: dict[int, int] = {}
    places = []
    for index in drawn:
        kind = int(pictures.classes[index])
        rank[kind] = rank.get(kind, -1) + 1
        places.append((rank[kind], kind, index))
    return [index for _, _, index in sorted(places)[:count]]


def _logits(model: bytes, pictures: Iterable[Pixels]) -> npt.NDArray[np.float64]:
    network = ExportedNetwork(model)
    return np.array([network.detect(pixels).logits for pixels in pictures], dtype=np.float64)


def _probabilities(model: bytes, pictures: Iterable[Pixels]) -> npt.NDArray[np.float64]:
    network = ExportedNetwork(model)
    return np.array([network.detect(pixels).probabilities for pixels in pictures], dtype=np.float64)


class _Answers:
    """What models answer to some pictures; what an earlier attempt asked is not asked again."""

    def __init__(self, pictures: Sequence[Pixels], pieces: RowPieces) -> None:
        self._pictures = pictures
        self._pieces = pieces
        self._known = {(row["model"], row["picture"]): row["probabilities"] for row in pieces.rows()}

    def of(self, model: bytes) -> npt.NDArray[np.float64]:
        """A model's class probabilities: (N, k)."""
        sha256 = sha256_hex(model)
        network: ExportedNetwork | None = None
        for number, pixels in enumerate(self._pictures):
            if (sha256, number) not in self._known:
                network = network or ExportedNetwork(model)
                answer = network.detect(pixels).probabilities.tolist()
                self._known[sha256, number] = answer
                self._pieces.add({"model": sha256, "picture": number, "probabilities": answer})
        return np.array([self._known[sha256, number] for number in range(len(self._pictures))])


def _accuracies(check: Check, of: npt.NDArray[np.bool_]) -> dict[str, Any]:
    before, after = float(check.before[of].mean()), float(check.after[of].mean())
    return {"n": int(of.sum()), "before": before, "after": after, "change": after - before}


def _by_hash(pictures: Pictures, purpose: str) -> list[int]:
    """All positions in an order that hashes of source and id decide."""
    keys = [hash_fraction(purpose, *key) for key in zip(pictures.sources, pictures.ids, strict=True)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _drawn_view(pictures: Pictures, index: int, views: Sequence[View]) -> View:
    number = hash_fraction("quantization-view", pictures.sources[index], pictures.ids[index]) * len(views)
    return views[int(number)]


@step(
    "quantize",
    version=4,
    label=lambda *, spec, rotation, **_: f"{spec.name}/{rotation}",
    libraries=("onnx", "onnxruntime", "numpy", "pillow", "simplejpeg"),
)
def quantize_network(
    run: StepRun,
    *,
    spec: Quantized,
    exported: Ref,
    images: tuple[Ref, ...],
    rotation: int,
    splits: Splits,
    views: tuple[View, ...],
) -> Output:
    """An exported network in 8 bits, calibrated on train pictures and checked on val ones, a view drawn for each.

    Raises:
        WrongAnswers: this machine computes otherwise with it than in exact sums.
    """
    model, card = read_part(run.store, exported, MODEL), json.loads(read_part(run.store, exported, CARD))
    classes: list[str] = card["classes"]
    train = load_pictures(run.store, images, "train", rotation, splits, classes, views[0])
    drawn = calibration_indices(train, spec.calibration_pictures)
    calibration = [train.pixels(index, _drawn_view(train, index, views)) for index in drawn]
    ranges = activation_ranges(model, calibration)

    val = load_pictures(run.store, images, "val", rotation, splits, classes, views[0])
    checked = _by_hash(val, "quantization-check")[:VAL_PICTURES]
    pictures = [val.pixels(index, _drawn_view(val, index, views)) for index in checked]
    truth = val.classes[checked]
    pieces = RowPieces(run.store, run.checkpoints, _ANSWER_SCHEMA)
    answers = _Answers(pictures, pieces)

    def correct(candidate: bytes) -> npt.NDArray[np.bool_]:
        return np.asarray(answers.of(candidate).argmax(axis=1) == truth)

    before = correct(model)

    def check(candidate: bytes) -> Check:
        return Check(before, correct(candidate), truth)

    quantized, kept = quantize_within(
        model,
        ranges,
        spec.tolerance,
        lambda candidate: check(candidate).points_lost_beyond_chance,
        lambda: stages_by_damage(model, ranges, pictures[:DAMAGE_PICTURES]),
        lambda made: recentred(made, model, calibration),
    )
    outcome = check(quantized)
    if outcome.points_lost_beyond_chance > spec.tolerance:
        logger.warning("%s loses %.2f points on val, more than %g", spec.name, outcome.points_lost, spec.tolerance)
    facts = {
        "in_float": [STEM, *kept],
        "calibration_pictures": len(calibration),
        "tolerance": spec.tolerance,
        "val": outcome.facts(classes),
    }
    card |= file_facts(quantized, answering=with_unsigned_weights(quantized)) | {"quantization": facts}
    ExportedNetwork(quantized, card)
    parts = {MODEL: quantized, CARD: canonical_json(card).encode()}
    return Output(parts, {"bytes": len(quantized), **facts}, pieces)
