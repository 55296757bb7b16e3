"""What a picture is shown as: the cells of the grid, their views, and the form that comes before them."""

import re
from typing import Annotated, Literal

from pydantic import Field

from storage.errors import SpecError
from tasks.spec.base import Spec

Resolution = Literal["native"] | Annotated[int, Field(ge=16, le=2048)]
Quality = Annotated[int, Field(ge=1, le=100)]
Kernel = Literal["exact", "scaled"]


def is_exact(kernel: str) -> bool:
    return kernel == "exact"


def _cell_name(resolution: Resolution, jpeg_quality: int | None) -> str:
    return f"{resolution}/{'none' if jpeg_quality is None else f'q{jpeg_quality}'}"


class View(Spec):
    """What an attacker would post: a picture on a path, at a resolution, with or without a JPEG encoding."""

    path: Literal["fair", "raw"]
    resolution: Resolution
    jpeg_quality: Quality | None = None

    @property
    def name(self) -> str:
        """For example `fair/64/q20` or `raw/native/none`."""
        return f"{self.path}/{_cell_name(self.resolution, self.jpeg_quality)}"


class Cell(Spec):
    """One field of the grid: a resolution and a compression."""

    resolution: Resolution
    jpeg_quality: Quality | None = None

    @property
    def name(self) -> str:
        """For example `64/q20` or `native/none`."""
        return _cell_name(self.resolution, self.jpeg_quality)

    @property
    def fair_view(self) -> View:
        """The view that both classes take in this cell under the fair protocol."""
        return View(path="fair", resolution=self.resolution, jpeg_quality=self.jpeg_quality)

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Read a cell's name back; `SpecError` for anything else."""
        match = re.fullmatch(r"(native|[1-9][0-9]*)/(none|q([1-9][0-9]*))", name)
        if match is None:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}")
        resolution: Resolution = "native" if match[1] == "native" else int(match[1])
        return cls(resolution=resolution, jpeg_quality=int(match[3]) if match[3] else None)


class Canonical(Spec):
    """The form to which the fair path brings every picture first.

    `qualities` is the histogram `(jpeg_quality, count)` of the photographs' own encodings, sorted by quality. `kernel`
    says how a picture gets there: `exact` from all its pixels; `scaled` decodes a JPEG at a half, a quarter or an
    eighth of its size first, where its shorter side still has the canonical side then, and resizes with shorter
    weights, which costs less and gives slightly other pictures. The two are never mixed: the kernel is part of every
    recipe that the canonical form is part of.
    """

    side: int = Field(ge=16, le=2048)
    qualities: tuple[tuple[Quality, int], ...]
    # Left out where it is the default, so that recipes from before it was a choice stay what they are.
    kernel: Kernel = Field(default="exact", exclude_if=is_exact)
