"""How well a score of familiarity tells pictures of known sources from those of unknown ones: metrics and intervals.

A picture is *known* if its source is one that the network was trained on, and then positive: a high score should be
accepted. With rotating folds each fold is a network of its own, whose scores are not on the others' scale: curves
compare scores of the same fold only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.evaluation.classification import EvaluationError
from tasks.evaluation.intervals import (
    RESAMPLES,
    Boolean,
    Float,
    Integer,
    Measured,
    Resampled,
    group_weights,
    of_resamples,
    share_of_resamples,
    too_few_groups,
)

UNKNOWN_CLASS = -1
TPR = 0.95

SEPARATION_METRICS = ("auroc", "fpr_at_95_tpr", "oscr", "accuracy")
REJECTION_METRICS = ("rejected_known", "rejected_unknown", "accuracy_accepted")
DIFFERENCE_METRICS = ("auroc", "oscr")


@dataclass(frozen=True)
class Answered:
    """What a network says of some test pictures, one row for each picture and fold that scored it.

    truth: (N,) int, class index or -1 for an unknown source. answer: (N,) int, the most probable class. groups: (N,)
    str. fold: (N,) int. `of` validates.
    """

    truth: Integer
    answer: Integer
    groups: NDArray[np.str_]
    fold: Integer

    @classmethod
    def of(cls, truth: ArrayLike, answer: ArrayLike, groups: ArrayLike, fold: ArrayLike | None = None) -> Answered:
        """Validated arrays; all rows are of one fold where none is given. Raises EvaluationError."""
        truth_, answer_ = np.asarray(truth), np.asarray(answer)
        groups_ = np.asarray(groups, dtype=np.str_)
        fold_ = np.zeros(len(truth_), dtype=np.int64) if fold is None else np.asarray(fold)
        shapes = [array.shape for array in (truth_, answer_, groups_, fold_)]
        if truth_.ndim != 1 or len(set(shapes)) != 1:
            raise EvaluationError(
                f"truth, answer, groups and fold must be one-dimensional and equally long; got shapes {shapes}"
            )
        if len(truth_) and (truth_.min() < UNKNOWN_CLASS or answer_.min() < 0):
            raise EvaluationError("truth must be a class index or -1 (unknown), answer a class index")
        return cls(truth_.astype(np.int64), answer_.astype(np.int64), groups_, fold_.astype(np.int64))

    @property
    def known(self) -> Boolean:
        """Whether each row's source is one that the network was trained on: (N,)."""
        known: Boolean = self.truth != UNKNOWN_CLASS
        return known

    @property
    def correct(self) -> Boolean:
        """Whether the most probable class is the true one; never for an unknown source: (N,)."""
        correct: Boolean = self.truth == self.answer
        return correct


def auroc_known_unknown(known_scores: ArrayLike, unknown_scores: ArrayLike) -> float:
    """Share of pairs in which the known picture scores higher than the unknown one; ties count one half.

    known_scores (N,), unknown_scores (M,), higher is more familiar; in [0, 1]. Equal to scikit-learn's
    `roc_auc_score` with known as positive class. Raises EvaluationError where a side is empty or a score not finite.
    """
    known, unknown = _both_sides(known_scores, unknown_scores)
    return _value(_curves_of_sides(known, np.zeros(len(known), dtype=bool), unknown, TPR)["auroc"])


def fpr_at_tpr(known_scores: ArrayLike, unknown_scores: ArrayLike, tpr: float = TPR) -> float:
    """Share of unknown pictures that the highest threshold accepts which accepts at least `tpr` of the known ones.

    Accepted is `score >= threshold`. Liang, Li & Srikant 2018 (ODIN), with known as positive class: the
    first point of scikit-learn's `roc_curve(drop_intermediate=False)` with a true positive rate of `tpr`.
    Arrays and errors as for `auroc_known_unknown`; EvaluationError also unless 0 < tpr <= 1.
    """
    if not 0 < tpr <= 1:
        raise EvaluationError(f"tpr must lie in (0, 1], got {tpr}")
    known, unknown = _both_sides(known_scores, unknown_scores)
    return _value(_curves_of_sides(known, np.zeros(len(known), dtype=bool), unknown, tpr)["fpr_at_95_tpr"])


