"""A resize of what is larger than a platform shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.data.perturbations.base import PerturbationBase, ViewPicture
from tasks.data.perturbations.one_number import OneNumber

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Limit(OneNumber):
    """The longer side is brought to `side` pixels by an antialiased bicubic, if it has more: `limit-1600`."""

    kind: Literal["limit"] = "limit"
    side: Annotated[int, Field(ge=16, le=16384)]

    @property
    def title(self) -> str:
        return f"longer side at most {self.side} pixels"

    def size(self, height: int, width: int) -> tuple[int, int]:
        from tasks.data.resizing import sides_within

        return sides_within(height, width, self.side)

    def steps_at(self, height: int, width: int) -> tuple[PerturbationBase, ...]:
        return () if max(height, width) <= self.side else (self,)

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.resizing import resized

        return ViewPicture(resized(pixels, *self.size(*pixels.shape[:2])), None)
