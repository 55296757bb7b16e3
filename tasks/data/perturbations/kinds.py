"""All kinds of perturbations, and how one is read."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from storage.errors import SpecError
from tasks.data.perturbations.base import PerturbationBase
from tasks.data.perturbations.jpeg import Jpeg
from tasks.spec.base import of_kind

KINDS: dict[str, type[PerturbationBase]] = {"jpeg": Jpeg}
# The name of a cell in which nothing happens to a picture.
NONE = "none"


def _by_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return perturbation_named(value)
    except SpecError as error:
        raise ValueError(str(error)) from error


# A document, or a name such as `q20`. The validator that is named last comes first.
Perturbation = Annotated[SerializeAsAny[PerturbationBase], of_kind(KINDS, "perturbation"), BeforeValidator(_by_name)]


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