def oscr(known_scores: ArrayLike, correct: ArrayLike, unknown_scores: ArrayLike) -> float:
    """Area under the open-set classification rate: correct classification rate over false positive rate.

    At a threshold, CCR is the share of known pictures that are accepted and classified correctly, FPR the share of
    unknown ones that are accepted (Dhamija, Günther & Boult 2018; the area as Vaze, Han, Vedaldi &
    Zisserman 2022 report it, by the trapezoidal rule). It is at most the accuracy on known pictures, and equals it
    where every unknown one scores lower.

    correct: (N,) bool, parallel to known_scores. Other arrays and errors as for `auroc_known_unknown`.
    """
    known, unknown = _both_sides(known_scores, unknown_scores)
    correct_ = np.asarray(correct)
    if correct_.shape != known.shape or correct_.dtype != np.bool_:
        raise EvaluationError(
            f"correct must be one boolean per known picture; got {correct_.dtype} {correct_.shape} for {known.shape}"
        )
    return _value(_curves_of_sides(known, correct_, unknown, TPR)["oscr"])


def threshold_keeping(known_scores: ArrayLike, kept: float = 0.95) -> float:
    """The highest threshold t at which `score >= t` accepts at least the share `kept` of known val pictures.

    known_scores: (N,), higher is more familiar. Raises EvaluationError where there are none, where one is not finite,
    or unless 0 < kept <= 1.
    """
    scores = _finite(known_scores, "known scores")
    if not 0 < kept <= 1:
        raise EvaluationError(f"kept must lie in (0, 1], got {kept}")
    if not len(scores):
        raise EvaluationError("a threshold needs known val pictures; got none")
    accepted = np.arange(1, len(scores) + 1) / len(scores)
    return float(np.sort(scores)[::-1][np.argmax(accepted >= kept)])


def confusion_matrix(
    images: Answered, sources: ArrayLike, accepted: ArrayLike, classes: Sequence[str], unknown_sources: Sequence[str]
) -> Integer:
    """How often each true class or unknown source got each answer: (k + u, k + 1), the last column "unknown".

    sources: (N,) str, read where truth is unknown. accepted: (N,) bool. classes: the k names; unknown_sources: the u
    names of the last rows. Raises EvaluationError on a class index or an unknown source that is not named.
    """
    sources_, accepted_ = np.asarray(sources, dtype=np.str_), np.asarray(accepted, dtype=bool)
    count = len(classes)
    rows = {name: count + index for index, name in enumerate(unknown_sources)}
    foreign = sorted(set(sources_[~images.known].tolist()) - set(rows))
    if foreign or max([*images.truth.tolist(), *images.answer.tolist()], default=0) >= count:
        raise EvaluationError(f"expected classes 0 .. {count - 1} and sources {sorted(rows)}, got sources {foreign}")
    truth = images.truth.copy()
    truth[~images.known] = [rows[name] for name in sources_[~images.known].tolist()]
    answer = np.where(accepted_, images.answer, count)
    matrix = np.zeros((count + len(rows), count + 1), dtype=np.int64)
    np.add.at(matrix, (truth, answer), 1)
    return matrix


def separation_metrics(
    images: Answered, score: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Measured]:
    """What needs no threshold: `SEPARATION_METRICS` with 95 % intervals.

    auroc, fpr_at_95_tpr and oscr as the functions of those names, pairs and thresholds within a fold; accuracy is the
    share of known pictures whose most probable class is the true one, nothing rejected.

    score: (N,), higher is more familiar. Intervals: percentile bootstrap over groups, known and unknown ones drawn
    together, so that a photograph and its fakes stay together. A metric is None with a reason where known or unknown
    pictures are missing; there is no interval where either come from fewer than ten groups.
    Raises EvaluationError on scores that are not finite or of another length.
    """
    ranked = _ranked_folds(images, _score_of(images, score))
    measured = _measure(
        images, lambda weights: _curves(ranked, weights), ("auroc", "fpr_at_95_tpr", "oscr"), resamples, seed
    )
    return measured | _shares(images, {"accuracy": (images.correct, images.known)}, resamples, seed)


