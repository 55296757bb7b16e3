"""Feature distances agree with SciPy's matrix root, a double loop and torchmetrics; names follow the rules."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray

from tasks.evaluation import fidelity
from tasks.evaluation.fidelity import (
    FidelityError,
    FrechetReference,
    InceptionFeatures,
    feature_distances,
    frechet_distance,
    frechet_distance_of_features,
    frechet_interval,
    gaussian_statistics,
    inception_score,
    kernel_distance,
    quality_rows,
    squared_maximum_mean_discrepancy,
)

Float = NDArray[np.float64]


def features(count: int, dimensions: int, seed: int, shift: float = 0.0) -> Float:
    """Correlated, rectified features, as a network's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    rectified: Float = np.maximum(rng.normal(size=(count, dimensions)) @ mixing + 0.3 + shift, 0.0)
    return rectified


def torchmetrics_image() -> tuple[ModuleType, ModuleType]:
    from tasks.torch_vision_schema import define_missing_torchvision_schemas

    define_missing_torchvision_schemas()
    from torchmetrics.image import fid, kid

    return fid, kid


@pytest.mark.parametrize(("n_real", "n_fake"), [(200, 200), (300, 40), (60, 500)])
def test_the_frechet_distance_agrees_with_the_matrix_root_of_scipy(n_real: int, n_fake: int) -> None:
    real, fake = features(n_real, 24, 0), features(n_fake, 24, 1, shift=0.2)
    (mean1, cov1), (mean2, cov2) = gaussian_statistics(real), gaussian_statistics(fake)
    np.testing.assert_allclose(cov1, np.cov(real.T), atol=1e-12)
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    expected = np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * np.real(root))
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance_of_features(real, fake) == pytest.approx(expected, abs=1e-6)


def test_the_frechet_distance_agrees_with_torchmetrics() -> None:
    import torch

    fid, _ = torchmetrics_image()
    statistics = [*gaussian_statistics(features(90, 16, 2)), *gaussian_statistics(features(80, 16, 3, shift=0.1))]
    expected = fid._compute_fid(*(torch.tensor(part) for part in statistics))
    assert frechet_distance(*statistics) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("n_real", "n_fake"), [(10, 12), (2, 2), (10, 200), (200, 10)])
def test_with_fewer_images_than_dimensions_both_forms_agree(n_real: int, n_fake: int) -> None:
    real, fake = features(n_real, 48, 4), features(n_fake, 48, 5, shift=0.3)
    expected = frechet_distance(*gaussian_statistics(real), *gaussian_statistics(fake))
    assert frechet_distance_of_features(real, fake) == pytest.approx(expected, abs=1e-5)


def test_the_frechet_distance_of_known_gaussians() -> None:
    identity = np.eye(3)
    assert frechet_distance(np.zeros(3), identity, np.ones(3), identity) == pytest.approx(3.0)
    assert frechet_distance(np.zeros(3), identity, np.zeros(3), 4 * identity) == pytest.approx(3 * (2 - 1) ** 2)
    assert frechet_distance(np.zeros(3), 0 * identity, np.zeros(3), 0 * identity) == 0.0


def test_a_prepared_reference_gives_the_same_distances() -> None:
    real, fake = gaussian_statistics(features(60, 16, 0)), gaussian_statistics(features(70, 16, 1, shift=0.2))
    reference = FrechetReference.of(*real)
    assert reference.distance(*fake) == frechet_distance(*real, *fake)
    assert reference.distance(*real) == pytest.approx(0.0, abs=1e-9)


def test_the_frechet_distance_of_a_set_to_itself_is_zero_and_it_is_symmetric() -> None:
    real, fake = features(100, 20, 6), features(70, 20, 7, shift=0.2)
    assert frechet_distance_of_features(real, real) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance_of_features(real, fake) == pytest.approx(frechet_distance_of_features(fake, real), abs=1e-9)


