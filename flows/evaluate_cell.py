"""One cell of the grid: score every detector in its view, then evaluate the scores."""

from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows.collect import collect, mended
from flows.embed import Features
from flows.runner import tasks_side_by_side
from storage.objects import Ref
from storage.store import open_store
from tasks.evaluation.cells import CellPlan, Detector, evaluate_cell_scores, read_plan
from tasks.evaluation.protocols import cell_heads, mixes_of
from tasks.evaluation.scoring import score_view
from tasks.spec import Cell, Experiment, HeadSpec, Splits


def cell_plan(experiment: Experiment, cell: Cell, features: Features, heads: dict[HeadSpec, Ref]) -> CellPlan:
    """Everything that a cell's evaluation reads, by ref: a worker elsewhere needs nothing else."""
    sources = (*experiment.real_names, *experiment.fake_names)
    uncompressed = Cell(resolution=cell.resolution).fair_view
    detectors = tuple(
        Detector(
            head=head,
            model=heads[head],
            features=features.of(sources, head.extractor, (cell.fair_view,)),
            # The probe is fitted on the cell's own view, so its threshold comes from there too.
            reference=()
            if head.name == "probe" or cell.jpeg_quality is None
            else features.of(sources, head.extractor, (uncompressed,)),
            mixes=mixes_of(experiment, head.name),
        )
        for head in cell_heads(experiment, cell, features.extractor)
    )
    return CellPlan(
        cell=cell,
        detectors=detectors,
        splits=experiment.splits,
        seed=experiment.seed,
        resamples=experiment.bootstrap_resamples,
    )


def cell_results(plans: Sequence[CellPlan]) -> list[Ref]:
    """Results of some cells: all scores first, then all evaluations, so that both run side by side."""
    submitted: dict[tuple[str, str], Any] = {}

    def score(detector: Detector, features: tuple[Ref, ...], cell: Cell, splits: Splits) -> Any:
        """A future of scores; the uncompressed ones serve every quality of their resolution."""
        key = (detector.model.digest, cell.name)
        if key not in submitted:
            submitted[key] = score_view.submit(
                head=detector.head, model=detector.model, features=features, view=cell.fair_view, splits=splits
            )
        return submitted[key]

    waiting = [
        [
            (
                score(detector, detector.features, plan.cell, plan.splits),
                score(
                    detector,
                    detector.reference or detector.features,
                    Cell(resolution=plan.cell.resolution) if detector.reference else plan.cell,
                    plan.splits,
                ),
            )
            for detector in plan.detectors
        ]
        for plan in plans
    ]
    evaluations = []
    for plan, futures in zip(plans, waiting, strict=True):
        scores = collect(own for own, _ in futures)
        references = collect(reference for _, reference in futures)
        evaluations.append(
            evaluate_cell_scores.submit(
                cell=plan.cell,
                protocol="fair",
                scores=tuple(scores),
                references=tuple(references),
                mixes=tuple(detector.mixes for detector in plan.detectors),
                seed=plan.seed,
                resamples=plan.resamples,
            )
        )
    return collect(evaluations)


@flow(
    name="evaluate-cell",
    flow_run_name="evaluate {cell}",
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def evaluate_cell(plan: str, cell: str) -> None:
    """Score and evaluate one cell of the grid. `evaluate/all` starts one of these for every unfinished cell.

    Args:
        plan: place of the cell's plan in the store, as `evaluate/all` wrote it.
        cell: the cell's name, such as 64/q20; it must be the plan's.
    """
    Cell.parse(cell)
    found = read_plan(open_store(), plan)
    mended(lambda: cell_results([found]))
