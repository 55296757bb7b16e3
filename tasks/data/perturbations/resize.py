"""A resize down and up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.data.perturbations.base import ViewPicture
from tasks.data.perturbations.one_number import OneNumber, part_of

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Resize(OneNumber):
    """Made smaller by a `factor` and brought back to the size that it had, by an antialiased bicubic: `resize-0.5`."""

    kind: Literal["resize"] = "resize"
    factor: Annotated[float, Field(ge=0.05, lt=1)]

    @property
    def title(self) -> str:
        return f"resized by {self.factor:g} and back"

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.resizing import resized

        height, width = pixels.shape[:2]
        small = resized(pixels, part_of(height, self.factor), part_of(width, self.factor))
        return ViewPicture(resized(small, height, width), None)
