"""Linear support vector machines, logistic regressions and discriminants on features of an extractor."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import polars as pl
import pyarrow as pa
from pydantic import Field

from storage.errors import SpecError
from storage.objects import ROWS, Ref
from storage.tables import SCORE_SCHEMA
from tasks.detectors.base import DetectorBase, Entry, Grid, Inputs, score_place
from tasks.detectors.shuffled import shuffled_control
from tasks.detectors.svm import FeatureRows, LinearHead, feature_rows, fit_head, head_rows
from tasks.features.base import ExtractorBase
from tasks.features.kinds import ExtractorSpec
from tasks.features.probe import ProbeSpec
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec, Truth
from tasks.spec.detectors import Fit, HeadSpec, Loss, SvmSpec, is_hinge
from tasks.spec.splits import Splits
from tasks.spec.views import Cell, View

_MACHINES = {"hinge": "SVM", "logistic": "logistic regression", "discriminant": "linear discriminant"}


class Linear(DetectorBase):
    """A linear SVM per resolution, on features of an extractor; `loss` makes it another linear machine.

    `logistic` is logistic regression, `discriminant` linear discriminant analysis with a shrunken covariance, whose
    strengths of shrinkage are chosen among the `c_values` of `svm`, at most 1.
    `fitted_in` says which views of the training pictures it is fitted on: those that nothing happens to, the
    experiment's augmented ones together, or in every cell that cell's own. Extractor, `svm` (which also says how a
    logistic regression is fitted) and the number of training `seeds` are the experiment's unless they are named. A
    `crossed` one is fitted on each generator alone as well, where there are several. With `left_out` it is fitted as
    well without each family of generators, and without each source of photographs, where there are several: what it
    has not seen then is what it is tested on.
    """

    kind: Literal["linear"] = "linear"
    extractor: ExtractorSpec | None = None
    svm: SvmSpec | None = None
    loss: Loss = Field(default="hinge", exclude_if=is_hinge)
    fitted_in: Literal["uncompressed", "augmented", "each-cell"] = "uncompressed"
    seeds: int = Field(default=1, ge=1, le=20)
    crossed: Truth = False
    left_out: Truth = Field(default=False, exclude_if=operator.not_)

    @property
    def title(self) -> str:
        if isinstance(self.extractor, ProbeSpec):
            return "sees no picture content"
        views = {
            "uncompressed": "on uncompressed pictures",
            "augmented": "over all qualities",
            "each-cell": "in every cell on its own pictures",
        }
        on = "" if self.extractor is None else f" on {self.extractor.name}"
        return f"{_MACHINES[self.loss]}{on}, fitted {views[self.fitted_in]}"

    @property
    def extractors(self) -> tuple[ExtractorBase, ...]:
        return () if self.extractor is None else (self.extractor,)

    def entries(self, grid: Grid) -> tuple[Entry, ...]:
        return tuple(self._entries(grid))

    def _entries(self, grid: Grid) -> Iterator[Entry]:
        for cell in grid.cells:
            # One that is fitted on a cell's own view takes its thresholds from there too.
            reference = cell if self.fitted_in == "each-cell" else Cell(resolution=cell.resolution)
            yield Entry(Fit(detector=self.name, role=self.role), cell, reference)
            if cell.perturbation is not None:
                continue
            for seed in range(1, self.seeds):
                yield Entry(Fit(detector=self.name, role=self.role, seed=seed), cell, reference)
            for fake in grid.fakes if self.crossed and len(grid.fakes) > 1 else ():
                yield Entry(Fit(detector=self.name, role=self.role, fitted_on=fake), cell, reference)
            for absent in self._absent(grid):
                yield Entry(Fit(detector=self.name, role=self.role, without=absent), cell, reference)

    def _absent(self, grid: Grid) -> Iterator[str]:
        """What is left out of a training, one after the other."""
        if self.left_out:
            yield from (name for name, family in grid.families.items() if len(family) < len(grid.fakes))
            yield from (grid.tested_apart if len(grid.real) > 1 else ())

    def single(self) -> Self:
        return self.model_copy(update={"seeds": 1, "crossed": False, "left_out": False})

    def on_whole_pictures(self) -> Self:
        return self.model_copy(update={"windows": 1, "fitted_in": "each-cell"})

    def trains(self, entry: Entry, grid: Grid) -> HeadSpec:
        absent = entry.fit.without
        unknown = grid.families.get(absent, ()) if absent is not None else ()
        fakes = tuple(fake for fake in grid.fakes if entry.fit.fitted_on in (None, fake) and fake not in unknown)
        svm = grid.svm if self.svm is None else self.svm
        if self.loss == "discriminant" and max(svm.c_values) > 1:
            raise SpecError(
                f"{self.name}: a discriminant's svm.c_values are strengths of shrinkage, got {max(svm.c_values):g}: "
                "name values of at most 1"
            )
        return HeadSpec(
            fit=entry.fit,
            extractor=grid.extractor if self.extractor is None else grid.keyed(self.extractor),
            views=self._fitted_views(entry.cell, grid),
            real=grid.photographs(fakes, [real for real in grid.real if real != absent]),
            fakes=fakes,
            svm=svm,
            loss=self.loss,
        )

    def _fitted_views(self, cell: Cell, grid: Grid) -> tuple[View, ...]:
        if self.fitted_in == "each-cell":
            return (self.view(cell, grid),)
        of = grid.augmented if self.fitted_in == "augmented" else (None,)
        return tuple(self.view(Cell(resolution=cell.resolution, perturbation=one), grid) for one in of)

    def features(self, entry: Entry, grid: Grid) -> Iterator[tuple[ExtractorBase, tuple[View, ...], tuple[str, ...]]]:
        head = self.trains(entry, grid)
        yield head.extractor, (self.view(entry.cell, grid),), grid.sources
        yield head.extractor, head.views, (*head.real, *head.fakes)

    def train(self, model: Spec, grid: Grid, inputs: Inputs) -> Any:
        assert isinstance(model, HeadSpec)
        return train_head.submit(head=model, features=_training_features(model, grid, inputs), splits=grid.splits)

    def scores(self, entry: Entry, parts: Mapping[View, tuple[Ref, ...]], grid: Grid, inputs: Inputs) -> Any:
        return self.applied(entry, grid, grid.sources, inputs)

    def applied(self, entry: Entry, grid: Grid, sources: tuple[str, ...], inputs: Inputs) -> Any:
        head, view = self.trains(entry, grid), self.view(entry.cell, grid)
        return score_view.submit(
            fit=head.fit,
            head=head,
            model=inputs.models[head],
            features=inputs.features(sources, head.extractor, (view,)),
            view=view,
            splits=grid.splits,
        )

    def control(self, cell: Cell, grid: Grid, inputs: Inputs, repeats: int, seed: int) -> Any:
        head = self.trains(Entry(Fit(detector=self.name, role=self.role), cell, cell), grid)
        features = _training_features(head, grid, inputs)
        return shuffled_control.submit(head=head, features=features, splits=grid.splits, repeats=repeats, seed=seed)


def _training_features(head: HeadSpec, grid: Grid, inputs: Inputs) -> tuple[Ref, ...]:
    """What a head is fitted on."""
    names = (*head.real, *head.fakes)
    if grid.path == "crop":
        # Where no picture of a generator has a window, its photographs have a history that no fake has.
        names = _of_present(names, head, grid, inputs)
    return inputs.features(names, head.extractor, head.views)


def _of_present(names: tuple[str, ...], head: HeadSpec, grid: Grid, inputs: Inputs) -> tuple[str, ...]:
    """The sources of a head without generators of which there are no rows, and without what stands against these."""

    def has_rows(fake: str) -> bool:
        return any(ref.rows for ref in inputs.features((fake,), head.extractor, head.views))

    present = [fake for fake in head.fakes if has_rows(fake)]
    kept = {*present, *grid.photographs(present, None)}
    return tuple(name for name in names if name in kept)


@step(
    "train/svm",
    version=1,
    label=lambda *, head, **_: f"{head.fit.label}/{head.views[0].name}",
    libraries=("scikit-learn", "scipy", "numpy"),
)
def train_head(run: StepRun, *, head: HeadSpec, features: tuple[Ref, ...], splits: Splits) -> Output:
    """Fit a head on the train rows of its sources, one machine per rotation, and calibrate it on val."""
    svm, rotations = fit_head(head_rows(run.store, features, head), head, splits)
    return Output(svm.parts(head), {"calibrated": svm.calibrated, "rotations": rotations})


def score_rows(rows: FeatureRows, svm: LinearHead, fit: Fit, view: View, splits: Splits) -> pa.Table:
    """Score rows by every rotation in which they are val or test: `SCORE_SCHEMA`, sorted by split, fold, id and source.

    Sources that the head was not fitted on are scored as well (the cross table needs them). A row's score depends on
    its features alone, to the last bit, not on the rows, shards or batches beside it.

    Args:
        rows: features of this view.
        svm: the fitted head.
        fit: what the results call it by.
        view: what the features are of.
        splits: with fixed splits, val and test are scored once, as fold 0; with folds, each rotation scores its own.

    Raises:
        SpecError: the features are of another extractor than the head's.
    """
    if rows.X.shape[1] != svm.coef.shape[1]:
        raise SpecError(f"{fit.label} reads {svm.coef.shape[1]} features, got {rows.X.shape[1]}")
    scored = [
        _score_role(rows, svm, rotation, split, splits)
        for rotation in range(splits.rotations)
        for split in ("val", "test")
    ]
    scores = pl.concat(scored).sort("split", "fold", "image_id", "source")
    count = len(scores)
    constants = {
        name: pa.array([value] * count, SCORE_SCHEMA.field(name).type)
        for name, value in (score_place(fit, view) | {"class_probabilities": None}).items()
    }
    columns = {
        name: constants[name] if name in constants else scores[name].to_arrow().cast(SCORE_SCHEMA.field(name).type)
        for name in SCORE_SCHEMA.names
    }
    return pa.table(columns, schema=SCORE_SCHEMA)


def _score_role(rows: FeatureRows, svm: LinearHead, rotation: int, split: str, splits: Splits) -> pl.DataFrame:
    chosen = rows.take(rows.roles(rotation, splits) == split)
    decisions = svm.decisions(chosen.X, rotation)
    return chosen.identity.select("image_id", "group_id", "source", "label").with_columns(
        pl.lit(split).alias("split"),
        pl.lit(rotation, pl.Int16).alias("fold"),
        pl.Series("p_fake", svm.probabilities(decisions, rotation)),
        pl.Series("decision", decisions),
    )


@step("score", version=2, label=lambda *, fit, view, **_: f"{fit.label}/{view.name}")
def score_view(
    run: StepRun, *, fit: Fit, head: HeadSpec, model: Ref, features: tuple[Ref, ...], view: View, splits: Splits
) -> Output:
    """Score all val and test pictures of one view by one head; all sources given, fitted on or not."""
    if not features:
        raise SpecError(f"{fit.label}: there are no features of {view.name} to score")
    scores = score_rows(feature_rows(run.store, features), LinearHead.load(run.store, model), fit, view, splits)
    counts = scores.group_by("split").aggregate([("image_id", "count")]).to_pylist()
    return Output({ROWS: scores}, {"rows": {row["split"]: row["image_id_count"] for row in counts}})
