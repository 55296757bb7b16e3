"""How near a generator's pictures are to photographs, as distances between two sets of image features.

The names FID, KID and IS belong to the 2015 Inception network alone (Heusel et al. 2017, arXiv:1706.08500; Binkowski
et al. 2018, arXiv:1801.01401; Salimans et al. 2016, arXiv:1606.03498). The same formulas on the experiment's own
features carry their own names, `Frechet-VGG16-<layer>` and `Kernel-VGG16-<layer>`, and their values compare with each
other only.

features -> statistics -> distance -> rows of a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from storage.errors import TelltaleError

Float = NDArray[np.float64]
Features = NDArray[np.floating]

FID_MINIMUM = 2_048  # images on either side; with fewer the 2,048-dimensional covariance has no full rank
KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1_000
_KERNEL_ROWS = 1_024  # rows of the kernel matrix held at once
FRECHET_RESAMPLES = 100
# A resample costs about the cube of this rank: some ten seconds for a hundred resamples at 512 on one core.
FRECHET_RESAMPLES_MAXIMUM_RANK = 512


class FidelityError(TelltaleError):
    """Features that no distance can be computed of."""


class QualityRow(TypedDict):
    """One row of the table of generator quality; low and high are the 95 % interval, None where there is none."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_real: int
    n_fake: int
    note: str


@dataclass(frozen=True)
class InceptionFeatures:
    """What the 2015 Inception network says of both sides."""

    real: Features  # (N, 2048) pooled features
    fake: Features  # (M, 2048)
    fake_probabilities: Features  # (M, 1008)
    digest: str  # sha256 of the weights


def gaussian_statistics(features: Features) -> tuple[Float, Float]:
    """Mean (D,) and unbiased covariance (D, D), float64, of features (N, D); N >= 2.

    Raises FidelityError on another shape, fewer than two images, or non-finite features.
    """
    features = _validated(features, "features", minimum=2)
    centred = features - features.mean(axis=0)
    return features.mean(axis=0), centred.T @ centred / (len(features) - 1)


