"""What a picture is shown as: the cells of the grid, their views, and the form that comes before them."""

import operator
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from storage.errors import SpecError
from tasks.data.perturbations.base import Perturbation
from tasks.data.perturbations.jpeg import Jpeg, Quality
from tasks.data.perturbations.kinds import name_of, perturbation_named
from tasks.spec.base import Spec

# Pixels of a side, in every cell: networks take no less.
LEAST_SIDE, MOST_SIDE = 16, 2048
Resolution = Literal["native"] | Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
Kernel = Literal["exact", "scaled"]
Subsampling = Literal["420", "422", "444"]
# How a picture is brought to its views where both classes are treated alike.
Path = Literal["fair", "crop"]
# From this quality on a photograph's own encoding is overwritten by another; 90 stays visible under 75.
CLEAN_QUALITY = 95
# A photograph of 480 pixels still has a window of 256 then, and nothing is left of the grid that it had.
REDUCTION = 0.6


def is_exact(kernel: str) -> bool:
    return kernel == "exact"


def is_one(windows: int) -> bool:
    return windows == 1


def is_none(value: object) -> bool:
    return value is None


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
    """What an attacker would post: a picture on a path, at a resolution, and what happened to it on its way.

    On the path `crop` the resolution is the side of a window of original pixels. Of `windows` more than one, each at a
    place of its own, a detector forms one opinion.
    """

    path: Literal["fair", "raw", "crop"]
    # Left out where they are the default, so that recipes from before there were windows stay what they are.
    windows: int = Field(default=1, ge=1, le=25, exclude_if=is_one)
    window: int = Field(default=0, ge=0, exclude_if=operator.not_)

    @model_validator(mode="after")
    def _has_windows_on_the_crop_path(self) -> Self:
        if self.path != "crop" and (self.windows, self.window) != (1, 0):
            raise ValueError(f"windows are of the path crop, got {self.windows} on the path {self.path}")
        if self.path == "crop" and self.resolution == "native":
            raise ValueError("on the path crop a resolution is the side of a window in pixels, got native")
        return self

    @property
    def name(self) -> str:
        """For example `fair/64/q20`, `raw/native/none` or `crop/256/q60/5-windows`."""
        several = "" if self.windows == 1 else f"/{self.windows}-windows"
        return f"{self.path}/{self.resolution}/{self.perturbation_name}{several}"

    @property
    def each_window(self) -> "tuple[View, ...]":
        """A view of one window for each of its windows; itself where it has one."""
        if self.windows == 1:
            return (self,)
        update = {"windows": 1}
        return tuple(self.model_copy(update=update | {"window": index}) for index in range(self.windows))


class Cell(_Perturbed):
    """One field of the grid: a resolution and a perturbation."""

    @property
    def name(self) -> str:
        """For example `64/q20` or `native/none`."""
        return f"{self.resolution}/{self.perturbation_name}"

    def view(self, path: Path, windows: int = 1) -> View:
        """The view that both classes take in this cell on a path."""
        return View(path=path, resolution=self.resolution, perturbation=self.perturbation, windows=windows)

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Read a cell's name back; `SpecError` for anything else.

        A chain of an experiment's own is not known by its name: who has the experiment looks among its cells.
        """
        match = re.fullmatch(r"(native|[1-9][0-9]*)/(.+)", name)
        if match is None:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}")
        if match[1] != "native" and not LEAST_SIDE <= float(match[1]) <= MOST_SIDE:
            raise SpecError(f"a cell's side has {LEAST_SIDE} to {MOST_SIDE} pixels, got {name!r}")
        resolution: Resolution = "native" if match[1] == "native" else int(match[1])
        try:
            return cls(resolution=resolution, perturbation=perturbation_named(match[2]))
        except SpecError as error:
            raise SpecError(f"a cell is named like 64/q20 or native/none, got {name!r}: {error}") from error


class History(Spec):
    """The encoding that pictures take before a window is cut from them, so that both classes have been through one.

    `encodings` are (JPEG quality, chroma subsampling, count) of the other class's files, sorted; each picture draws one
    by hash of its id. Who takes one depends on `of`: `photographs` whose own encoding is overwritten by it, that is
    those of `CLEAN_QUALITY` or better and those that are no JPEG, others being left out; or of `fakes` those that are
    no JPEG, as one that came as JPEG is never encoded again; so are photographs where the generator's files are none.
    """

    encodings: tuple[tuple[Quality, Subsampling, int], ...] = Field(min_length=1)
    of: Literal["photographs", "fakes"]
    # Whether matching works is seen on the same photographs, reduced to lose their own history: `once` encoded, which
    # count as fakes, and `twice`, first as clean photographs are, of which `clean` has the encodings.
    control: Literal["once", "twice"] | None = Field(default=None, exclude_if=is_none)
    clean: tuple[tuple[Quality, Subsampling, int], ...] = Field(default=(), exclude_if=operator.not_)

    @property
    def factor(self) -> float:
        """By which a picture's sides are multiplied before it is encoded."""
        return 1.0 if self.control is None else REDUCTION

    def leaves_out(self, jpeg_quality: int | None) -> bool:
        """Whether a picture's own encoding would still be seen under the drawn one."""
        return self.of == "photographs" and jpeg_quality is not None and jpeg_quality < CLEAN_QUALITY

    def encodes(self, jpeg_quality: int | None) -> bool:
        """Whether a picture takes the drawn encoding; it may be one that is left out."""
        return self.of == "photographs" or jpeg_quality is None


class Canonical(Spec):
    """The form to which the fair path brings every picture first, and what windows of the crop path are encoded with.

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
    # What happens to whole pictures on the crop path before a window is cut; None: they stay as they came.
    history: History | None = Field(default=None, exclude_if=is_none)
