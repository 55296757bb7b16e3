"""What happens to a picture one after the other, as on a platform that scales and encodes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tasks.data.perturbations.base import KINDS, Perturbation, PerturbationBase, ViewPicture
from tasks.data.perturbations.jpeg import Jpeg
from tasks.data.perturbations.limit import Limit
from tasks.data.perturbations.scale import Scale
from tasks.data.perturbations.webp import Webp
from tasks.spec.base import Name

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels

# Simulations: what such platforms are said to do, not what was measured on one. A screenshot is posted as a PNG, as
# everything is that nothing encoded last; no step keeps metadata.
GIVEN: dict[str, tuple[PerturbationBase, ...]] = {
    "messenger": (Limit(side=1600), Jpeg(quality=75)),
    "social": (Limit(side=2048), Jpeg(quality=85), Webp(quality=80)),
    "screenshot": (Scale(factor=0.9),),
}


class Chain(PerturbationBase):
    """A named list of steps: one of `GIVEN`, which are called by their names alone, or an experiment's own.

    Those given simulate what platforms do; they are not measured on one. A recipe holds the steps beside the name: two
    experiments may mean different chains by the same name.
    """

    kind: Literal["chain"] = "chain"
    name: Name
    steps: Annotated[tuple[Perturbation, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        inner = [step.name for step in self.steps if isinstance(step, Chain)]
        if inner:
            raise ValueError(f"chain {self.name}: {inner[0]} is a chain, too: write its steps instead")
        given = GIVEN.get(self.name)
        if given is not None and given != self.steps:
            steps = [step.name for step in given]
            raise ValueError(f"chain {self.name}: a chain of this name is given, {steps}: call yours otherwise")
        if self.name == "none" or any(_may_be_named(kind, self.name) for kind in KINDS.values() if kind is not Chain):
            raise ValueError(f"chain {self.name}: something else is called so: call the chain otherwise")
        return self

    @property
    def title(self) -> str:
        steps = ", then ".join(step.title for step in self.steps)
        return f"a simulation of a platform, not measured on one: {steps}" if self.name in GIVEN else steps

    @classmethod
    def named(cls, name: str) -> Self | None:
        steps = GIVEN.get(name)
        return None if steps is None else cls(name=name, steps=steps)

    def missing(self) -> list[str]:
        return [line for step in self.steps for line in step.missing()]

    def size(self, height: int, width: int) -> tuple[int, int]:
        for step in self.steps:
            height, width = step.size(height, width)
        return height, width

    def steps_at(self, height: int, width: int) -> tuple[PerturbationBase, ...]:
        found: list[PerturbationBase] = []
        for step in self.steps:
            found += step.steps_at(height, width)
            height, width = step.size(height, width)
        return tuple(found)

    def apply(self, pixels: Pixels) -> ViewPicture:
        posted = ViewPicture(pixels, None)
        for step in self.steps:
            posted = step.apply(posted.pixels)
        return posted


def _may_be_named(kind: type[PerturbationBase], name: str) -> bool:
    """Whether a name has the form of a kind's names."""
    try:
        return kind.named(name) is not None
    except ValidationError:
        return True
