"""What every kind of source has: pictures that lie on a disk, or pictures that are generated in the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from storage.objects import Ref
from tasks.facts import FactPool, Question
from tasks.spec.base import Name, Spec, Truth
from tasks.spec.source_names import name_in_words
from tasks.spec.splits import Splits

Deployment = Literal["shard/coco", "shard/folder", "generate/gan", "generate/stable-diffusion"]


class SourceBase(Spec):
    """What all sources share. `evaluated` False keeps a source for training generators, or for the rejection alone.

    A kind is a subclass of `DiskSource` or `GeneratedSource` with a field `kind`, and stands in
    `tasks.data.sources.kinds`.
    """

    # The deployment that makes its image shards without evaluating them; None where there is none.
    made_by: ClassVar[Deployment | None] = None
    # The pool whose workers have what the pictures come from.
    pool: ClassVar[FactPool]
    # Whether a generator can be trained on it, or prompted by it.
    can_be_origin: ClassVar[bool] = False
    # Whether a network's rejection can be tested on it.
    can_be_unseen: ClassVar[bool] = False

    kind: str
    name: Name
    evaluated: Truth = True
    label: Literal["real", "fake"]

    @property
    def identity(self) -> str | None:
        """What its pictures are, where two sources of one label cannot both be that; None where they may."""
        return None

    @property
    def in_words(self) -> str:
        """What people call it, for those who read what a network says."""
        return name_in_words(self.name)

    @property
    def may_be_enlarged(self) -> bool:
        """Whether pictures smaller than the canonical side are enlarged, as they are so by nature, or left out."""
        return False

    @property
    def own_side(self) -> int | None:
        """The side of its pictures in pixels where all have the same, None where that is not known."""
        return None

    def missing(self) -> list[str]:
        """What this machine lacks of it, each with its remedy; empty when all is there. A few seconds at most.

        Raises:
            MissingInput: variables are not set, each with its remedy.
            SpecError: a path leads nowhere.
        """
        return []

    def facts(self) -> list[Question]:
        """Every fact that planning asks about it: those that `index`, `train` and `generate` call."""
        return []


@dataclass(frozen=True)
class Indexed:
    """The entry table of a source, and the folder or Parquet file that holds its files, as the experiment names it.

    The table's notes may have `warnings`, sentences for those who read the report.
    """

    entries: Ref
    root: str


class DiskSource(SourceBase):
    """Pictures that lie on a disk."""

    made_by: ClassVar[Deployment | None] = "shard/folder"
    pool: ClassVar[FactPool] = "cpu"
    can_be_origin: ClassVar[bool] = True
    can_be_unseen: ClassVar[bool] = True

    def index(self) -> Indexed:
        """Call the step that indexes it, in the current flow."""
        raise NotImplementedError


@dataclass(frozen=True)
class Generation:
    """What a run gives to a source that is generated in it.

    `shards` are finished image shards of the sources on disk, by name; `shard_size` pictures go into one of its own.
    `seed` is the experiment's, of which a new draw is a new draw of the pictures. `device` is `cuda` or `cpu`.
    """

    shards: Mapping[str, tuple[Ref, ...]]
    splits: Splits
    seed: int
    shard_size: int
    device: str


class GeneratedSource(SourceBase):
    """Pictures of a generator that is run here."""

    pool: ClassVar[FactPool] = "gpu"
    # Whether it has weights that are trained in the run, by `train`.
    is_trained: ClassVar[bool] = False

    label: Literal["fake"] = "fake"

    @property
    def origin(self) -> str | None:
        """The source on disk that it is trained on, prompted by or made of; None where it needs no other."""
        return None

    def can_come_from(self, source: SourceBase) -> bool:
        """Whether a source of the experiment may be its origin."""
        return source.can_be_origin

    def train(self, run: Generation) -> Any:
        """Submit the training to the current flow: the future of the weights. Only where `is_trained`."""
        raise NotImplementedError

    def generate(self, run: Generation, weights: Ref | None) -> Sequence[Any]:
        """Submit what is to be generated: a future for every image shard.

        Args:
            run: the run.
            weights: what `train` made; None where nothing is trained.
        """
        raise NotImplementedError
