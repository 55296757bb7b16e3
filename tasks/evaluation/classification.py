"""How well scores separate fakes from photographs: metrics, thresholds, bootstrap intervals, balanced mixes.

The positive class is *fake* (label 1). Everything is float64 and a pure function of the per-image scores, so that every
published number can be regenerated from them. To get the first project's convention (real is positive), pass
`1 - label`, the negated or complemented score, and `~decision`.

A metric that is undefined is None and `reasons` says why; it is never 0 or NaN in disguise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from storage.errors import TelltaleError
from storage.tables import FAKE, REAL
from tasks.evaluation.intervals import (
    MINIMUM_GROUPS,
    RESAMPLES,
    TOO_FEW_GROUPS,
    Boolean,
    Float,
    Integer,
    Interval,
    Names,
    Resampled,
    group_weights,
    of_resamples,
    too_few_groups,
)

ECE_BINS = 15

COUNT_METRICS = ("accuracy", "precision", "recall", "f1", "balanced_accuracy")  # they need a threshold
RANK_METRICS = ("auroc", "average_precision", "eer")
FREE_METRICS = ("auroc", "average_precision", "ece", "eer")  # they need none
INTERVAL_METRICS = (*COUNT_METRICS, *FREE_METRICS)


class EvaluationError(TelltaleError):
    """Scores, labels or groups that cannot be evaluated."""


@dataclass(frozen=True)
class BinaryMetrics:
    """Metrics of one set of images; None where undefined, with the reason under the metric's name in `reasons`."""

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    balanced_accuracy: float | None
    auroc: float | None
    average_precision: float | None
    ece: float | None
    eer: float | None
    n_real: int
    n_fake: int
    tp: int
    fp: int
    tn: int
    fn: int
    threshold: float | None  # None: the decisions come from more than one threshold
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The fields as a plain dict, for a table row."""
        return asdict(self)


@dataclass(frozen=True)
class ScoredImages:
    """One detector's scores of some images: label (N,) 0 or 1, score (N,), decision (N,) bool, groups (N,) str."""

    label: ArrayLike
    score: ArrayLike
    decision: ArrayLike
    groups: ArrayLike
    calibrated: bool = True


def binary_metrics(
    label: ArrayLike,
    score: ArrayLike,
    decision: ArrayLike,
    calibrated: bool = True,
    threshold: float | None = None,
) -> BinaryMetrics:
    """All classification metrics of one set of images.

    label: (N,) 0 real, 1 fake. score: (N,) higher is more fake; p(fake) in [0, 1] where `calibrated`. decision: (N,)
    bool, True where the image was called fake; given explicitly because thresholds may differ between folds.
    `threshold` is only passed through. N may be 0.

    AUROC counts ties one half; average precision is the step sum of scikit-learn; ECE compares mean p(fake) with the
    share of fakes in 15 equal-width bins, weighted by their sizes (L1; the last bin includes p = 1); EER is where the
    linearly interpolated ROC curve meets FPR = 1 - TPR.

    Raises EvaluationError on unequal lengths, labels other than 0 and 1, non-finite scores, or `calibrated` scores
    outside [0, 1].
    """
    label_, score_, decision_ = _validated(label, score, decision, calibrated)
    fake = label_ == 1
    tp, fp = int(np.sum(decision_ & fake)), int(np.sum(decision_ & ~fake))
    fn, tn = int(np.sum(~decision_ & fake)), int(np.sum(~decision_ & ~fake))
    n_fake, n_real = tp + fn, fp + tn

    reasons = _undefined(tp, fp, fn, tn, calibrated)
    values: dict[str, float | None] = dict.fromkeys(INTERVAL_METRICS)
    ones = np.ones((1, len(label_)))
    with np.errstate(invalid="ignore", divide="ignore"):
        counts = [np.array([float(count)]) for count in (tp, fp, fn, tn)]
        computed = _metrics_of_counts(*counts)
        if {"auroc", "average_precision", "eer"} - reasons.keys():
            computed |= _rank_metrics(_RankedImages.of(label_, score_), ones)
        if "ece" not in reasons:
            computed["ece"] = np.abs(ones @ _ece_sums(label_, score_)).sum(axis=1) / len(label_)
    for name in INTERVAL_METRICS:
        if name not in reasons:
            values[name] = float(computed[name][0])
    return BinaryMetrics(
        **values, n_real=n_real, n_fake=n_fake, tp=tp, fp=fp, tn=tn, fn=fn, threshold=threshold, reasons=reasons
    )