def test_the_discrepancy_agrees_with_a_double_loop() -> None:
    real, fake = features(9, 5, 8), features(7, 5, 9, shift=0.5)

    def kernel(x: Float, y: Float) -> float:
        return (float(np.dot(x, y)) / 5 + 1.0) ** 3

    within_real = np.mean([kernel(x, y) for i, x in enumerate(real) for j, y in enumerate(real) if i != j])
    within_fake = np.mean([kernel(x, y) for i, x in enumerate(fake) for j, y in enumerate(fake) if i != j])
    between = np.mean([kernel(x, y) for x in real for y in fake])
    expected = within_real + within_fake - 2 * between
    assert squared_maximum_mean_discrepancy(real, fake) == pytest.approx(expected, abs=1e-12)


def test_the_discrepancy_agrees_with_torchmetrics() -> None:
    import torch

    _, kid = torchmetrics_image()
    real, fake = features(50, 12, 10), features(50, 12, 11, shift=0.2)
    expected = kid.poly_mmd(torch.tensor(real), torch.tensor(fake), degree=3, gamma=None, coef=1.0)
    assert squared_maximum_mean_discrepancy(real, fake) == pytest.approx(float(expected), abs=1e-9)


def test_the_kernel_distance_is_near_the_discrepancy_of_all_images_and_repeatable() -> None:
    real, fake = features(200, 16, 12), features(150, 16, 13, shift=0.3)
    mean, low, high = kernel_distance(real, fake, subsets=100, subset_size=75, seed=5)
    whole = squared_maximum_mean_discrepancy(real, fake)
    assert low < whole < high
    assert low < mean < high
    assert mean == pytest.approx(whole, rel=0.1)
    assert (mean, low, high) == kernel_distance(real, fake, subsets=100, subset_size=75, seed=5)
    assert mean != kernel_distance(real, fake, subsets=100, subset_size=75, seed=6)[0]


@pytest.mark.parametrize("subset_size", [20, 40, 60])
def test_the_kernel_interval_is_as_wide_as_the_spread_of_new_samples(subset_size: int) -> None:
    """The interval speaks of the sample, so its width must not depend on the size of the subsets."""
    fresh = [
        squared_maximum_mean_discrepancy(features(80, 8, 1000 + seed), features(80, 8, 5000 + seed, shift=0.4))
        for seed in range(200)
    ]
    widths = []
    for seed in range(20):
        real, fake = features(80, 8, 1000 + seed), features(80, 8, 5000 + seed, shift=0.4)
        _, low, high = kernel_distance(real, fake, subsets=100, subset_size=subset_size, seed=seed)
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(np.subtract(*np.percentile(fresh, [97.5, 2.5])), rel=0.25)


def test_equal_distributions_are_no_distance_apart_and_unequal_ones_are() -> None:
    _, low, high = kernel_distance(features(200, 16, 14), features(200, 16, 15), subset_size=100)
    assert low < 0.0 < high
    _, low, _ = kernel_distance(features(200, 16, 14), features(200, 16, 15, shift=0.5), subset_size=100)
    assert low > 0.0


@pytest.mark.parametrize(("subsets", "subset_size"), [(100, 20), (100, 1), (1, 10)])
def test_subsets_that_show_no_spread_are_refused(subsets: int, subset_size: int) -> None:
    with pytest.raises(FidelityError, match="2 to 19 images"):
        kernel_distance(features(30, 4, 0), features(20, 4, 1), subsets, subset_size)


def test_the_frechet_interval_contains_its_value_and_separates_what_is_far_apart() -> None:
    real = features(60, 32, 16)
    near, far = features(60, 32, 17), features(60, 32, 18, shift=1.0)
    value, low, high = frechet_interval(real, near, seed=0)
    assert low < value < high
    assert high < frechet_interval(real, far, seed=0)[1]
    assert (value, low, high) == frechet_interval(real, near, seed=0)


def test_the_inception_score_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(7, 0.3), size=100)
    scores = []
    for part in np.split(probabilities, 10):
        marginal = part.mean(axis=0)
        scores.append(np.exp(np.mean([scipy.stats.entropy(row, marginal) for row in part])))
    assert inception_score(probabilities) == pytest.approx((np.mean(scores), np.std(scores)), abs=1e-9)