def frechet_distance(mean1: Features, cov1: Features, mean2: Features, cov2: Features) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians, >= 0: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    means: (D,), covariances: (D, D) symmetric, positive semi-definite. With S1 = R'R, S1 S2 has the eigenvalues of the
    symmetric R S2 R', so the trace of its root is a sum of real roots: no complex matrix root, and singular covariances
    (fewer images than dimensions) need no offset. Raises FidelityError where the shapes do not match.
    """
    mean1, mean2 = np.asarray(mean1, dtype=np.float64), np.asarray(mean2, dtype=np.float64)
    cov1, cov2 = np.asarray(cov1, dtype=np.float64), np.asarray(cov2, dtype=np.float64)
    if mean1.ndim != 1 or mean1.shape != mean2.shape or {cov1.shape, cov2.shape} != {(len(mean1), len(mean1))}:
        raise FidelityError(
            "expected two means (D,) and two covariances (D, D); "
            f"got {mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}"
        )
    return FrechetReference.of(mean1, cov1).distance(mean2, cov2)


@dataclass(frozen=True)
class FrechetReference:
    """One side of Frechet distances, prepared for any number of others: mean (D,), factor (D, D) and trace of S1.

    `factor` is the upper triangular R of S1 = R'R: with it LAPACK makes R S2 R' in a quarter of the operations of two
    products with a symmetric root.
    """

    mean: Float
    factor: Float
    trace: float

    @classmethod
    def of(cls, mean: Features, cov: Features) -> FrechetReference:
        """Of a mean (D,) and a symmetric, positive semi-definite covariance (D, D)."""
        from scipy.linalg import eigh, qr

        # Not Cholesky's: a covariance of fewer images than dimensions is singular.
        values, vectors = eigh(cov)
        root = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
        (factor,) = qr(root, mode="r", overwrite_a=True)
        return cls(np.asarray(mean, dtype=np.float64), np.asfortranarray(factor), float(np.trace(cov)))

    def distance(self, mean: Features, cov: Features) -> float:
        """`frechet_distance` of this side and another one: mean (D,), covariance (D, D)."""
        from scipy.linalg import eigh
        from scipy.linalg.lapack import dsygst

        # itype 2: R S2 R', of which the upper triangle is computed; LAPACK reads columns, and S2 is symmetric.
        product, _ = dsygst(np.asarray(cov, dtype=np.float64).T, self.factor, itype=2)
        product_values = eigh(product, lower=False, eigvals_only=True, driver="ev", overwrite_a=True)
        trace_of_root = np.sqrt(np.clip(product_values, 0.0, None)).sum()
        distance = np.sum((self.mean - mean) ** 2) + self.trace + np.trace(cov) - 2.0 * trace_of_root
        return max(float(distance), 0.0)  # rounding may leave equal Gaussians a hair below zero


def frechet_distance_of_features(real: Features, fake: Features) -> float:
    """Frechet distance of the Gaussians fitted to features (N, D) and (M, D); equals the form above.

    With S1 = A'A and S2 = B'B for the centred, scaled features A (N, D) and B (M, D), the trace of (S1 S2)^(1/2) is
    the sum of the singular values of A B', a matrix of N x M: far smaller than D x D where there are few images.
    """
    real, fake = _validated_pair(real, fake, minimum=2)
    if min(len(real), len(fake)) >= real.shape[1]:
        return frechet_distance(*gaussian_statistics(real), *gaussian_statistics(fake))
    scaled = [(side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (real, fake)]
    trace_of_root = np.linalg.svd(scaled[0] @ scaled[1].T, compute_uv=False).sum()
    distance = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2) - 2.0 * trace_of_root
    distance += sum(np.sum(side**2) for side in scaled)
    return max(float(distance), 0.0)


def frechet_interval(
    real: Features, fake: Features, seed: int, resamples: int = FRECHET_RESAMPLES
) -> tuple[float, float, float]:
    """(distance, low, high): the 95 % spread over bootstrap resamples of the images on both sides.

    Resampled sets repeat images, which raises the distance by itself. The percentiles are therefore taken of the
    resamples' deviations from their median and laid around the distance: they show sampling spread, not the bias that a
    small sample has against the same generator's unlimited output.
    """
    real, fake = _validated_pair(real, fake, minimum=2)
    rng = np.random.default_rng(seed)
    distances = np.empty(resamples)
    for index in range(resamples):
        drawn = [side[rng.integers(0, len(side), len(side))] for side in (real, fake)]
        distances[index] = frechet_distance_of_features(*drawn)
    value = frechet_distance_of_features(real, fake)
    low, high = value + np.percentile(distances, [2.5, 97.5]) - np.median(distances)
    return value, max(float(low), 0.0), float(high)


def kernel_matrix(first: Features, second: Features) -> Float:
    """Polynomial kernel (x.y / D + 1)^3 of features (N, D) and (M, D): (N, M)."""
    base: Float = first @ second.T / first.shape[1] + 1.0
    return base * base * base


def squared_maximum_mean_discrepancy(real: Features, fake: Features) -> float:
    """Unbiased estimate of the squared MMD under the kernel above, of features (N, D) and (M, D), N, M >= 2.

    Unbiased means that the same distribution gives zero on average, and therefore often less than zero.
    """
    real, fake = _validated_pair(real, fake, minimum=2)
    return float(_discrepancies(real, fake, np.ones((1, len(real))), np.ones((1, len(fake))))[0])


def _discrepancies(real: Float, fake: Float, in_real: Float, in_fake: Float) -> Float:
    """The estimate above of each of S pairs of subsets, marked by ones in (S, N) and (S, M): (S,)."""

    def mean_between_different(side: Float, marks: Float) -> Float:
        size = marks.sum(axis=1)
        to_itself = marks @ (np.sum(side**2, axis=1) / side.shape[1] + 1.0) ** 3
        mean: Float = (_kernel_sums(side, side, marks, marks) - to_itself) / (size * (size - 1))
        return mean

    between = _kernel_sums(real, fake, in_real, in_fake) / (in_real.sum(axis=1) * in_fake.sum(axis=1))
    within = mean_between_different(real, in_real) + mean_between_different(fake, in_fake)
    discrepancies: Float = within - 2.0 * between
    return discrepancies


def _kernel_sums(first: Float, second: Float, in_first: Float, in_second: Float) -> Float:
    """Sum of the kernel over each pair of subsets, (S,): every kernel value is computed once for all subsets."""
    sums = np.zeros(len(in_first))
    for start in range(0, len(first), _KERNEL_ROWS):  # blocks of rows, because (N, M) may not fit in memory
        block = slice(start, start + _KERNEL_ROWS)
        sums += np.sum(in_first[:, block] @ kernel_matrix(first[block], second) * in_second, axis=1)
    return sums


def kernel_distance(
    real: Features, fake: Features, subsets: int = KERNEL_SUBSETS, subset_size: int = KERNEL_SUBSET_SIZE, seed: int = 0
) -> tuple[float, float, float]:
    """(mean, low, high): the kernel distance of KID, mean squared MMD over random subsets, with a 95 % interval.

    real: (N, D), fake: (M, D). `subsets` pairs of subsets of `subset_size` images are drawn without replacement; the
    kernel is the polynomial of degree 3, gamma 1/D and offset 1, the estimate unbiased.

    The interval is that of the mean as an estimate from n = min(N, M) images, not the noise of having drawn a finite
    number of subsets: estimates from m of n images, drawn without replacement, spread as those from n independent
    images do, times sqrt((n - m) / m) (delete-d jackknife, Wu 1990; Politis & Romano 1994). The percentiles of the
    subsets' deviations from their mean are divided by that factor. Images count as independent.

    Raises FidelityError where subset_size is not in [2, min(N, M) - 1] or subsets < 2.
    """
    real, fake = _validated_pair(real, fake, minimum=3)
    fewest = min(len(real), len(fake))
    if not 2 <= subset_size < fewest or subsets < 2:
        raise FidelityError(
            f"expected 2 or more subsets of 2 to {fewest - 1} images, because the smaller side has {fewest}; "
            f"got {subsets} subsets of {subset_size}"
        )
    rng = np.random.default_rng(seed)
    in_real, in_fake = np.zeros((subsets, len(real))), np.zeros((subsets, len(fake)))
    for index in range(subsets):
        in_real[index, rng.choice(len(real), subset_size, replace=False)] = 1.0
        in_fake[index, rng.choice(len(fake), subset_size, replace=False)] = 1.0
    estimates = _discrepancies(real, fake, in_real, in_fake)
    mean = float(estimates.mean())
    scale = np.sqrt(subset_size / (fewest - subset_size))
    low, high = mean + scale * (np.percentile(estimates, [2.5, 97.5]) - mean)
    return mean, float(low), float(high)


def inception_score(probabilities: Features, splits: int = 10) -> tuple[float, float]:
    """(mean, standard deviation) over `splits` parts, in the given order, of exp(mean KL(p(y|x) || p(y))); from 1 to C.

    probabilities: (N, C), each row sums to 1; N >= splits. Raises FidelityError otherwise.
    """
    probabilities = _validated(probabilities, "probabilities", minimum=splits)
    if probabilities.min() < 0.0 or np.abs(probabilities.sum(axis=1) - 1.0).max() > 1e-3:
        raise FidelityError("probabilities must not be negative, and every row must sum to 1")
    scores = []
    for part in np.array_split(probabilities, splits):
        marginal = part.mean(axis=0)
        # p log p is 0 at p = 0; where the marginal is 0, so is every p of that class.
        ratio = np.divide(part, marginal, out=np.ones_like(part), where=part > 0.0)
        scores.append(np.exp(np.sum(part * np.log(ratio), axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def feature_distances(real_features: Features, fake_features: Features, layer: str, seed: int) -> list[QualityRow]:
    """Kernel distance (the headline) and Frechet distance on the experiment's own VGG16 features.

    real_features: (N, D), fake_features: (M, D) of one layer and view, for example layer "pool5-avg", which gives the
    names `Kernel-VGG16-pool5avg` and `Frechet-VGG16-pool5avg`. A side with too few images gives rows without a value
    and a note that says so. Raises FidelityError on shapes that do not match or non-finite features.
    """
    real, fake = _validated_pair(real_features, fake_features, minimum=0)
    name = layer.replace("pool5-avg", "pool5avg")
    kernel = _kernel_row(f"Kernel-VGG16-{name}", real, fake, seed)
    return [kernel, _frechet_row(f"Frechet-VGG16-{name}", real, fake, seed)]


def quality_rows(
    real_features: Features,
    fake_features: Features,
    layer: str,
    seed: int,
    inception: InceptionFeatures | None = None,
) -> list[QualityRow]:
    """The rows of generator quality that may be printed of one generator in one view.

    Always the distances on the experiment's own features; with the 2015 Inception features also IS, and FID where both
    sides have the same number of images, at least 2,048, else KID with its interval.
    """
    rows = feature_distances(real_features, fake_features, layer, seed)
    return rows if inception is None else [*_inception_rows(inception, seed), *rows]


def _inception_rows(inception: InceptionFeatures, seed: int) -> list[QualityRow]:
    real, fake = _validated_pair(inception.real, inception.fake, minimum=0)
    weights = f"2015 Inception weights, sha256 {inception.digest}"
    if len(real) == len(fake) >= FID_MINIMUM:
        value = frechet_distance_of_features(real, fake)
        first = _row("FID", (value, None, None), real, fake, weights)
    else:
        first = _kernel_row("KID", real, fake, seed)
        first["note"] = (
            f"{first['note']}; no FID: it takes {FID_MINIMUM} or more images, equally many on both sides; {weights}"
        )
    if len(inception.fake_probabilities) < 10:
        score = _row("IS", (None, None, None), real, fake, f"fewer than 10 images; {weights}")
    else:
        mean, deviation = inception_score(inception.fake_probabilities)
        note = f"mean over 10 parts, standard deviation {deviation:.3f}; of the fakes alone; {weights}"
        score = _row("IS", (mean, None, None), real, fake, note)
    return [first, score]


def _kernel_row(metric: str, real: Float, fake: Float, seed: int) -> QualityRow:
    fewest = min(len(real), len(fake))
    subset_size = min(KERNEL_SUBSET_SIZE, fewest // 2)
    if subset_size < 2:
        return _row(metric, (None, None, None), real, fake, "fewer than 4 images on one side")
    values = kernel_distance(real, fake, KERNEL_SUBSETS, subset_size, seed)
    note = f"mean of {KERNEL_SUBSETS} subsets of {subset_size}; unbiased, may be negative; interval over images"
    return _row(metric, values, real, fake, note)


def _frechet_row(metric: str, real: Float, fake: Float, seed: int) -> QualityRow:
    fewest, dimensions = min(len(real), len(fake)), real.shape[1]
    if fewest < 2:
        return _row(metric, (None, None, None), real, fake, "fewer than 2 images on one side")
    values: tuple[float, float | None, float | None]
    if min(fewest, dimensions) <= FRECHET_RESAMPLES_MAXIMUM_RANK:
        values = frechet_interval(real, fake, seed)
        note = f"interval: spread of {FRECHET_RESAMPLES} resamples of images, centred on the value"
    else:
        values = (frechet_distance_of_features(real, fake), None, None)
        note = f"no interval: {dimensions} dimensions are too many to resample"
    if fewest <= dimensions:
        note += (
            f"; biased upwards, because {fewest} images do not determine a covariance of {dimensions} dimensions: "
            "compare at equal numbers only, and prefer the kernel distance"
        )
    return _row(metric, values, real, fake, note)


def _row(
    metric: str, values: tuple[float | None, float | None, float | None], real: Float, fake: Float, note: str
) -> QualityRow:
    value, low, high = values
    return QualityRow(metric=metric, value=value, low=low, high=high, n_real=len(real), n_fake=len(fake), note=note)


def _validated(features: Features, what: str, minimum: int) -> Float:
    found: Float = np.asarray(features, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] == 0 or len(found) < minimum:
        raise FidelityError(f"expected {what} (N, D) of at least {minimum} images; got shape {found.shape}")
    if not np.isfinite(found).all():
        raise FidelityError(f"{what} must be finite; {int(np.sum(~np.isfinite(found)))} values are not")
    return found


def _validated_pair(real: Features, fake: Features, minimum: int) -> tuple[Float, Float]:
    real, fake = _validated(real, "real features", minimum), _validated(fake, "fake features", minimum)
    if real.shape[1] != fake.shape[1]:
        raise FidelityError(f"both sides need the same features; got {real.shape[1]} and {fake.shape[1]} dimensions")
    return real, fake