def rejection_metrics(
    images: Answered, score: ArrayLike, thresholds: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Measured]:
    """What a threshold does: `REJECTION_METRICS` with 95 % intervals, thresholds fixed.

    rejected_known, rejected_unknown: share of these pictures that are answered "unknown" (score < threshold).
    accuracy_accepted: share of the accepted known pictures whose class is the true one.

    score: (N,). thresholds: (N,), each row's own; NaN where its fold has none, which leaves every metric None.
    Intervals and errors as for `separation_metrics`.
    """
    score_, limits = _score_of(images, score), np.asarray(thresholds, dtype=np.float64)
    if limits.shape != score_.shape:
        raise EvaluationError(f"thresholds must be one per picture; expected {score_.shape}, got {limits.shape}")
    if np.isnan(limits).any():
        return dict.fromkeys(REJECTION_METRICS, Measured(None, reason="no known val pictures to set the threshold by"))
    accepted = score_ >= limits
    shares = {
        "rejected_known": (images.known & ~accepted, images.known),
        "rejected_unknown": (~images.known & ~accepted, ~images.known),
        "accuracy_accepted": (images.correct & accepted, images.known & accepted),
    }
    return _shares(images, shares, resamples, seed)


def paired_difference(
    images: Answered,
    score: ArrayLike,
    against: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Measured]:
    """AUROC and OSCR of one score minus those of another on the same pictures, paired over the same resamples.

    score, against: (N,). Reasons, intervals and errors as for `separation_metrics`.
    """
    first, second = (_ranked_folds(images, _score_of(images, values)) for values in (score, against))

    def difference(weights: Float) -> dict[str, Float]:
        one, other = _curves(first, weights), _curves(second, weights)
        return {name: one[name] - other[name] for name in DIFFERENCE_METRICS}

    return _measure(images, difference, DIFFERENCE_METRICS, resamples, seed)


def _finite(values: ArrayLike, name: str) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise EvaluationError(f"{name} must be one-dimensional and finite; got shape {array.shape}")
    return array


def _both_sides(known_scores: ArrayLike, unknown_scores: ArrayLike) -> tuple[Float, Float]:
    known, unknown = _finite(known_scores, "known scores"), _finite(unknown_scores, "unknown scores")
    if not len(known) or not len(unknown):
        raise EvaluationError(f"known and unknown pictures are needed; got {len(known)} and {len(unknown)}")
    return known, unknown


def _score_of(images: Answered, score: ArrayLike) -> Float:
    array = _finite(score, "scores")
    if array.shape != images.truth.shape:
        raise EvaluationError(f"scores must be one per picture; expected {images.truth.shape}, got {array.shape}")
    return array


def _value(values: Float) -> float:
    return float(values[0])


@dataclass(frozen=True)
class _RankedFold:
    """One fold's rows in the order of their scores: sorted once, used by every resample."""

    known: Integer  # (K,) row numbers of known pictures, by descending score
    unknown: Integer  # (U,) of unknown ones
    correct: Float  # (K,) 1 where the known picture's class is right
    known_at_or_above: Integer  # (K,) number of known pictures that score at least as much as each known one
    unknown_above: Integer  # (K,) number of unknown pictures that score more than each known one
    unknown_at_or_above: Integer  # (K,) the same, or equally much

    @classmethod
    def of(cls, score: Float, known: Integer, unknown: Integer, correct: Boolean) -> _RankedFold:
        known = known[np.argsort(-score[known], kind="stable")]
        unknown = unknown[np.argsort(-score[unknown], kind="stable")]
        level, other = -score[known], -score[unknown]  # ascending
        return cls(
            known,
            unknown,
            correct[known].astype(np.float64),
            np.searchsorted(level, level, side="right"),
            np.searchsorted(other, level, side="left"),
            np.searchsorted(other, level, side="right"),
        )


def _ranked_folds(images: Answered, score: Float) -> list[_RankedFold]:
    return [
        _RankedFold.of(
            score,
            np.flatnonzero(images.known & (images.fold == fold)),
            np.flatnonzero(~images.known & (images.fold == fold)),
            images.correct,
        )
        for fold in np.unique(images.fold)
    ]


def _curves_of_sides(known: Float, correct: Boolean, unknown: Float, tpr: float) -> dict[str, Float]:
    """`_curves` of one fold's scores, each picture once."""
    score = np.concatenate([known, unknown])
    rows = np.arange(len(score))
    right = np.concatenate([correct, np.zeros(len(unknown), dtype=bool)])
    ranked = _RankedFold.of(score, rows[: len(known)], rows[len(known) :], right)
    return _curves([ranked], np.ones((1, len(score))), tpr)


