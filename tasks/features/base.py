"""What every kind of extractor has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from storage.objects import Ref
from storage.store import Store
from tasks.data.perturbations.base import ViewPicture
from tasks.facts import Fact
from tasks.recipe import Pool
from tasks.spec.base import Spec
from tasks.spec.views import View

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Extractor:
    """What turns pictures into features: one item per picture, then float32 (B, D) of up to `batch` items.

    `prepare` gets the original image file, the view, and the picture in that view. It is called by several threads at
    once, `embed` by one.
    """

    prepare: Callable[[bytes, View, ViewPicture], Array]
    embed: Callable[[Sequence[Array]], npt.NDArray[np.float32]]
    batch: int
    dimension: int


class ExtractorBase(Spec):
    """The root of all kinds; a kind has a field `kind`, and stands in `tasks.features.kinds`.

    What describes pictures by a formula has a `name` and a `load`. What has weights says as well whether they are there
    (`missing`), what they are (`facts`, `keyed`), and brings them into the store (`import_weights`).
    """

    # Where it computes: `gpu` also says that it computes on the device that the workers of that pool have.
    pool: ClassVar[Pool] = "cpu"

    @property
    def name(self) -> str:
        """What its features are called in the store, such as `vgg16-fc7-224`: lower case, digits, dots and dashes."""
        raise NotImplementedError

    def missing(self) -> list[str]:
        """What this machine lacks for it, each line with its remedy; downloads nothing, takes some seconds at most.

        When work is spread, a worker of the pool `gpu` is asked, whatever the kind's own: there the weights are.

        Raises:
            MissingInput: variables in a path are not set.
            SpecError: nothing is left of a path that is needed.
        """
        return []

    def facts(self) -> list[tuple[Fact[..., Any], tuple[Any, ...]]]:
        """The facts that `keyed` and `import_weights` ask, with their arguments (`tasks.facts`)."""
        return []

    def keyed(self) -> Self | None:
        """The specification with its weights named by their digest, as a recipe holds it.

        None where an optional variable leaves nothing of their name: the experiment then does without.
        """
        return self

    def import_weights(self) -> Ref | None:
        """Bring its weights into the store by a step, from where the specification says that they are.

        Asked of the specification as an experiment names it, not of the keyed one. None where it has no weights, or
        makes them itself.
        """
        return None

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        """What computes it; asked of the keyed specification.

        Args:
            store: where the weights lie.
            weights: what `import_weights` gave.
            device: `cpu`, or `cuda` for kinds of the pool `gpu`.
        """
        raise NotImplementedError
