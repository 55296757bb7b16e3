"""What every kind of perturbation has, and how one is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from storage.errors import SpecError
from tasks.spec.base import Spec, of_kind

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


@dataclass(frozen=True, eq=False)
class ViewPicture:
    """One picture in one view.

    `pixels`: uint8 (h, w, 3), RGB. `encoded`: the file that decodes to these pixels, None where nothing encoded it.
    `place`: where it was cut from the whole picture, top and left in pixels.
    """

    pixels: Pixels
    encoded: bytes | None
    place: tuple[int, int] = (0, 0)


class PerturbationBase(Spec):
    """The root of all kinds; a kind has a field `kind`, and stands in `tasks.data.perturbations.kinds`."""

    # Not there while it runs: chains have a field of that name, which must not hide anything.
    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """What cells are named by, such as `q20` of `64/q20`: it says the kind and every field."""

    @property
    def title(self) -> str:
        """What happens to a picture, in a few words, for those who read of its cells."""
        return self.name

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The perturbation of this kind that has a name, None where none has.

        Raises:
            pydantic.ValidationError: the name has the form of this kind's, and says what this kind refuses.
        """
        raise NotImplementedError

    def missing(self) -> list[str]:
        """What this machine lacks for it, each with its remedy; fast."""
        return []

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of what `apply` makes of a picture of such a size; they are kept unless a kind says."""
        return height, width

    def steps_at(self, height: int, width: int) -> tuple[PerturbationBase, ...]:
        """What happens one after the other to a picture of such a size, without what leaves it as it is."""
        return (self,)

    def apply(self, pixels: Pixels) -> ViewPicture:
        """What becomes of uint8 (h, w, 3), RGB; the same on every machine with the same libraries."""
        raise NotImplementedError


# Every kind; `tasks.data.perturbations.kinds` fills it in.
KINDS: dict[str, type[PerturbationBase]] = {}


def perturbation_of(name: str) -> PerturbationBase:
    """What has this name.

    Raises:
        SpecError: nothing has, or it says what its kind refuses.
    """
    for kind in KINDS.values():
        try:
            found = kind.named(name)
        except ValidationError as error:
            raise SpecError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        if found is not None:
            return found
    kinds = sorted(KINDS)
    raise SpecError(
        f"no perturbation is called {name!r}: expected a name such as q30, or a kind with fields, of {kinds}"
    )


def _by_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return perturbation_of(value)
    except SpecError as error:
        raise ValueError(str(error)) from error


# A document, or a name such as `q20`. The validator that is named last comes first.
Perturbation = Annotated[SerializeAsAny[PerturbationBase], of_kind(KINDS, "perturbation"), BeforeValidator(_by_name)]


def missing_codec(codec: str, title: str, name: str) -> list[str]:
    """That this machine's Pillow was built without a codec that a perturbation of this name needs, with the remedy."""
    from PIL import features

    has_it = features.check(codec)
    return [] if has_it else [f"Pillow with {title}, for {name}: install its wheel (`pip install pillow`)"]


def hash_of(pixels: Pixels, purpose: str) -> bytes:
    """32 bytes that depend on uint8 (h, w, 3) and on what they are drawn for, and on nothing else."""
    digest = hashlib.sha256(f"{purpose}:{pixels.shape}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
