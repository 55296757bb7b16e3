"""A resize by a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.data.perturbations.base import ViewPicture
from tasks.data.perturbations.one_number import OneNumber, part_of

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Scale(OneNumber):
    """Made smaller by a `factor`, and left so, by an antialiased bicubic: `scale-0.9`.

    A cell's pictures are then smaller than its resolution.
    """

    kind: Literal["scale"] = "scale"
    factor: Annotated[float, Field(ge=0.05, lt=1)]

    @property
    def title(self) -> str:
        return f"resized by {self.factor:g}, not scaled back"

    def size(self, height: int, width: int) -> tuple[int, int]:
        return part_of(height, self.factor), part_of(width, self.factor)

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.resizing import resized

        return ViewPicture(resized(pixels, *self.size(*pixels.shape[:2])), None)
