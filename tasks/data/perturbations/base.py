"""What every kind of perturbation has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tasks.spec.base import Spec

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


@dataclass(frozen=True, eq=False)
class ViewPicture:
    """One picture in one view.

    `pixels`: uint8 (h, w, 3), RGB. `encoded`: the file that decodes to these pixels, None where nothing encoded it.
    """

    pixels: Pixels
    encoded: bytes | None


class PerturbationBase(Spec):
    """The root of all kinds; a kind has a field `kind`, and stands in `tasks.data.perturbations.kinds`."""

    @property
    def name(self) -> str:
        """What cells are named by, such as `q20` of `64/q20`: it says the kind and every field."""
        raise NotImplementedError

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The perturbation of this kind that has a name, None where none has."""
        raise NotImplementedError

    def apply(self, pixels: Pixels) -> ViewPicture:
        """What becomes of uint8 (h, w, 3), RGB; the same on every machine with the same libraries."""
        raise NotImplementedError