def roc_curve(label: ArrayLike, score: ArrayLike) -> tuple[Float, Float, Float]:
    """False positive rate, true positive rate and thresholds, from (0, 0) to (1, 1): (K + 1,) each for K scores.

    Point k calls fake what has `score >= thresholds[k]`; the first threshold is infinity. No point is left out, as with
    scikit-learn's `drop_intermediate=False`. Raises EvaluationError where one class is missing.
    """
    label_, score_, _ = _validated(label, score, None, calibrated=False)
    _require_both_classes(label_)
    levels, fakes, reals = _counts_per_score(label_, score_)
    tpr = np.concatenate([[0.0], np.cumsum(fakes) / fakes.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(reals) / reals.sum()])
    return fpr, tpr, np.concatenate([[np.inf], levels])


def balanced_accuracy_threshold(label: ArrayLike, score: ArrayLike) -> float:
    """The threshold t for which `score >= t` has the largest balanced accuracy.

    Candidates are the midpoints between neighbouring distinct scores, the smallest score (everything is fake) and the
    float just above the largest one (nothing is). Among equal maxima the one nearest 0.5 wins, then the smaller, so
    that the result does not depend on the order of the images. Raises EvaluationError where one class is missing.
    """
    label_, score_, _ = _validated(label, score, None, calibrated=False)
    _require_both_classes(label_)
    levels, fakes, reals = _counts_per_score(label_, score_)  # descending
    midpoints = levels[1:] + (levels[:-1] - levels[1:]) / 2
    # Between adjacent floats the midpoint rounds to one of them; only the upper one still separates the two.
    midpoints = np.where(midpoints > levels[1:], midpoints, levels[:-1])
    thresholds = np.concatenate([[np.nextafter(levels[0], np.inf)], midpoints, [levels[-1]]])
    # (TPR - FPR) x n_fake x n_real in integers, so that equal maxima are exactly equal.
    true_positives = np.concatenate([[0], np.cumsum(fakes)])
    false_positives = np.concatenate([[0], np.cumsum(reals)])
    separation = true_positives * reals.sum() - false_positives * fakes.sum()
    best = thresholds[separation == separation.max()]
    return float(min(best, key=lambda t: (abs(t - 0.5), t)))


def _undefined(tp: int, fp: int, fn: int, tn: int, calibrated: bool) -> dict[str, str]:
    """Why which metric has no value, given the counts."""
    if tp + fp + fn + tn == 0:
        return dict.fromkeys(INTERVAL_METRICS, "no images")
    reasons: dict[str, str] = {}
    if tp + fp == 0:
        reasons["precision"] = "nothing was called fake"
    if tp + fn == 0:
        reasons |= dict.fromkeys(("recall", "balanced_accuracy", "auroc", "average_precision", "eer"), "no fakes")
        if fp == 0:
            reasons["f1"] = "no fakes, and nothing was called fake"
    if fp + tn == 0:
        reasons |= dict.fromkeys(("balanced_accuracy", "auroc", "eer"), "no photographs")
    if not calibrated:
        reasons["ece"] = "the scores are not probabilities"
    return reasons


def _validated(
    label: ArrayLike, score: ArrayLike, decision: ArrayLike | None, calibrated: bool
) -> tuple[Integer, Float, Boolean]:
    label_, score_ = np.asarray(label), np.asarray(score, dtype=np.float64)
    decision_ = np.zeros(len(label_), dtype=bool) if decision is None else np.asarray(decision)
    if decision_.size == 0:
        decision_ = decision_.astype(bool)
    if label_.ndim != 1 or label_.shape != score_.shape or label_.shape != decision_.shape:
        raise EvaluationError(
            "label, score and decision must be one-dimensional and equally long; "
            f"got shapes {label_.shape}, {score_.shape}, {decision_.shape}"
        )
    if not np.isin(label_, (0, 1)).all():
        raise EvaluationError(f"labels must be 0 (real) or 1 (fake); got {sorted(set(label_.tolist()) - {0, 1})[:5]}")
    if decision_.dtype != np.bool_:
        raise EvaluationError(f"decisions must be booleans (True: called fake); got dtype {decision_.dtype}")
    if not np.isfinite(score_).all():
        raise EvaluationError(f"scores must be finite; {int(np.sum(~np.isfinite(score_)))} of {len(score_)} are not")
    if calibrated and len(score_) and (score_.min() < 0.0 or score_.max() > 1.0):
        raise EvaluationError(
            f"calibrated scores are p(fake) and must lie in [0, 1]; got [{score_.min():g}, {score_.max():g}]; "
            "pass calibrated=False for decision values"
        )
    return label_.astype(np.int64), score_, decision_


