"""The cells of the grid: the scores of every detector in a cell are evaluated, and detectors and networks compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.collect import collect
from flows.detectors import Scores, evaluated
from storage.objects import Ref
from tasks.evaluation.cells import Scored, evaluate_cell_scores
from tasks.evaluation.comparison import ComparedNetwork, compare_networks
from tasks.evaluation.pairs import ComparedDetector, compare_detectors
from tasks.evaluation.protocols import mixes_of
from tasks.networks.variants import Variant, origin, variants
from tasks.spec.detectors import Fit, Quantized
from tasks.spec.experiment import Experiment
from tasks.spec.views import Cell

# Any detector that knows everything.
WHOLE = Fit(detector="any")


@dataclass(frozen=True)
class CellResults:
    """Results of one cell: of all detectors, how these differ, and how its networks compare with the first of them.

    `scored` are the scores behind them.
    """

    scored: tuple[Scored, ...]
    evaluation: Ref
    pairs: Ref
    comparison: Ref | None


def cell_results(
    experiment: Experiment, cells: Sequence[Cell], scores: Scores, protocol: str = "fair"
) -> list[CellResults]:
    """Results of some cells, side by side, under the name of a protocol."""
    scored = [_scored(experiment, cell, scores) for cell in cells]
    evaluations = [
        evaluate_cell_scores.submit(
            cell=cell,
            protocol=protocol,
            scored=of_cell,
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )
        for cell, of_cell in zip(cells, scored, strict=True)
    ]
    pairs = [
        compare_detectors.submit(
            cell=cell,
            mixes=mixes_of(experiment, WHOLE),
            detectors=_paired(experiment, cell, scores),
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )
        for cell in cells
    ]
    networks = {cell: found for cell in cells if (found := _compared(experiment, cell, scores))}
    comparisons = {
        cell: compare_networks.submit(
            cell=cell,
            networks=found,
            classes=experiment.class_names,
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )
        for cell, found in networks.items()
    }
    done = iter(collect([*evaluations, *pairs, *comparisons.values()]))
    evaluated_cells, paired_cells = ([next(done) for _ in cells] for _ in range(2))
    compared = dict(zip(comparisons, done, strict=True))
    return [
        CellResults(of_cell, evaluation, paired, compared.get(cell))
        for cell, of_cell, evaluation, paired in zip(cells, scored, evaluated_cells, paired_cells, strict=True)
    ]


def _scored(experiment: Experiment, cell: Cell, scores: Scores) -> tuple[Scored, ...]:
    """Every detector's scores in a cell."""
    return tuple(
        Scored(
            fit=entry.fit,
            scores=scores.of[entry.fit, cell],
            reference=scores.of[entry.fit, entry.reference],
            mixes=mixes_of(experiment, entry.fit),
            published=entry.published,
        )
        for entry in evaluated(scores, cell)
    )


def _paired(experiment: Experiment, cell: Cell, scores: Scores) -> tuple[ComparedDetector, ...]:
    """The detectors of a cell that the report ranks: no probes, no fits with another seed or on fewer generators."""
    plain = Cell(resolution=cell.resolution)
    has_plain = cell.perturbation is not None and plain in experiment.cells
    return tuple(
        ComparedDetector(
            fit=entry.fit,
            scores=scores.of[entry.fit, cell],
            reference=scores.of[entry.fit, entry.reference],
            uncompressed=scores.of.get((entry.fit, plain)) if has_plain else None,
        )
        for entry in evaluated(scores, cell)
        if entry.fit.is_whole and entry.fit.role == "detector"
    )


def _compared(experiment: Experiment, cell: Cell, scores: Scores) -> tuple[ComparedNetwork, ...]:
    """The networks that are scored in a cell and know all classes."""
    among = variants(experiment)
    of_fit = {variant.fit: variant for variant in among}
    return tuple(
        ComparedNetwork(
            fit=entry.fit,
            origin=_quantized_from(of_fit[entry.fit], among),
            alone=of_fit[entry.fit].alone,
            scores=scores.of[entry.fit, cell],
            reference=scores.of[entry.fit, entry.reference],
        )
        for entry in evaluated(scores, cell)
        if entry.fit in of_fit and entry.fit.without is None
    )


def _quantized_from(variant: Variant, among: tuple[Variant, ...]) -> Fit | None:
    start = origin(variant, among) if isinstance(variant.network, Quantized) else None
    return None if start is None else start.fit
