"""How a picture enters somebody else's network: declared by whoever brings the network, never guessed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from tasks.data.pictures import Pixels
from tasks.spec.base import Spec

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Layout = Literal["channels-first", "channels-last"]
Side = Annotated[int, Field(ge=8, le=4096)]
Positive = Annotated[float, Field(gt=0)]

Filter = Literal["bilinear", "bicubic", "lanczos"]


class NetworkInput(Spec):
    """What a network is given of a picture: `side` x `side` pixels, each channel divided by 255, less `mean`, by `std`.

    `resize` says how they come about: `stretch` the whole picture; `shorter-side` resizes it until its shorter side has
    `resized_side` (`side` where that is not named) and takes the centre; `none` takes the centre of the pixels as they
    are, and enlarges a picture that has fewer. All resizes are Pillow's, antialiased. Without a `side` the network
    takes pictures of any size, and gets them as they are.

    This is what transformers' Pillow processors and torchvision's transforms of Pillow pictures give, but for a pixel:
    where an odd number of pixels is cut off, torchvision's centre may lie one further right or down. Other processors
    of transformers resize tensors, and differ by a level in places.
    """

    side: Side | None
    resize: Literal["stretch", "shorter-side", "none"]
    resized_side: Side | None = None
    filter: Filter
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Layout = "channels-first"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not all(abs(mean) <= 10 for mean in self.mean) or not all(std <= 10 for std in self.std):
            raise ValueError(
                "mean and std are those of levels divided by 255, so about 0.5 and 0.25: got "
                f"{list(self.mean)} and {list(self.std)}"
            )
        if self.side is None and self.resize != "none":
            raise ValueError(f"resize: {self.resize} needs a side")
        if self.resized_side is not None and (self.resize != "shorter-side" or self.resized_side < (self.side or 0)):
            raise ValueError("resized_side: it goes with resize: shorter-side, and is no less than side")
        return self

    def of(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """What a network is given of uint8 (H, W, 3), RGB: float32 (3, h, w), or (h, w, 3) with `channels-last`."""
        chosen = pixels if self.side is None else self._chosen(pixels, self.side)
        levels = chosen if self.channels == "rgb" else chosen[..., ::-1]
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        scaled = (levels.astype(np.float32) / np.float32(255) - mean) / std  # (h, w, 3)
        return np.ascontiguousarray(scaled if self.layout == "channels-last" else scaled.transpose(2, 0, 1))

    def _chosen(self, pixels: Pixels, side: int) -> Pixels:
        if self.resize == "stretch":
            return self._resized(pixels, side, side)
        height, width = pixels.shape[:2]
        shorter = min(height, width)
        target = (self.resized_side or side) if self.resize == "shorter-side" else max(shorter, side)
        if shorter != target:
            # As transformers and torchvision round: the longer side down.
            sides = (target if each == shorter else target * each // shorter for each in (height, width))
            pixels = self._resized(pixels, *sides)
        height, width = pixels.shape[:2]
        top, left = (height - side) // 2, (width - side) // 2
        return pixels[top : top + side, left : left + side]

    def _resized(self, pixels: Pixels, height: int, width: int) -> Pixels:
        if pixels.shape[:2] == (height, width):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((width, height), _FILTERS[self.filter]))
