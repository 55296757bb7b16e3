"""A network that is given away: how it is fitted, what it promises, and how pictures reach those who ask it."""

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.data.perturbations.jpeg import Quality
from tasks.spec.base import Name, Once, Spec, are_apart
from tasks.spec.views import is_none

# As posted: what every other delivery begins with.
POSTED = "posted"


def _is_jpeg(form: str) -> bool:
    return form == "jpeg"


class Delivery(Spec):
    """What happens to whole pictures before somebody asks: they are scaled, saved as JPEG (4:2:0) or WebP, or neither.

    Saved with a `palette` of 256 colours, as in a GIF, they have no quality.

    Of `factors`, smallest and largest, one is drawn by hash for each picture, alike for photographs and fakes, so that
    it tells nothing. `shorter_side` is a size in pixels instead, that larger pictures are reduced to.
    """

    name: Name
    factors: tuple[Annotated[float, Field(ge=0.1, le=4)], Annotated[float, Field(ge=0.1, le=4)]] | None = None
    shorter_side: Annotated[int, Field(ge=16, le=4096)] | None = Field(default=None, exclude_if=is_none)
    quality: Quality | None = None
    saved_as: Literal["jpeg", "webp", "palette"] = Field(default="jpeg", exclude_if=_is_jpeg)

    @model_validator(mode="after")
    def _is_scaled_once(self) -> Self:
        if self.factors is not None and self.shorter_side is not None:
            raise ValueError(f"{self.name}: expected factors or a shorter_side, got both")
        if self.factors is not None and self.factors[0] > self.factors[1]:
            raise ValueError(f"{self.name}: factors fall from {self.factors[0]} to {self.factors[1]}")
        if (self.saved_as == "palette" and self.quality is not None) or (self.saved_as == "webp" and not self.quality):
            raise ValueError(f"{self.name}: WebP has a quality, and a palette none")
        return self

    @property
    def is_untouched(self) -> bool:
        """Whether pictures arrive as they were posted."""
        return self.factors is None and self.shorter_side is None and self.quality is None and self.saved_as == "jpeg"


DELIVERIES = (
    Delivery(name=POSTED),
    Delivery(name="jpeg-60", quality=60),
    Delivery(name="messenger", factors=(0.6, 1.0), quality=75),
    Delivery(name="screenshot", factors=(0.5, 3.0)),
    Delivery(name="enlarged", factors=(1.2, 3.0), quality=90),
    Delivery(name="webp", quality=80, saved_as="webp"),
    Delivery(name="256-colours", saved_as="palette"),
    Delivery(name="64-pixels", shorter_side=64),
)


class Published(Spec):
    """The network that `publish/network` makes of an experiment on the crop path: a linear decision on sparse
    co-occurrences of noise residuals, fitted in all `deliveries` together.

    It answers *generated* from a threshold on at which, in every delivery, at most a share `false_alarms` of val
    photographs lies, *photograph* below one under which at most a share `missed` of val fakes lies, each generator
    weighted alike, and else not at all. Pictures that are less familiar than all but `kept` of the known ones have no
    answer either. Of `strengths` of shrinkage val pictures choose one. `licences` say of sources what their publishers
    say of them, where the pictures do not say it themselves.
    """

    name: Name = "traces"
    windows: int = Field(default=4, ge=1, le=25)
    strengths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Once] = Field(
        default=(0.003, 0.01, 0.03), min_length=1
    )
    false_alarms: float = Field(default=0.05, gt=0, lt=0.5)
    missed: float = Field(default=0.05, gt=0, lt=0.5)
    kept: float = Field(default=0.99, gt=0.5, lt=1)
    deliveries: Annotated[tuple[Delivery, ...], Once] = Field(default=DELIVERIES, min_length=1)
    licences: dict[Name, str] = Field(default={}, exclude_if=operator.not_)

    @model_validator(mode="after")
    def _begins_as_posted(self) -> Self:
        are_apart("deliveries", (one.name for one in self.deliveries))
        if not self.deliveries[0].is_untouched:
            raise ValueError(
                f"deliveries: the first is as posted, got {self.deliveries[0].name}, to which things happen"
            )
        return self