def _require_both_classes(label: Integer) -> None:
    n_fake = int(label.sum())
    if n_fake in (0, len(label)):
        raise EvaluationError(f"both classes are needed; got {len(label) - n_fake} photographs and {n_fake} fakes")


def _counts_per_score(label: Integer, score: Float) -> tuple[Float, Integer, Integer]:
    """Distinct scores, descending, with the number of fakes and of photographs at each: three arrays (K,)."""
    levels, position = np.unique(-score, return_inverse=True)
    fakes = np.bincount(position, weights=label, minlength=len(levels)).astype(np.int64)
    reals = np.bincount(position, weights=1 - label, minlength=len(levels)).astype(np.int64)
    return -levels, fakes, reals


def _metrics_of_counts(tp: Float, fp: Float, fn: Float, tn: Float) -> dict[str, Float]:
    """The threshold metrics of (R,) counts; NaN where undefined."""
    recall, specificity = tp / (tp + fn), tn / (tn + fp)
    return {
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "precision": tp / (tp + fp),
        "recall": recall,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
    }


@dataclass(frozen=True)
class _RankedImages:
    """Which images stand at which distinct score: sorted once, used by every resample."""

    fakes: Integer  # (n_fake,) indices of the fakes, by descending score
    reals: Integer  # (n_real,) indices of the photographs, by descending score
    fake_ends: Integer  # (K,) number of fakes at or above each distinct score, descending
    real_ends: Integer  # (K,) the same of photographs

    @classmethod
    def of(cls, label: Integer, score: Float) -> _RankedImages:
        order = np.argsort(-score, kind="stable")
        _, fakes, reals = _counts_per_score(label, score)
        is_fake = label[order] == 1
        return cls(order[is_fake], order[~is_fake], np.cumsum(fakes), np.cumsum(reals))


def _rank_metrics(ranked: _RankedImages, weights: Float, metrics: Sequence[str] = RANK_METRICS) -> dict[str, Float]:
    """AUROC, average precision and EER, each (R,), for integer-valued image weights (R, N); NaN where undefined."""
    tp = _cumulated(weights, ranked.fakes, ranked.fake_ends)  # (R, K + 1)
    fp = _cumulated(weights, ranked.reals, ranked.real_ends)  # (R, K + 1)
    found: dict[str, Float] = {}
    if "auroc" in metrics:
        found["auroc"] = np.sum(np.diff(fp) * (tp[:, 1:] + tp[:, :-1]), axis=1) / (2 * tp[:, -1] * fp[:, -1])
    if "average_precision" in metrics:
        called = tp[:, 1:] + fp[:, 1:]
        precision = tp[:, 1:] / np.maximum(called, 1.0)  # weights are whole numbers: called is 0 or at least 1
        found["average_precision"] = np.sum(np.diff(tp) * precision, axis=1) / tp[:, -1]
    if "eer" in metrics:
        found["eer"] = _equal_error_rate(tp, fp)
    return found


def _cumulated(weights: Float, members: Integer, ends: Integer) -> Float:
    """Weight of the first `ends[k]` members, with a leading zero: (R, K + 1)."""
    total = np.zeros((len(weights), len(members) + 1))
    np.cumsum(weights[:, members], axis=1, out=total[:, 1:])
    return total[:, np.concatenate([[0], ends])]


