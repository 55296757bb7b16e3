"""A Gaussian blur."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.data.perturbations.base import ViewPicture
from tasks.data.perturbations.one_number import OneNumber

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels

_ONE = 1 << 16  # what the weights of a kernel sum up to
_FRACTION = 1 << 8  # of a level, which is kept between both passes
_TRUNCATED = 4.0  # sigmas on each side


class Blur(OneNumber):
    """A Gaussian, `sigma` in pixels of the view: `blur-2`. Beyond the edges lies the picture's mirror image.

    Computed in integers, so it is the same everywhere; at most a level off a blur in floating point. Less than 0.3
    would change next to nothing.
    """

    kind: Literal["blur"] = "blur"
    sigma: Annotated[float, Field(ge=0.3, le=50)]

    @property
    def title(self) -> str:
        return f"Gaussian blur, sigma {self.sigma:g} pixels"

    def apply(self, pixels: Pixels) -> ViewPicture:
        down = _smoothed(pixels.astype(np.uint32), self.sigma, _ONE // _FRACTION)
        across = _smoothed(down.transpose(1, 0, 2), self.sigma, _ONE * _FRACTION).transpose(1, 0, 2)
        return ViewPicture(np.ascontiguousarray(across.astype(np.uint8)), None)


def _smoothed(values: npt.NDArray[np.uint32], sigma: float, divisor: int) -> npt.NDArray[np.uint32]:
    """uint32 (n, m, 3), at most 255 * 256, smoothed along its first axis, divided and rounded (halves up)."""
    kernel = half_kernel(sigma)
    radius, length = len(kernel) - 1, len(values)
    padded = np.pad(values, ((radius, radius), (0, 0), (0, 0)), mode="symmetric")
    # The sum is at most 255 * 256 * 2^16, and what is added for rounding 2^23: both stay below 2^32.
    total: npt.NDArray[np.uint32] = kernel[0] * padded[radius : radius + length]
    for offset, weight in enumerate(kernel[1:].tolist(), start=1):
        if weight:
            total += np.uint32(weight) * (padded[radius - offset :][:length] + padded[radius + offset :][:length])
    total += np.uint32(divisor // 2)
    total //= np.uint32(divisor)
    return total


@functools.lru_cache(maxsize=16)
def half_kernel(sigma: float) -> npt.NDArray[np.uint32]:
    """A kernel's weights from its centre outwards, uint32 (radius + 1,); with the mirrored ones they sum up to 2^16."""
    radius = int(_TRUNCATED * sigma + 0.5)
    exact = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(radius + 1)]
    total = exact[0] + 2 * sum(exact[1:])
    weights = [round(weight / total * _ONE) for weight in exact]
    weights[0] = _ONE - 2 * sum(weights[1:])
    return np.array(weights, dtype=np.uint32)
