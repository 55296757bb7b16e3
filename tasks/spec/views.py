"""What a picture is shown as: the cells of the grid, their views, and the form that comes before them."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from storage.errors import SpecError
from tasks.data.perturbations.base import Perturbation
from tasks.data.perturbations.jpeg import Jpeg, Quality
from tasks.data.perturbations.kinds import name_of, perturbation_named
from tasks.spec.base import Spec

# Pixels of a side, in every cell: networks take no less.
LEAST_SIDE = 16
Resolution = Literal["native"] | Annotated[int, Field(ge=LEAST_SIDE, le=2048)]
Kernel = Literal["exact", "scaled"]


def is_exact(kernel: str) -> bool:
    return kernel == "exact"


class _Perturbed(Spec):
    """A resolution, and what happens to the picture then, by which it may become smaller.

    Written with a JPEG's quality alone where nothing else happens, as it was before there were other perturbations:
    recipes and tables of then stay what they are.
    """

    resolution: Resolution
    perturbation: Perturbation | None = None

    @property
    def jpeg_quality(self) -> int | None:
        """The quality of the view's own JPEG encoding; None where it has none, or another perturbation."""
        return self.perturbation.quality if type(self.perturbation) is Jpeg else None

    @property
    def perturbation_name(self) -> str:
        """What tables call what happens to the picture, such as `q20`, or `none`."""
        return name_of(self.perturbation)

    @model_validator(mode="before")
    @classmethod
    def _has_a_quality_as_perturbation(cls, document: Any) -> Any:
        if not isinstance(document, dict) or "jpeg_quality" not in document:
            return document
        others = {name: value for name, value in document.items() if name != "jpeg_quality"}
        quality = document["jpeg_quality"]
        if quality is not None and others.get("perturbation") is not None:
            raise ValueError("expected jpeg_quality or perturbation, not both")
        return others if quality is None else others | {"perturbation": {"kind": "jpeg", "quality": quality}}

    @model_serializer(mode="wrap")
    def _with_a_quality(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if self.perturbation is None or type(self.perturbation) is Jpeg:
            del document["perturbation"]
            document["jpeg_quality"] = self.jpeg_quality
        return document


class View(_Perturbed):
    """What an attacker would post: a picture on a path, at a resolution, and what happened to it on its way."""

    path: Literal["fair", "raw"]

    @property
    def name(self) -> str:
        """For example `fair/64/q20` or `raw/native/none`."""
        return f"{self.path}/{self.resolution}/{self.perturbation_name}"


class Cell(_Perturbed):
    """One field of the grid: a resolution and a perturbation."""

    @property
    def name(self) -> str:
        """For example `64/q20` or `native/none`."""
        return f"{self.resolution}/{self.perturbation_name}"

    @property
    def fair_view(self) -> View:
        """The view that both classes take in this cell under the fair protocol."""
        return View(path="fair", resolution=self.resolution, perturbation=self.perturbation)

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Read a cell's name back; `SpecError` for anything else.

        A chain of an experiment's own is not known by its name: who has the experiment looks among its cells.
        """
        match = re.fullmatch(r"(native|[1-9][0-9]*)/(.+)", name)
        if match is None:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}")
        resolution: Resolution = "native" if match[1] == "native" else int(match[1])
        try:
            return cls(resolution=resolution, perturbation=perturbation_named(match[2]))
        except SpecError as error:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}: {error}") from error


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