def _equal_error_rate(tp: Float, fp: Float) -> Float:
    """Where the ROC polyline through cumulated counts (R, K + 1) meets FPR = 1 - TPR: (R,)."""
    n_fake, n_real = tp[:, -1:], fp[:, -1:]
    # (TPR + FPR - 1) x n_fake x n_real: whole numbers, rising from -1 to +1 in units of that product.
    excess = tp * n_real + fp * n_fake - n_fake * n_real
    after = np.argmax(excess >= 0, axis=1)[:, None]
    # A resample without one class is all zeros; any index will do, the division below yields NaN.
    before = np.maximum(after - 1, 0)
    low, high = np.take_along_axis(excess, before, axis=1), np.take_along_axis(excess, after, axis=1)
    share = -low / (high - low)
    fp_low, fp_high = np.take_along_axis(fp, before, axis=1), np.take_along_axis(fp, after, axis=1)
    rate: Float = ((fp_low + share * (fp_high - fp_low)) / n_real)[:, 0]
    return rate


def _ece_sums(label: Integer, score: Float) -> Float:
    """What each image adds to its bin's (score - label): (N, 15), zero elsewhere.

    Bin b holds [b/15, (b+1)/15), the last one also 1. |mean score - share of fakes| x bin size / N is then
    |sum of (score - label)| / N: the bin sizes cancel.
    """
    edges = np.linspace(0.0, 1.0, ECE_BINS + 1)
    position = np.minimum(np.searchsorted(edges, score, side="right") - 1, ECE_BINS - 1)
    sums = np.zeros((len(score), ECE_BINS))
    sums[np.arange(len(score)), position] = score - label
    return sums


def bootstrap_intervals(
    label: ArrayLike,
    score: ArrayLike,
    decision: ArrayLike,
    groups: ArrayLike,
    *,
    calibrated: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
    metrics: Sequence[str] = INTERVAL_METRICS,
) -> dict[str, Interval]:
    """95 % percentile bootstrap intervals over groups, by metric name, with the decisions (thresholds) held fixed.

    Arrays as for `binary_metrics`; groups: (N,) group ids. A resample draws as many groups as there are, with
    replacement, and takes each image as often as its group was drawn. Resamples with one class only, or in which the
    metric is undefined, are dropped and counted. No interval where there are fewer than ten groups or where the metric
    itself is undefined. Raises EvaluationError as `binary_metrics` does, and on a metric that it does not know.
    """
    images = ScoredImages(label, score, decision, groups, calibrated)
    weights, unique = group_weights(groups, resamples, seed)
    return {name: found.interval() for name, found in resampled_metrics(images, weights, unique, metrics).items()}


def resampled_metrics(
    images: ScoredImages, weights: NDArray[np.uint16], unique: Names, metrics: Sequence[str]
) -> dict[str, Resampled]:
    """Metrics of some images, with what each resample of their groups makes of them.

    weights (R, G) and unique (G,) as `group_weights` gives them, of the images' groups or of more: what is resampled
    by the same weights can be compared in pairs. No samples, but a reason, where the images are of fewer than ten
    groups or a metric is undefined. Raises EvaluationError as `bootstrap_intervals` does.
    """
    label, score, decision = _validated(images.label, images.score, images.decision, images.calibrated)
    _check_metrics(metrics)
    group_count = len(np.unique(_validated_groups(images.groups, len(label))))
    whole = binary_metrics(label, score, decision, images.calibrated)
    reasons = whole.reasons if group_count >= MINIMUM_GROUPS else dict.fromkeys(metrics, TOO_FEW_GROUPS)
    wanted = [name for name in metrics if name not in reasons]
    samples = _samples(images, weights, unique, wanted) if wanted else {}
    return {
        name: Resampled(getattr(whole, name), samples.get(name), group_count, reasons.get(name, "")) for name in metrics
    }


def few_groups_of_a_class(label: ArrayLike, groups: ArrayLike) -> str:
    """Why there is no interval, if photographs or fakes are of fewer than ten groups; else empty."""
    label_, groups_ = np.asarray(label), np.asarray(groups, dtype=np.str_)
    return too_few_groups(groups_[label_ == REAL], "photographs") or too_few_groups(groups_[label_ == FAKE], "fakes")


def _check_metrics(metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in INTERVAL_METRICS]
    if unknown:
        raise EvaluationError(f"unknown metrics {unknown}; known are {', '.join(INTERVAL_METRICS)}")


