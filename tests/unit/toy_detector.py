"""A toy kind of detector, as somebody would add one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tasks.data.pictures import Pixels
from tasks.detectors.pictures import PictureDetector


class Blueness(PictureDetector):
    """Takes blue pictures for generated ones."""

    kind: Literal["blueness"] = "blueness"

    @property
    def title(self) -> str:
        return "how blue a picture is"

    def opened(self) -> Callable[[Pixels], float]:
        return lambda pixels: float(pixels[..., 2].mean() - pixels[..., 0].mean())
