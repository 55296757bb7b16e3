"""What stands beside an evaluation: other experiments on the pictures of the same sources, with its own detectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flows.cells import cell_results
from flows.collect import collect
from flows.detectors import Scores, detector_scores, fitted_models
from flows.embed import Features, feature_shards
from flows.histories import Pictures
from flows.networks import canonical_shards
from storage.objects import Ref
from tasks.detectors.base import DetectorBase, Grid, Inputs
from tasks.evaluation.protocols import APPLIED_CONTROL, detectors_of, grid_of, networks_of
from tasks.spec.experiment import Experiment


def pictures_read(
    experiment: Experiment, detectors: Sequence[DetectorBase], brought: Mapping[str, Pictures]
) -> dict[str, tuple[Ref, ...]]:
    """Canonical pictures by source, where anything reads them."""
    if not any(detector.reads_pictures for detector in detectors):
        return {}
    return canonical_shards(experiment, brought)


@dataclass(frozen=True)
class Compared:
    """An experiment on the pictures of another one, with what its detectors are asked and read."""

    experiment: Experiment
    features: Features
    pictures: dict[str, tuple[Ref, ...]]

    @classmethod
    def of(
        cls, experiment: Experiment, brought: Mapping[str, Pictures], networks: Sequence[DetectorBase] = ()
    ) -> "Compared":
        """With what the experiment's own detectors read, and networks that are asked as well."""
        features = feature_shards(experiment, brought, is_measured=False)
        return cls(experiment, features, pictures_read(experiment, (*detectors_of(experiment), *networks), brought))

    def scores(self) -> Scores:
        """What its detectors say, those that are fitted after a fit on its own pictures."""
        models = fitted_models(self.experiment, self.features)
        inputs = Inputs(features=self.features.of, pictures=self.pictures, models=models, networks={})
        return detector_scores(detectors_of(self.experiment), self._grid, inputs)

    def results(self, protocol: str) -> Iterator[Ref]:
        """The results of every cell, under the name of a protocol."""
        cells = cell_results(self.experiment, self.experiment.cells, self.scores(), protocol)
        yield from (cell.evaluation for cell in cells)

    def applied(self, fitted: Experiment, of_it: Inputs) -> Iterator[Ref]:
        """Those of the detectors that another experiment has fitted, as they are; it asks about the same cells."""
        grid, sources = grid_of(fitted, self.features.keyed), self._grid.sources
        inputs = replace(of_it, features=self.features.of, pictures=self.pictures)
        futures = {
            entry: future
            for detector in detectors_of(fitted.uncompressed())
            if detector.role == "detector"
            for entry in detector.entries(grid)
            if entry.fit.is_whole and entry.cell in self.experiment.cells
            if (future := detector.applied(entry, grid, sources, inputs)) is not None
        }
        of = {(entry.fit, entry.cell): ref for entry, ref in zip(futures, collect(futures.values()), strict=True)}
        networks = detector_scores([one.single() for one in networks_of(fitted)], self._grid, inputs)
        scores = Scores((*futures, *networks.entries), of | dict(networks.of))
        for cell in cell_results(self.experiment, self.experiment.cells, scores, APPLIED_CONTROL):
            yield cell.evaluation

    @property
    def _grid(self) -> Grid:
        return grid_of(self.experiment, self.features.keyed)
