"""The cells of the grid: every detector is scored in its view, then the scores are evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.embed import Features
from storage.objects import Ref
from tasks.evaluation.cells import CellPlan, Detector, ScoredNetwork, evaluate_cell_scores
from tasks.evaluation.comparison import compare_networks
from tasks.evaluation.protocols import cell_heads, mixes_of
from tasks.evaluation.scoring import score_view
from tasks.networks.variants import Variant, origin, variants
from tasks.spec.detectors import HeadSpec, ProbeSpec, Quantized
from tasks.spec.experiment import Experiment
from tasks.spec.splits import Splits
from tasks.spec.views import Cell, View


@dataclass(frozen=True)
class CellResults:
    """Results of one cell: of all detectors, and how its networks compare with the first of them."""

    evaluations: tuple[Ref, ...]
    comparison: Ref | None


def cell_plan(
    experiment: Experiment,
    cell: Cell,
    features: Features,
    heads: dict[HeadSpec, Ref],
    scores: dict[tuple[Variant, View], Ref],
) -> CellPlan:
    """Everything that a cell's evaluation reads, by ref: a worker elsewhere needs nothing else.

    `scores` are those of the networks, in all views.
    """
    sources = (*experiment.real_names, *experiment.fake_names)
    uncompressed: View = Cell(resolution=cell.resolution).fair_view
    detectors = tuple(
        Detector(
            head=head,
            model=heads[head],
            features=features.of(sources, head.extractor, (cell.fair_view,)),
            # The probe is fitted on the cell's own view, so its threshold comes from there too.
            reference=()
            if isinstance(head.extractor, ProbeSpec) or cell.perturbation is None
            else features.of(sources, head.extractor, (uncompressed,)),
            mixes=mixes_of(experiment, head),
        )
        for head in cell_heads(experiment, cell, features.extractor)
    )
    networks = tuple(
        ScoredNetwork(
            name=variant.name,
            seed=variant.seed,
            origin=_quantized_from(experiment, variant),
            scores=ref,
            reference=scores[variant, uncompressed],
        )
        for (variant, view), ref in scores.items()
        # Those that are scored in one view only are there to be compared, not to be detectors of the grid.
        if view == cell.fair_view and variant.absent is None
    )
    return CellPlan(
        cell=cell,
        detectors=detectors,
        networks=networks,
        classes=experiment.class_names if networks else (),
        mixes=experiment.all_mixes if networks else (),
        splits=experiment.splits,
        seed=experiment.seed,
        resamples=experiment.bootstrap_resamples,
    )


def _quantized_from(experiment: Experiment, variant: Variant) -> str | None:
    start = origin(variant, variants(experiment)) if isinstance(variant.network, Quantized) else None
    return None if start is None else start.name


def cell_results(plans: Sequence[CellPlan]) -> list[CellResults]:
    """Results of some cells: all scores first, then all evaluations, so that both run side by side."""
    networks = [_network_results(plan) for plan in plans]
    detectors = collect(_detector_results(plans))
    results = []
    for own, futures in zip(detectors, networks, strict=True):
        done = collect(futures)
        results.append(CellResults((own, *done[:1]), done[1] if done else None))
    return results


def _network_results(plan: CellPlan) -> list[Any]:
    """Futures of a cell's networks: their evaluation as detectors, and their comparison with the first."""
    if not plan.networks:
        return []
    grid = [network for network in plan.networks if not network.seed]
    return [
        evaluate_cell_scores.submit(
            cell=plan.cell,
            protocol="fair",
            scores=tuple(network.scores for network in grid),
            references=tuple(network.reference for network in grid),
            mixes=tuple(plan.mixes for _ in grid),
            seed=plan.seed,
            resamples=plan.resamples,
        ),
        compare_networks.submit(
            cell=plan.cell,
            first=plan.networks[0].name,
            networks=tuple(network.name for network in plan.networks),
            origins=tuple(network.origin for network in plan.networks),
            scores=tuple((network.scores,) for network in plan.networks),
            references=tuple((network.reference,) for network in plan.networks),
            classes=plan.classes,
            seed=plan.seed,
            resamples=plan.resamples,
        ),
    ]


def _detector_results(plans: Sequence[CellPlan]) -> list[Any]:
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
    return evaluations
