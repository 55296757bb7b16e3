"""Gaussian noise."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.data.perturbations.base import ViewPicture, hash_of
from tasks.data.perturbations.one_number import OneNumber

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels

_FARTHEST = 7  # sigmas; beyond lies less than one of 2^32 draws


class Noise(OneNumber):
    """Gaussian, `sigma` in levels of sRGB (of 255), every channel of every pixel for itself: `noise-5`.

    Rounded to whole levels, and clipped to 0..255. A picture's noise is drawn by hash of its pixels: the same
    everywhere, at every sigma by the same draws.
    """

    kind: Literal["noise"] = "noise"
    sigma: Annotated[float, Field(ge=0.3, le=100)]

    @property
    def title(self) -> str:
        return f"Gaussian noise, sigma {self.sigma:g} levels"

    def apply(self, pixels: Pixels) -> ViewPicture:
        noisy = pixels + drawn_noise(pixels, self.sigma)
        return ViewPicture(np.clip(noisy, 0, 255).astype(np.uint8), None)


def drawn_noise(pixels: Pixels, sigma: float) -> npt.NDArray[np.int64]:
    """The levels that are added to a picture, before it is clipped: int64 (h, w, 3)."""
    # NumPy promises that the raw bits of a generator stay what they are; of the numbers that it makes of them it
    # does not. That of 32 bits lies below a limit as often as a rounded Gaussian is at most so many levels.
    bits = np.random.Philox(key=int.from_bytes(hash_of(pixels, "noise")[:16], "little"))
    draws = bits.random_raw(-(-pixels.size // 2)).astype("<u8").view("<u4")[: pixels.size]
    limits = _limits(sigma)
    levels = np.searchsorted(limits, draws, side="right") - len(limits) // 2
    return levels.reshape(pixels.shape)


@functools.lru_cache(maxsize=16)
def _limits(sigma: float) -> npt.NDArray[np.int64]:
    """How many of 2^32 draws are at most so many levels, from the lowest, -n, to n - 1: int64 (2 n,)."""
    farthest = math.ceil(_FARTHEST * sigma)
    share = NormalDist(0.0, sigma).cdf
    return np.array([round(share(level + 0.5) * 2**32) for level in range(-farthest, farthest)], dtype=np.int64)