def _validated_groups(groups: ArrayLike, count: int) -> Names:
    names = np.asarray(groups, dtype=np.str_)
    if names.shape != (count,):
        raise EvaluationError(
            f"groups must be one-dimensional with one id per image; expected ({count},), got {names.shape}"
        )
    return names


def _samples(
    images: ScoredImages, weights: NDArray[np.uint16], unique: Names, metrics: Sequence[str]
) -> dict[str, Float]:
    """Each metric in each resample: name -> (R,), NaN where undefined or where a class is missing."""
    label, score, decision = _validated(images.label, images.score, images.decision, images.calibrated)
    position = np.searchsorted(unique, np.asarray(images.groups, dtype=np.str_))  # (N,) image -> group
    fake = label == 1

    def per_group(values: Boolean | Float) -> Float:
        totals: Float = np.bincount(position, weights=values.astype(np.float64), minlength=len(unique)).astype(
            np.float64
        )
        return totals

    counted = [decision & fake, decision & ~fake, ~decision & fake, ~decision & ~fake]
    tp, fp, fn, tn = (weights.astype(np.float64) @ np.stack([per_group(mask) for mask in counted], axis=1)).T
    one_class = (tp + fn == 0) | (fp + tn == 0)

    samples: dict[str, Float] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        samples |= _metrics_of_counts(tp, fp, fn, tn)
        if "ece" in metrics:
            sums = _ece_sums(label, score)
            bins = np.stack([per_group(sums[:, bin_]) for bin_ in range(ECE_BINS)], axis=1)  # (G, 15)
            samples["ece"] = np.abs(weights @ bins).sum(axis=1) / (tp + fp + fn + tn)
        if by_rank := [name for name in metrics if name in RANK_METRICS]:
            ranked = _RankedImages.of(label, score)
            samples |= of_resamples(lambda rows: _rank_metrics(ranked, rows, by_rank), images.groups, (weights, unique))
    return {name: np.where(one_class, np.nan, samples[name]) for name in metrics}


def draw_balanced_mix(image_id: ArrayLike, label: ArrayLike, source: ArrayLike, seed: int = 0) -> Boolean:
    """Which images a 1:1 mix of photographs and fakes holds, with equally many fakes of each source: (N,) bool.

    image_id, source: (N,) str; label: (N,) 0 real, 1 fake; an id occurs once per source. Every fake source gives as
    many images as the smallest one can, or as the photographs allow, and as many photographs as fakes are taken; all
    of them those with the smallest sha256 of seed and id. So the draw does not depend on order, and a larger share of
    a source contains the smaller one. Empty where a class is missing, or where there are fewer photographs than fake
    sources.

    Raises EvaluationError on unequal lengths, other labels, or an id that occurs twice in one source.
    """
    ids, sources = np.asarray(image_id, dtype=np.str_), np.asarray(source, dtype=np.str_)
    label_ = np.asarray(label)
    if ids.ndim != 1 or ids.shape != label_.shape or ids.shape != sources.shape:
        raise EvaluationError(
            "image_id, label and source must be one-dimensional and equally long; "
            f"got shapes {ids.shape}, {label_.shape}, {sources.shape}"
        )
    if not np.isin(label_, (0, 1)).all():
        raise EvaluationError("labels must be 0 (real) or 1 (fake)")
    keys = list(zip(ids.tolist(), sources.tolist(), strict=True))
    if len(set(keys)) != len(keys):
        raise EvaluationError(
            f"{len(keys) - len(set(keys))} images occur more than once; each may be counted once only"
        )

    rank = {key: (hashlib.sha256(f"{seed}:{key[0]}".encode()).digest(), key[1]) for key in keys}
    drawn = np.zeros(len(ids), dtype=bool)
    reals = np.flatnonzero(label_ == 0)
    fakes_of = [np.flatnonzero((label_ == 1) & (sources == name)) for name in np.unique(sources[label_ == 1])]
    if len(reals) == 0 or not fakes_of:
        return drawn
    per_source = min([len(reals) // len(fakes_of), *(len(fakes) for fakes in fakes_of)])
    for members, count in [(reals, per_source * len(fakes_of)), *((fakes, per_source) for fakes in fakes_of)]:
        drawn[sorted(members.tolist(), key=lambda index: rank[keys[index]])[:count]] = True
    return drawn