def _curves(folds: Sequence[_RankedFold], weights: Float, tpr: float = TPR) -> dict[str, Float]:
    """AUROC, FPR at the TPR and OSCR, each (R,), for whole-numbered row weights (R, N); NaN where undefined.

    Every trapezoid of the OSCR curve counts the pairs (correct known, unknown) that it ranks right, so its area is an
    AUROC whose wins need a correct class: both are sums over the same pairs. Folds add up as counts of pairs (and of
    unknown pictures), a fold without known or unknown weight adding none.
    """
    wins, correct_wins, pairs, accepted, unknowns = np.zeros((5, len(weights)))
    for fold in folds:
        if not len(fold.known) or not len(fold.unknown):
            continue
        known = weights[:, fold.known]  # (R, K)
        unknown = _cumulated(weights[:, fold.unknown])  # (R, U + 1)
        at_or_above = unknown[:, fold.unknown_at_or_above]  # (R, K)
        below = unknown[:, -1:] - (unknown[:, fold.unknown_above] + at_or_above) / 2
        wins_each = known * below
        n_known = known.sum(axis=1)
        n_unknown = np.where(n_known > 0, unknown[:, -1], 0.0)
        wins += wins_each.sum(axis=1)
        correct_wins += wins_each @ fold.correct
        pairs += n_known * n_unknown
        rate = _cumulated(known)[:, fold.known_at_or_above] / np.maximum(n_known, 1.0)[:, None]
        first = np.argmax(rate >= tpr, axis=1)
        accepted += np.where(n_known > 0, at_or_above[np.arange(len(weights)), first], 0.0)
        unknowns += n_unknown
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"auroc": wins / pairs, "fpr_at_95_tpr": accepted / unknowns, "oscr": correct_wins / pairs}


def _cumulated(weights: Float) -> Float:
    """Running sums with a leading zero: (R, M) -> (R, M + 1)."""
    total = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total


def _measure(
    images: Answered,
    metrics_of: Callable[[Float], dict[str, Float]],
    names: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Measured]:
    """Values and intervals of metrics that need known and unknown pictures, by row weights (R, N) -> name -> (R,)."""
    missing = _missing(images, images.known, "known") or _missing(images, ~images.known, "unknown")
    if missing:
        return dict.fromkeys(names, Measured(None, reason=missing))
    ones = np.ones((1, len(images.truth)))
    values = {name: _value(samples) for name, samples in metrics_of(ones).items() if name in names}
    if any(np.isnan(value) for value in values.values()):
        return dict.fromkeys(names, Measured(None, reason="no fold has both known and unknown pictures"))
    few = _too_few(images, images.known, "known") or _too_few(images, ~images.known, "unknown")
    if few:
        return {name: Measured(values[name], reason=few) for name in names}
    samples = of_resamples(metrics_of, images.groups, group_weights(images.groups, resamples, seed))
    return {name: _with_interval(values[name], samples[name]) for name in names}


def _shares(
    images: Answered, shares: Mapping[str, tuple[Boolean, Boolean]], resamples: int, seed: int
) -> dict[str, Measured]:
    """Values and intervals of shares: name -> (rows that count (N,), rows among which they are counted (N,))."""
    weights = group_weights(images.groups, resamples, seed)
    measured = {}
    for name, (part, whole) in shares.items():
        side, called = (~images.known, "unknown") if name == "rejected_unknown" else (images.known, "known")
        missing = _missing(images, side, called) or ("" if whole.any() else "every known picture is rejected")
        if missing:
            measured[name] = Measured(None, reason=missing)
            continue
        value, few = float(part.sum() / whole.sum()), _too_few(images, side, called)
        if few:
            measured[name] = Measured(value, reason=few)
            continue
        measured[name] = _with_interval(value, share_of_resamples(part, whole, images.groups, weights))
    return measured


def _missing(images: Answered, side: Boolean, called: str) -> str:
    return "" if side.any() else f"no {called} pictures"


def _too_few(images: Answered, side: Boolean, called: str) -> str:
    return too_few_groups(images.groups[side], f"{called} pictures")


def _with_interval(value: float, samples: Float) -> Measured:
    return Resampled(value, samples, 0).measured()
