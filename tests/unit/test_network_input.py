"""How a picture enters somebody else's network: as declared, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tasks.data.network_input import NetworkInput
from tasks.data.pictures import Pixels

PLAIN = {"side": 32, "resize": "none", "filter": "bicubic", "mean": (0, 0, 0), "std": (1, 1, 1)}


def declared(**changes: Any) -> NetworkInput:
    return NetworkInput.model_validate(PLAIN | changes)


def picture(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def levels(entered: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3) of what a plain input gives."""
    return np.round(entered.transpose(1, 2, 0) * 255).astype(np.uint8)


def resized(pixels: Pixels, height: int, width: int, kernel: Image.Resampling = Image.Resampling.BICUBIC) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), kernel))


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos"])
def test_a_stretched_picture_is_the_whole_of_it(kernel: str) -> None:
    pixels = picture(50, 90)
    expected = resized(pixels, 32, 32, Image.Resampling[kernel.upper()])
    np.testing.assert_array_equal(levels(declared(resize="stretch", filter=kernel).of(pixels)), expected)


@pytest.mark.parametrize(
    ("height", "width", "whole", "top", "left"),
    [(80, 120, (40, 60), 4, 14), (120, 80, (60, 40), 14, 4), (80, 80, (40, 40), 4, 4), (83, 121, (40, 58), 4, 13)],
)
def test_the_shorter_side_is_resized_and_the_centre_taken(
    height: int, width: int, whole: tuple[int, int], top: int, left: int
) -> None:
    pixels = picture(height, width)
    expected = resized(pixels, *whole)[top : top + 32, left : left + 32]
    entered = declared(resize="shorter-side", resized_side=40).of(pixels)
    np.testing.assert_array_equal(levels(entered), expected)


def test_without_a_resized_side_the_shorter_side_becomes_the_side() -> None:
    pixels = picture(64, 100)
    expected = resized(pixels, 32, 50)[:, 9:41]
    np.testing.assert_array_equal(levels(declared(resize="shorter-side").of(pixels)), expected)


def test_the_centre_of_the_pixels_as_they_are_is_not_resized() -> None:
    pixels = picture(60, 71)
    np.testing.assert_array_equal(levels(declared().of(pixels)), pixels[14:46, 19:51])


@pytest.mark.parametrize("resize", ["none", "shorter-side"])
@pytest.mark.parametrize(("height", "width"), [(20, 30), (30, 20), (20, 200)])
def test_a_picture_with_too_few_pixels_is_enlarged(resize: str, height: int, width: int) -> None:
    pixels = picture(height, width)
    shorter = min(height, width)
    tall, wide = (32 if side == shorter else 32 * side // shorter for side in (height, width))
    top, left = (tall - 32) // 2, (wide - 32) // 2
    expected = resized(pixels, tall, wide)[top : top + 32, left : left + 32]
    np.testing.assert_array_equal(levels(declared(resize=resize).of(pixels)), expected)


def test_a_picture_of_the_side_is_taken_as_it_is() -> None:
    pixels = picture(32, 32)
    for resize in ("stretch", "shorter-side", "none"):
        np.testing.assert_array_equal(levels(declared(resize=resize).of(pixels)), pixels)


def test_without_a_side_every_picture_enters_at_its_own_size() -> None:
    pixels = picture(21, 47)
    np.testing.assert_array_equal(levels(declared(side=None).of(pixels)), pixels)


def test_each_channel_has_its_mean_and_deviation() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = picture(32, 32)
    entered = declared(mean=mean, std=std).of(pixels)
    assert entered.dtype == np.float32
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(entered[channel], expected, atol=1e-6)


def test_blue_comes_first_where_it_is_declared_with_the_means_in_that_order() -> None:
    pixels = picture(32, 32)
    entered = declared(channels="bgr", mean=(0.1, 0.2, 0.3), std=(1, 2, 4)).of(pixels)
    for channel, (mean, std) in enumerate([(0.1, 1), (0.2, 2), (0.3, 4)]):
        np.testing.assert_allclose(entered[channel], (pixels[..., 2 - channel] / 255 - mean) / std, atol=1e-6)


def test_channels_may_come_last() -> None:
    pixels = picture(40, 60)
    first, last = declared().of(pixels), declared(layout="channels-last").of(pixels)
    assert (first.shape, last.shape) == ((3, 32, 32), (32, 32, 3))
    np.testing.assert_array_equal(first.transpose(1, 2, 0), last)
    assert first.flags.c_contiguous
    assert last.flags.c_contiguous


@pytest.mark.parametrize("missing", ["side", "resize", "filter", "mean", "std"])
def test_nothing_that_decides_the_pixels_is_guessed(missing: str) -> None:
    with pytest.raises(ValidationError, match=f"{missing}\n  Field required"):
        NetworkInput.model_validate({key: value for key, value in PLAIN.items() if key != missing})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": None, "resize": "stretch"}, "resize: stretch needs a side"),
        ({"side": None, "resize": "shorter-side"}, "resize: shorter-side needs a side"),
        ({"resized_side": 40}, "resized_side: it goes with resize: shorter-side, and is no less than side"),
        ({"resize": "shorter-side", "resized_side": 31}, "resized_side: it goes with"),
        ({"side": 4}, "greater than or equal to 8"),
        ({"std": (1, 0, 1)}, "greater than 0"),
        ({"mean": (0, 0)}, "mean"),
        ({"resize": "crop"}, "resize"),
        ({"filter": "nearest"}, "filter"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        declared(**changes)
