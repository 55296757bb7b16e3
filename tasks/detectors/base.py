"""What every kind of detector has: its specification, what it is fitted on, and how it scores a cell's pictures.

An evaluation asks each detector of an experiment the same questions, in this order: which scores it gives (`entries`),
which features it reads (`features`), what is fitted for them (`trains`, `train`), what is found out of every shard of
pictures (`parts`), and the finished scores (`scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SerializeAsAny

from storage.objects import Ref
from tasks.data.perturbations.base import PerturbationBase
from tasks.data.splits import role
from tasks.data.views import has_window
from tasks.facts import Question
from tasks.features.base import ExtractorBase
from tasks.recipe import Pool
from tasks.spec.base import Name, Spec, of_kind
from tasks.spec.detectors import Fit, Role, SvmSpec
from tasks.spec.splits import Splits
from tasks.spec.views import Cell, Path, View, is_one


@dataclass(frozen=True)
class Grid:
    """What an experiment asks of every detector: its sources, its cells, and how its pictures are split.

    `photographs` says what the photographs are called that stand against some generators, of all `real` sources or of
    some; those `tested_apart` have a mix of their own. `families` has every generator once. All pictures are seen on
    one `path`.

    `augmented` is what happens to the pictures that a detector over all perturbations is fitted on. `extractor` and
    `svm` are what linear detectors take that name none; `keyed` gives any other extractor with its weights named by
    digest, as those of `extractor` are.
    """

    photographs: Callable[[Iterable[str], Iterable[str] | None], tuple[str, ...]]
    real: tuple[str, ...]
    tested_apart: tuple[str, ...]
    fakes: tuple[str, ...]
    families: Mapping[str, tuple[str, ...]]
    path: Path
    cells: tuple[Cell, ...]
    splits: Splits
    augmented: tuple[PerturbationBase | None, ...]
    extractor: ExtractorBase
    svm: SvmSpec
    keyed: Callable[[ExtractorBase], ExtractorBase]

    @property
    def sources(self) -> tuple[str, ...]:
        """Photographs first."""
        return (*self.photographs(self.fakes, None), *self.fakes)


@dataclass(frozen=True)
class Entry:
    """Scores of a fit in a cell. Its thresholds come from val pictures of the cell `reference`, which it scores too.

    One that is not `evaluated` is scored alone: others compare it, or look at what it rejects. `published` is the
    decision value from which its makers call a picture fake, if they say so.
    """

    fit: Fit
    cell: Cell
    reference: Cell
    evaluated: bool = True
    published: float | None = None


@dataclass(frozen=True)
class Inputs:
    """Finished objects that detectors read.

    Attributes:
        features: of some sources, by an extractor, in some views.
        pictures: canonical ones (`CANONICAL_SCHEMA`), shard by shard, by source.
        models: what was fitted or brought, by what `trains` said.
        networks: exported files of the experiment's own networks, one per rotation, by fit.
    """

    features: Callable[[tuple[str, ...], ExtractorBase, tuple[View, ...]], tuple[Ref, ...]]
    pictures: Mapping[str, tuple[Ref, ...]]
    models: Mapping[Spec, Ref]
    networks: Mapping[Fit, tuple[Ref, ...]]


def picture_shards(grid: Grid, inputs: Inputs) -> Iterator[dict[str, Any]]:
    """Every shard of canonical pictures, as the arguments of a step that scores it."""
    for source in grid.sources:
        for index, shard in enumerate(inputs.pictures[source]):
            yield {"pictures": shard, "source": source, "shard": index}


class DetectorBase(Spec):
    """The root of all kinds; one that an experiment may name has a field `kind`, and stands in `KINDS`."""

    name: Name
    role: Role = "detector"

    # Of how many windows of a picture it forms one opinion on the crop path.
    windows: int = Field(default=1, ge=1, le=25, exclude_if=is_one)

    # Whether it scores whatever pictures there are, as those that stand beside an experiment's own.
    can_be_asked_anew: ClassVar[bool] = True

    # Whether `parts` reads canonical pictures, which are made then.
    reads_pictures: ClassVar[bool] = False

    @property
    def pool(self) -> Pool:
        """Whose workers score pictures, and have what it needs for that."""
        return "cpu"

    @property
    def title(self) -> str:
        """What it is, in a few words, for those who read its numbers."""
        raise NotImplementedError

    @property
    def extractors(self) -> tuple[ExtractorBase, ...]:
        """The extractors that it names, beside the experiment's own."""
        return ()

    def reported(self) -> Self:
        """It as a report tells of it: what lies somewhere is named by what it is."""
        return self

    def single(self) -> Self:
        """It with one fit, on everything."""
        return self

    def on_whole_pictures(self) -> Self:
        """It off the crop path, with one opinion of a picture; what is fitted there is fitted on each cell's own."""
        return self.model_copy(update={"windows": 1})

    def missing(self) -> list[str]:
        """What this machine lacks of it, each with its remedy; asked of a worker of its pool."""
        return []

    def facts(self) -> list[Question]:
        """The facts that `trains`, `parts` and `scores` ask, with their arguments (`tasks.facts`)."""
        return []

    def remarks(self, sources: Sequence[str]) -> list[str]:
        """What those who read its numbers on pictures of these sources must know, a sentence each."""
        return []

    def view(self, cell: Cell, grid: Grid) -> View:
        """What it is shown of the pictures of a cell."""
        return cell.view(grid.path, self.windows)

    def threshold_views(self, grid: Grid) -> tuple[View, ...]:
        """The views whose val pictures give thresholds: every resolution, with nothing done to the picture."""
        return tuple(self.view(cell, grid) for cell in grid.cells if cell.perturbation is None)

    def entries(self, grid: Grid) -> tuple[Entry, ...]:
        """Every set of scores that it gives; by default one fit in every cell."""
        fit = Fit(detector=self.name, role=self.role)
        return tuple(Entry(fit, cell, Cell(resolution=cell.resolution)) for cell in grid.cells)

    def features(self, entry: Entry, grid: Grid) -> Iterator[tuple[ExtractorBase, tuple[View, ...], tuple[str, ...]]]:
        """The features that an entry needs: by which extractor, in which views, of which sources."""
        yield from ()

    def trains(self, entry: Entry, grid: Grid) -> Spec | None:
        """What is fitted for an entry, or brought for it; None where nothing is."""
        return None

    def train(self, model: Spec, grid: Grid, inputs: Inputs) -> Any:
        """The future of what is fitted or brought."""
        raise NotImplementedError

    def parts(self, fit: Fit, views: tuple[View, ...], grid: Grid, inputs: Inputs) -> list[Any]:
        """Futures of what a fit finds in every shard of pictures, each a tuple with an object for every view."""
        return []

    def scores(self, entry: Entry, parts: Mapping[View, tuple[Ref, ...]], grid: Grid, inputs: Inputs) -> Any:
        """The future of an entry's scores (`SCORE_SCHEMA`), of all sources, from the parts of its fit by view."""
        raise NotImplementedError

    def applied(self, entry: Entry, grid: Grid, sources: tuple[str, ...], inputs: Inputs) -> Any | None:
        """The future of an entry's scores of pictures that it was not made for, by what was fitted in its grid.

        None where it scores no others: what was fitted, or how pictures are shown to it, is of its own pictures.
        """
        return None

    def control(self, cell: Cell, grid: Grid, inputs: Inputs, repeats: int, seed: int) -> Any | None:
        """The future of its control with shuffled labels in an uncompressed cell, None where it has none."""
        return None