def test_the_inception_score_is_one_for_equal_rows_and_the_number_of_classes_for_pure_ones() -> None:
    assert inception_score(np.full((40, 4), 0.25)) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile(np.eye(4), (10, 1))) == pytest.approx((4.0, 0.0))
    with pytest.raises(FidelityError, match="sum to 1"):
        inception_score(np.ones((40, 4)))
    with pytest.raises(FidelityError, match="at least 10"):
        inception_score(np.full((4, 4), 0.25))


def test_own_features_carry_own_names_and_the_kernel_distance_comes_first() -> None:
    rows = feature_distances(features(50, 64, 19), features(40, 64, 20, shift=0.3), "pool5-avg", seed=1)
    assert [row["metric"] for row in rows] == ["Kernel-VGG16-pool5avg", "Frechet-VGG16-pool5avg"]
    for row in rows:
        assert row["low"] is not None
        assert row["value"] is not None
        assert row["high"] is not None
        assert row["low"] < row["value"] < row["high"]
        assert (row["n_real"], row["n_fake"]) == (50, 40)
    assert "subsets of 20" in rows[0]["note"]
    assert "biased upwards" in rows[1]["note"]
    assert "biased" not in feature_distances(features(50, 8, 19), features(40, 8, 20), "fc7", seed=1)[1]["note"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_images_give_rows_without_a_value_and_a_note(count: int) -> None:
    rows = feature_distances(features(20, 8, 21), features(count, 8, 22), "fc7", seed=1)
    assert rows[0]["value"] is None
    assert "fewer than 4" in rows[0]["note"]
    assert (rows[1]["value"] is None) == (count < 2)


def test_many_images_of_many_dimensions_are_not_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "FRECHET_RESAMPLES_MAXIMUM_RANK", 16)
    row = feature_distances(features(40, 32, 23), features(40, 32, 24), "fc7", seed=1)[1]
    assert row["value"] is not None
    assert row["low"] is None
    assert "no interval" in row["note"]


def inception_features(n_real: int, n_fake: int) -> InceptionFeatures:
    probabilities = np.random.default_rng(1).dirichlet(np.ones(5), size=n_fake)
    return InceptionFeatures(features(n_real, 6, 25), features(n_fake, 6, 26, shift=0.2), probabilities, "6726825dcafe")


@pytest.mark.parametrize(
    ("n_real", "n_fake", "first"), [(2048, 2048, "FID"), (2047, 2047, "KID"), (2048, 2049, "KID"), (300, 40, "KID")]
)
def test_fid_needs_2048_images_and_equal_numbers_else_it_is_kid_with_an_interval(
    n_real: int, n_fake: int, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "KERNEL_SUBSET_SIZE", 50)
    own = features(30, 8, 27), features(30, 8, 28)
    rows = quality_rows(*own, "fc7", 1, inception_features(n_real, n_fake))
    assert [row["metric"] for row in rows] == [first, "IS", "Kernel-VGG16-fc7", "Frechet-VGG16-fc7"]
    assert (rows[0]["low"] is None) == (first == "FID")
    for row in rows[:2]:
        assert "sha256 6726825dcafe" in row["note"]


def test_without_the_inception_weights_no_row_is_called_fid_kid_or_is() -> None:
    rows = quality_rows(features(2100, 4, 29), features(2100, 4, 30), "fc7", 1)
    assert not {row["metric"] for row in rows} & {"FID", "KID", "IS"}


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "same features"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2"),
        (np.zeros(5), np.zeros((5, 3)), "shape"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "finite"),
    ],
)
def test_features_that_do_not_fit_are_refused(real: Float, fake: Float, message: str) -> None:
    with pytest.raises(FidelityError, match=message):
        frechet_distance_of_features(real, fake)
    with pytest.raises(FidelityError, match="covariances"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), np.eye(2))
