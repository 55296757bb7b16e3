"""The detectors of an experiment: what is fitted for them, and the scores that they give in every cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.embed import Features
from storage.objects import Ref
from tasks.detectors.base import DetectorBase, Entry, Grid, Inputs
from tasks.detectors.linear import Linear
from tasks.evaluation.protocols import detectors_of, further_heads, grid_of
from tasks.kept_networks import networks_kept
from tasks.spec.base import Spec
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment
from tasks.spec.views import Cell, View


@dataclass(frozen=True)
class Scores:
    """Finished scores of every fit and cell, and in their order what scored them."""

    entries: tuple[Entry, ...]
    of: Mapping[tuple[Fit, Cell], Ref]


def fitted_models(experiment: Experiment, features: Features) -> dict[Spec, Ref]:
    """Everything that is fitted on features: for the detectors, and the heads that are needed beside them."""
    grid = grid_of(experiment, features.keyed)
    inputs = Inputs(features=features.of, pictures={}, models={}, networks={})
    futures: dict[Spec, Any] = {}
    for detector in detectors_of(experiment):
        for entry in detector.entries(grid):
            model = detector.trains(entry, grid)
            if model is not None and model not in futures:
                futures[model] = detector.train(model, grid, inputs)
    for head in further_heads(experiment, features.extractor):
        if head not in futures:
            futures[head] = Linear(name=head.fit.detector).train(head, grid, inputs)
    return dict(zip(futures, collect(futures.values()), strict=True))


def detector_scores(detectors: Sequence[DetectorBase], grid: Grid, inputs: Inputs) -> Scores:
    """The scores of detectors; those that read no pictures first, as they wait for nothing."""
    with networks_kept():
        waiting = [_DetectorParts.of(detector, grid, inputs) for detector in detectors]
        futures: dict[tuple[Fit, Cell], Any] = {}
        for parts in sorted(waiting, key=lambda one: bool(one.futures)):
            of = parts.collected()
            for entry in parts.entries:
                futures[entry.fit, entry.cell] = parts.detector.scores(entry, of.get(entry.fit, {}), grid, inputs)
        entries = tuple(entry for parts in waiting for entry in parts.entries)
        return Scores(entries, dict(zip(futures, collect(futures.values()), strict=True)))


@dataclass(frozen=True)
class _DetectorParts:
    """A detector's entries, and what its fits are finding in every shard of pictures, in which views."""

    detector: DetectorBase
    entries: tuple[Entry, ...]
    views: dict[Fit, tuple[View, ...]]
    futures: dict[Fit, list[Any]]

    @classmethod
    def of(cls, detector: DetectorBase, grid: Grid, inputs: Inputs) -> "_DetectorParts":
        entries = detector.entries(grid)
        views: dict[Fit, dict[View, None]] = {}
        for entry in entries:
            views.setdefault(entry.fit, {})[detector.view(entry.cell, grid)] = None
        of_fit = {fit: tuple(found) for fit, found in views.items()}
        futures = {fit: detector.parts(fit, found, grid, inputs) for fit, found in of_fit.items()}
        return cls(detector, entries, of_fit, {fit: found for fit, found in futures.items() if found})

    def collected(self) -> dict[Fit, dict[View, tuple[Ref, ...]]]:
        """The finished parts of every fit, by view."""
        made = {fit: collect(futures) for fit, futures in self.futures.items()}
        return {
            fit: {view: tuple(refs[place] for refs in shards) for place, view in enumerate(self.views[fit])}
            for fit, shards in made.items()
        }


def evaluated(scores: Scores, cell: Cell) -> list[Entry]:
    """What is evaluated in a cell, in the detectors' order."""
    return [entry for entry in scores.entries if entry.evaluated and entry.cell == cell]