# Every kind that an experiment may name; `tasks.detectors.kinds` fills it in.
KINDS: dict[str, type[DetectorBase]] = {}


Detector = Annotated[SerializeAsAny[DetectorBase], of_kind(KINDS, "detector")]


def score_place(fit: Fit, view: View) -> dict[str, Any]:
    """The columns of `SCORE_SCHEMA` that say which fit scored in which view."""
    return fit.model_dump() | {
        "path": view.path,
        "resolution": str(view.resolution),
        "perturbation": view.perturbation_name,
    }


SCORE_ORDER = [("split", "ascending"), ("fold", "ascending"), ("image_id", "ascending"), ("source", "ascending")]


def tested_as(row: Mapping[str, Any], splits: Splits) -> list[tuple[int, str]]:
    """The rotations in which a picture is `val` or `test`, and which of them."""
    roles = [(rotation, role(row, rotation, splits)) for rotation in range(splits.rotations)]
    return [(rotation, split) for rotation, split in roles if split != "train"]


def is_shown(row: Mapping[str, Any], view: View) -> bool:
    """Whether a canonical picture is as large as a view's window, if it has one."""
    return view.path != "crop" or has_window(row["width"], row["height"], view)


def shown_as(row: Mapping[str, Any], view: View, val_views: Sequence[View], splits: Splits) -> list[tuple[int, str]]:
    """The rotations in which a detector is shown a picture in a view, and as what.

    Test pictures are shown in every view, val pictures in those alone that give thresholds. One that is smaller than
    the window of a view is not shown in it.
    """
    if not is_shown(row, view):
        return []
    return [(rotation, split) for rotation, split in tested_as(row, splits) if split == "test" or view in val_views]
