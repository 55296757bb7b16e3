"""Kinds that are said by one number."""

import re
from typing import Any, Self

from pydantic import model_validator

from tasks.data.perturbations.base import PerturbationBase

# A number as a name has it, without more digits than any field takes.
_NUMBER = r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?"


class OneNumber(PerturbationBase):
    """A kind with one field beside `kind`, called by both: `blur-0.5`.

    The number has at most two decimals, so that a name says all of it, and is written in one way only: `blur-0.50` is
    read, too, and is then `blur-0.5`.
    """

    @model_validator(mode="after")
    def _is_short(self) -> Self:
        number = getattr(self, self._field())
        if round(number, 2) != number:
            raise ValueError(f"expected at most two decimals, got {number}")
        return self

    @property
    def name(self) -> str:
        number = f"{getattr(self, self._field()):.2f}".rstrip("0").rstrip(".")
        return f"{self._kind()}-{number}"

    @classmethod
    def named(cls, name: str) -> Self | None:
        match = re.fullmatch(rf"{cls._kind()}-({_NUMBER})", name)
        return cls.model_validate({cls._field(): float(match[1])}) if match else None

    @classmethod
    def _kind(cls) -> Any:
        return cls.model_fields["kind"].default

    @classmethod
    def _field(cls) -> str:
        (field,) = (field for field in cls.model_fields if field != "kind")
        return field


def part_of(side: int, share: float) -> int:
    """A share, of two decimals, of a side in pixels: rounded, halves up, and one at least."""
    return max(1, (side * round(share * 100) + 50) // 100)
