"""Which pictures are for training, for validation and for testing."""

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.spec.base import Spec


class FixedSplits(Spec):
    """Train, val and test: named groups first, then ranges of a source's sorted images, then shares by hash."""

    kind: Literal["fixed"] = "fixed"
    train: float = Field(default=0.6, gt=0, lt=1)
    val: float = Field(default=0.2, gt=0, lt=1)
    groups: dict[str, Literal["train", "val", "test"]] = Field(default_factory=dict)
    ranges: dict[Literal["train", "val", "test"], tuple[int, int]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _leaves_a_test_share(self) -> Self:
        if self.train + self.val >= 1:
            raise ValueError(f"train + val must leave a share for test, got {self.train} + {self.val}")
        return self

    @model_validator(mode="after")
    def _has_ranges_apart(self) -> Self:
        ordered = sorted((start, stop, split) for split, (start, stop) in self.ranges.items())
        for start, stop, split in ordered:
            if not 0 <= start < stop:
                raise ValueError(f"ranges: {split} must be from 0 or more up to something larger, got {start}, {stop}")
        for (_, stop, split), (start, _, other) in itertools.pairwise(ordered):
            if start < stop:
                raise ValueError(f"ranges: {split} and {other} overlap at {start}")
        return self

    @property
    def rotations(self) -> int:
        """How many heads a detector consists of: one."""
        return 1


class Folds(Spec):
    """k rotating folds: fold r tests, r + 1 validates, the others train; out-of-fold scores are pooled."""

    kind: Literal["folds"] = "folds"
    count: int = Field(ge=3, le=20)

    @property
    def rotations(self) -> int:
        """How many heads a detector consists of: one per fold."""
        return self.count


Splits = Annotated[FixedSplits | Folds, Field(discriminator="kind")]
