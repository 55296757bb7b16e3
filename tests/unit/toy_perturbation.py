"""A toy kind of perturbation, as somebody would add one."""

from __future__ import annotations

import re
from typing import Literal, Self

import numpy as np

from tasks.data.perturbations.base import PerturbationBase, ViewPicture
from tasks.data.pictures import Pixels


class Flip(PerturbationBase):
    """A mirror image: `axis` 0 upside down, 1 left to right."""

    kind: Literal["flip"] = "flip"
    axis: Literal[0, 1] = 1

    @property
    def name(self) -> str:
        return f"flip-{self.axis}"

    @classmethod
    def named(cls, name: str) -> Self | None:
        match = re.fullmatch("flip-([01])", name)
        return cls.model_validate({"axis": int(match[1])}) if match else None

    def apply(self, pixels: Pixels) -> ViewPicture:
        return ViewPicture(np.ascontiguousarray(np.flip(pixels, self.axis)), None)
