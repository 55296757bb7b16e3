"""All kinds of perturbations: one file each, and a line here."""

from tasks.data.perturbations.avif import Avif
from tasks.data.perturbations.base import KINDS, PerturbationBase, perturbation_of
from tasks.data.perturbations.blur import Blur
from tasks.data.perturbations.chain import Chain
from tasks.data.perturbations.crop import Crop
from tasks.data.perturbations.jpeg import Jpeg
from tasks.data.perturbations.jpegs import Jpegs
from tasks.data.perturbations.limit import Limit
from tasks.data.perturbations.noise import Noise
from tasks.data.perturbations.resize import Resize
from tasks.data.perturbations.scale import Scale
from tasks.data.perturbations.webp import Webp

KINDS["jpeg"] = Jpeg
KINDS["jpegs"] = Jpegs
KINDS["webp"] = Webp
KINDS["avif"] = Avif
KINDS["blur"] = Blur
KINDS["noise"] = Noise
KINDS["crop"] = Crop
KINDS["resize"] = Resize
KINDS["scale"] = Scale
KINDS["limit"] = Limit
KINDS["chain"] = Chain

# The name of a cell in which nothing happens to a picture.
NONE = "none"


def name_of(perturbation: PerturbationBase | None) -> str:
    """Such as `q20`, or `none`."""
    return NONE if perturbation is None else perturbation.name


def perturbation_named(name: str) -> PerturbationBase | None:
    """What has this name, None for `none`. An experiment's own chain is known to the experiment alone.

    Raises:
        SpecError: nothing has, or it says what its kind refuses.
    """
    return None if name == NONE else perturbation_of(name)
