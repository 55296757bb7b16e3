"""All kinds of perturbations, and how one is read."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from storage.errors import SpecError
from tasks.data.perturbations.base import PerturbationBase
from tasks.data.perturbations.jpeg import Jpeg

KINDS: dict[str, type[PerturbationBase]] = {"jpeg": Jpeg}
# The name of a cell in which nothing happens to a picture.
NONE = "none"


def _of_kind(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of perturbation {kind!r}, expected one of {sorted(KINDS)}")
    return KINDS[kind].model_validate(value)


Perturbation = Annotated[SerializeAsAny[PerturbationBase], BeforeValidator(_of_kind)]


def name_of(perturbation: PerturbationBase | None) -> str:
    """Such as `q20`, or `none`."""
    return NONE if perturbation is None else perturbation.name


def perturbation_named(name: str) -> PerturbationBase | None:
    """What has this name, None for `none`.

    Raises:
        SpecError: nothing has.
    """
    if name == NONE:
        return None
    for kind in KINDS.values():
        found = kind.named(name)
        if found is not None:
            return found
    raise SpecError(f"no perturbation is called {name!r}; the kinds are {sorted(KINDS)}")
