"""Detectors that are brought: every val and test picture of a shard in every view, then calibration on val.

A kind is a `PictureDetector` with a field `kind` and the function `opened`; everything else is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from PIL import UnidentifiedImageError
from pydantic import Field

from storage.errors import SpecError, TelltaleError
from storage.objects import ROWS, Ref, read_table
from storage.store import Store
from storage.tables import SCORE_SCHEMA
from tasks.brought_files import BroughtFiles
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.views import shown_picture
from tasks.detectors.base import (
    SCORE_ORDER,
    Detector,
    DetectorBase,
    Entry,
    Grid,
    Inputs,
    picture_shards,
    score_place,
    shown_as,
    tested_as,
)
from tasks.detectors.calibration import REASONS, calibrate_scores
from tasks.device import device_alone, is_device_error
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, chosen_device, step
from tasks.spec.base import Spec, path_fields
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import Cell, View
from tasks.threads import helper_threads, in_order

Row = dict[str, Any]
Decisions = Sequence[float] | np.ndarray

# What says something of the machine, not of the picture: the work is tried again, and nothing is kept of it.
_OF_THE_MACHINE = (MemoryError, OSError)
# How far decoding may be ahead of the detector, per thread and picture of a batch.
_BATCHES_AHEAD = 2
# Characters of why a picture has no score.
_REASON = 300


@dataclass(frozen=True)
class Opened:
    """A detector at work: one item of each picture, then the decision values (N,) of up to `batch` items.

    `prepare` is called by several threads at once, `decide` by one. A decision value is larger for a fake: a log-odds
    is best, and any finite number will do. A picture on which either fails is left out, and counted; `MemoryError` and
    `OSError` say something of the machine, and are raised.
    """

    prepare: Callable[[ViewPicture], Any]
    decide: Callable[[Sequence[Any]], Decisions]
    batch: int = 1

    @classmethod
    def one_by_one(cls, decide: Callable[[Pixels], float]) -> Opened:
        """A detector that gives the decision value of uint8 (H, W, 3), RGB, which it must not write into."""
        return cls(lambda picture: picture.pixels, lambda pictures: [decide(pixels) for pixels in pictures])


class PictureDetector(DetectorBase):
    """A detector that is brought, not fitted: it says of every picture how much it looks like a fake.

    What it says is calibrated on val pictures that nothing happened to, one resolution at a time, and thresholds come
    from there, as for every other detector. `trained_on` names the sets of pictures that its makers fitted it on; where
    it is left out that is not known.
    """

    reads_pictures: ClassVar[bool] = True

    trained_on: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = None
    # From which answer on its makers call a picture fake.
    threshold: float | None = None

    @property
    def published(self) -> float | None:
        """The decision value from which its makers call a picture fake; None where they do not say."""
        return self.threshold

    @property
    def brings(self) -> BroughtFiles | None:
        """The files that workers need of it, which are brought into the store."""
        return None

    def opened(self, store: Store, files: Ref | None, device: str) -> Opened:
        """What scores pictures; asked of `keyed()`.

        Args:
            store: where the files lie.
            files: the object of what `brings` names.
            device: `cpu`, or `cuda` for kinds of the pool `gpu`.

        Raises:
            SpecError: what was brought is not what was declared.
        """
        raise NotImplementedError

    def keyed(self) -> Self:
        """The specification without what decides no score, as recipes hold it: files are told apart by their object."""
        update = dict.fromkeys(path_fields(type(self)), "") | dict.fromkeys(("trained_on", "threshold"))
        return self.model_copy(update=update)

    def reported(self) -> Self:
        # Where a file lies is nobody's business; what it is called, and its digest, say what it is.
        brought = self.brings
        which = "" if brought is None else f" (sha256 {brought.digest[:12]})"
        paths = {name: getattr(self, name) for name in path_fields(type(self))}
        return self.model_copy(update={name: f"{Path(path).name}{which}" for name, path in paths.items() if path})

    def remarks(self, sources: Sequence[str]) -> list[str]:
        if self.trained_on is None:
            return [f"{self.name}: what it was trained on is not declared: it may know some of these pictures."]
        declared = f"{self.name}: declared as trained on {', '.join(self.trained_on) or 'nothing'}"
        known = [source for source in sources if any(_are_alike(source, name) for name in self.trained_on)]
        if known:
            return [f"{declared}; it may know pictures of {', '.join(known)}."]
        return [f"{declared}; by their names none of this experiment's sources is among that."]

    def entries(self, grid: Grid) -> tuple[Entry, ...]:
        fit = Fit(detector=self.name, role=self.role)
        return tuple(
            Entry(fit, cell, Cell(resolution=cell.resolution), published=self.published) for cell in grid.cells
        )

    def trains(self, entry: Entry, grid: Grid) -> Spec | None:
        return self.brings

    def train(self, model: Spec, grid: Grid, inputs: Inputs) -> Any:
        assert isinstance(model, BroughtFiles)
        return model.bring()

    def parts(self, fit: Fit, views: tuple[View, ...], grid: Grid, inputs: Inputs) -> list[Any]:
        brought = self.brings
        return [
            score_pictures.submit(
                detector=self.keyed(),
                files=None if brought is None else inputs.models[brought],
                fit=fit,
                views=views,
                val_views=self.threshold_views(grid),
                splits=grid.splits,
                device=chosen_device() if self.pool == "gpu" else "cpu",
                **shard,
            )
            for shard in picture_shards(grid, inputs)
        ]

    def scores(self, entry: Entry, parts: Mapping[View, tuple[Ref, ...]], grid: Grid, inputs: Inputs) -> Any:
        view = self.view(entry.cell, grid)
        reference = parts[self.view(entry.reference, grid)]
        return calibrate_scores.submit(fit=entry.fit, view=view, scores=parts[view], reference=reference)


def _are_alike(source: str, declared: str) -> bool:
    """Whether a source may be a set that somebody names otherwise, such as `coco` and `MS COCO 2017`."""
    one, other = ("".join(re.findall("[a-z0-9]", name.lower())) for name in (source, declared))
    return min(len(one), len(other)) >= 3 and (one in other or other in one)


@dataclass(frozen=True)
class Failed:
    """Why a picture has no decision value."""

    reason: str


@dataclass
class Scoring:
    """One detector over one shard, view by view.

    Attributes:
        opened: the detector at work.
        fit: what its rows are called by.
        views: what it is shown of every test picture.
        val_views: the views that give thresholds; val pictures are scored in these only.
        splits: which pictures are val and test.
        kept: where rows are kept for an attempt that goes on, and those of earlier ones.
        threads: how many prepare pictures beside the one that decides.
        failures: by view the reasons why pictures have no score, with their numbers, as they came.
    """

    opened: Opened
    fit: Fit
    views: Sequence[View]
    val_views: Sequence[View]
    splits: Splits
    kept: Mapping[View, RowPieces] = field(default_factory=dict)
    threads: int = 1
    failures: dict[View, dict[str, int]] = field(default_factory=dict)

    def rows(self, pictures: pa.Table, advance: Callable[[int], None] = lambda count: None) -> dict[View, list[Row]]:
        """`SCORE_SCHEMA` rows of every val and test picture of CANONICAL_SCHEMA rows, not calibrated.

        A picture is scored once in a view, whatever rotations it is val or test in. Batches are made of the shard's
        rows in their order, so that they are the same in every attempt.
        """
        found = {view: self.kept[view].rows() if view in self.kept else () for view in self.views}
        made = {view: {_identity(row): row for row in rows} for view, rows in found.items()}
        wanted = [row for row in pictures.to_pylist() if tested_as(row, self.splits)]
        ahead = _BATCHES_AHEAD * self.opened.batch * self.threads

        def todo() -> Iterator[tuple[Row, list[View]]]:
            for begin in range(0, len(wanted), self.opened.batch):
                batch = wanted[begin : begin + self.opened.batch]
                missing = [view for view in self.views if not self._are_made(batch, view, made[view])]
                yield from ((row, missing) for row in batch)

        with closing(in_order(self._prepared, todo(), threads=self.threads, ahead=ahead)) as prepared:
            while batch := list(islice(prepared, self.opened.batch)):
                for view in self.views:
                    shown = [(row, items[view]) for row, items in batch if view in items]
                    for said in self._decided(shown, view):
                        made[view][_identity(said)] = said
                        if view in self.kept:
                            self.kept[view].add(said)
                advance(len(batch) * len(self.views))
        return {view: list(rows.values()) for view, rows in made.items()}

    def _roles(self, row: Row, view: View) -> list[tuple[int, str]]:
        return shown_as(row, view, self.val_views, self.splits)

    def _are_made(self, batch: Sequence[Row], view: View, made: Mapping[tuple[str, str, int], Row]) -> bool:
        return all(
            (row["source"], row["image_id"], rotation) in made
            for row in batch
            for rotation, _ in self._roles(row, view)
        )

    def _prepared(self, numbered: tuple[Row, list[View]]) -> tuple[Row, dict[View, Any]]:
        """The items of one picture in those of some views in which it is scored."""
        row, views = numbered
        shown = [view for view in views if self._roles(row, view)]
        if not shown:
            return row, {}
        rgb = decode_rgb(row["canonical"])
        return row, {view: self._items([shown_picture(rgb, row, one) for one in view.each_window]) for view in shown}

    def _items(self, windows: Sequence[ViewPicture]) -> Any:
        """An item for every window of a picture."""
        for picture in windows:
            picture.pixels.setflags(write=False)  # the next view may be made of the same pixels
        return self._tried(lambda: [self.opened.prepare(picture) for picture in windows])

    def _tried(self, function: Callable[[], Any]) -> Any:
        """What a function of the detector's gives, or why it gives nothing.

        Raised are telltale's own errors, and those that say something of the machine.
        """
        try:
            return function()
        except UnidentifiedImageError as error:  # an OSError, but of the picture
            return Failed(f"{type(error).__name__}: {error}"[:_REASON])
        except (TelltaleError, *_OF_THE_MACHINE):
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and is_device_error(error):
                raise
            return Failed(f"{type(error).__name__}: {error}"[:_REASON])

    def _decided(self, shown: Sequence[tuple[Row, Any]], view: View) -> Iterator[Row]:
        """The rows of one batch of items in a view, one for each rotation in which a picture is val or test."""
        items = [item for _, item in shown if not isinstance(item, Failed)]
        given = self._tried(lambda: self._numbers(items)) if items else []
        if isinstance(given, Failed):
            # One of them made all fail: each by itself.
            given = [self._tried(lambda item=item: self._numbers([item])[0]) for item in items]  # type: ignore[misc]
        decisions = iter(given)
        place = score_place(self.fit, view) | {"p_fake": None, "class_probabilities": None}
        for row, item in shown:
            decision = item if isinstance(item, Failed) else next(decisions)
            if not isinstance(decision, Failed) and not np.isfinite(decision):
                decision = Failed(f"expected a finite number, got {decision}")
            if isinstance(decision, Failed):
                reasons = self.failures.setdefault(view, {})
                reasons[decision.reason] = reasons.get(decision.reason, 0) + 1
            said = {name: row[name] for name in ("image_id", "group_id", "source", "label")} | place
            said["decision"] = None if isinstance(decision, Failed) else float(decision)
            for rotation, split in self._roles(row, view):
                yield said | {"split": split, "fold": rotation}

    def _numbers(self, items: Sequence[Sequence[Any]]) -> Sequence[float]:
        """A decision value for each picture: the mean of those of its windows, of which each batch has one of each."""
        of_window = [self._window_numbers(windows) for windows in zip(*items, strict=True)]
        numbers: list[float] = np.mean(of_window, axis=0).tolist()
        return numbers

    def _window_numbers(self, items: Sequence[Any]) -> np.ndarray:
        given = np.asarray(self.opened.decide(items), dtype=np.float64)
        if given.shape != (len(items),):
            raise SpecError(f"{self.fit.label}: expected {len(items)} scores of as many pictures, got {given.shape}")
        return given


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["image_id"], row["fold"]


@step(
    "score/pictures",
    version=3,
    label=lambda *, fit, views, source, shard, **_: f"{fit.label}/{views.name}/{source}-{shard:05d}",
    each="views",
    unkeyed=("shard",),
    libraries=("onnxruntime", "torch", "transformers", "pillow", "simplejpeg", "numpy"),
    pool=lambda *, detector, **_: detector.pool,
)
def score_pictures(
    run: StepRun,
    *,
    detector: Detector,
    files: Ref | None,
    fit: Fit,
    pictures: Ref,
    views: tuple[View, ...],
    val_views: tuple[View, ...],
    splits: Splits,
    device: str,
    source: str,
    shard: int,
) -> dict[View, Output]:
    """Decision values of a shard of canonical pictures in every missing view, an object each, not calibrated yet.

    Raises:
        SpecError: the detector is not what was declared.
    """
    assert isinstance(detector, PictureDetector)
    table = read_table(run.store, pictures)
    progress = run.progress(table.num_rows * len(views), device=device)
    kept = {view: RowPieces(run.store, run.checkpoints_of(view), SCORE_SCHEMA) for view in views}
    with device_alone(device):
        opened = detector.opened(run.store, files, device)
        scoring = Scoring(opened, fit, views, val_views, splits, kept, threads=helper_threads(device))
        rows = scoring.rows(table, progress.advance)
    return {
        view: Output(
            {ROWS: pa.Table.from_pylist(made, schema=SCORE_SCHEMA).sort_by(SCORE_ORDER)},
            {
                "rows": len(made),
                "unscored": sum(row["decision"] is None for row in made),
                "reasons": dict(list(scoring.failures.get(view, {}).items())[:REASONS]),
            },
            kept[view],
        )
        for view, made in rows.items()
    }
