"""The main line: everything that is missing, the fan-out over cells, the first project's table, the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect import flow

from flows.collect import collect, mended
from flows.dispatch import Child, Dispatch, run_stage
from flows.embed import Features, feature_shards
from flows.evaluate_cell import CellResults, cell_plan, cell_results
from flows.generate import gan_shards, generators
from flows.networks import (
    NetworkResults,
    canonical_shards,
    exported_networks,
    is_fine_tuned,
    network_results,
    network_scores,
    trained_networks,
    with_keyed_weights,
)
from flows.preflight import POOLS, checked_experiment
from flows.publish import publish
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from flows.train import trained_heads
from storage.objects import Ref
from tasks.detectors.svm import shuffled_control
from tasks.detectors.variants import Variant
from tasks.evaluation.cells import evaluate_stage, plan_cell
from tasks.evaluation.counts import count_images
from tasks.evaluation.examples import example_pictures
from tasks.evaluation.protocols import Scoring, stage_rows, svm_head
from tasks.evaluation.quality import measure_quality
from tasks.evaluation.run_report import write_report
from tasks.evaluation.scoring import score_view
from tasks.progress import Progress
from tasks.spec import Cell, Experiment, HeadSpec, Resolution, View

T = TypeVar("T")

CONTROL_REPEATS = 20
STAGE_COUNT = 8
NETWORK_STAGES = 4  # more, where the experiment has networks


@dataclass
class _Run:
    """One evaluation: its experiment, how its stages are run, and how far it is."""

    experiment: Experiment
    dispatch: Dispatch
    parameters: dict[str, Any]
    progress: Progress

    def stage(self, compute: Callable[[], T], *deployments: str) -> T:
        """Run one stage; on pools, the named deployments make what is missing of it."""
        children = [
            Child(deployment, self.parameters, f"{deployment.split('/')[0]} {self.experiment.name}")
            for deployment in deployments
        ]
        made = run_stage(self.dispatch, compute, lambda: children)
        self.progress.advance()
        return made


@flow(
    name="evaluate",
    flow_run_name="evaluate {experiment}",
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def evaluate_all(
    experiment: str = "coco",
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
    dispatch: Dispatch = "inline",
) -> str:
    """Compute everything that is missing of an experiment, evaluate every cell, and write the report.

    Args:
        experiment: a preset's name (sample, seed, coco, subset) or a YAML file.
        overrides: values put over it, by dotted keys, such as {"sources.gan.count": 50}.
        seed: the experiment's seed, if another than the preset's.
        dispatch: `inline` runs everything here; `pools` runs stages as deployments on the cpu and gpu pools.

    Returns:
        The run's place in the store: `runs/evaluate/<run>`.
    """
    with attempt():
        spec = checked_experiment(experiment, overrides, seed, pools=POOLS if dispatch == "pools" else ())
        parameters = {"experiment": experiment, "overrides": overrides, "seed": seed}

        def stages_and_report() -> str:
            stages = STAGE_COUNT + (NETWORK_STAGES if spec.mobile else 0)
            progress = Progress(f"evaluate {spec.name}", stages, unit="stages", eager=True)
            return _evaluate(_Run(spec, dispatch, parameters, progress))

        return mended(stages_and_report)


def _evaluate(run: _Run) -> str:
    experiment = run.experiment
    images = run.stage(lambda: image_shards(experiment), *_deployments_of_sharding(experiment))
    weights, diffused = run.stage(lambda: generators(experiment, images), *_deployments_of_generators(experiment))
    gans = run.stage(lambda: gan_shards(experiment, weights), "generate/gan")
    shards = images.shards | gans | diffused
    features = run.stage(lambda: feature_shards(experiment, shards, images.canonical), "embed/vgg16")
    heads = run.stage(lambda: trained_heads(experiment, features), "train/svm")
    networks = _networks(run, images, shards, features, heads)
    cells = _cells(run, features, heads, networks.scores.of)
    evaluations = tuple(ref for cell in cells for ref in cell.evaluations)
    stages, control = _protocols(experiment, features, heads)
    run.progress.advance()
    report = write_report(
        experiment=with_keyed_weights(experiment),
        cells=evaluations,
        stages=tuple(stages),
        control=control,
        quality=tuple(_quality(experiment, features)),
        examples=_examples(experiment, images, shards),
        counts=_counts(experiment, images, shards, features),
        gans=tuple(weights.values()),
        diffused=tuple(ref for refs in diffused.values() for ref in refs),
        heads=tuple(heads.values()),
        assignment=images.assignment,
        features=tuple(dict.fromkeys(ref for refs in features.shards.values() for ref in refs)),
        comparisons=tuple(cell.comparison for cell in cells if cell.comparison is not None),
        described=networks.described,
        latency=networks.latency,
        rejections=networks.rejections,
        trained=tuple(dict.fromkeys(ref for refs in networks.networks.trained.values() for ref in refs)),
    )
    place = publish(experiment, report, (*evaluations, *stages, control), networks.published)
    run.progress.advance()
    return place


def _deployments_of_generators(experiment: Experiment) -> list[str]:
    kinds = {"gan": "train-gan/coco", "diffusion": "generate/stable-diffusion"}
    return list(dict.fromkeys(kinds[source.kind] for source in experiment.sources if source.kind in kinds))


def _deployments_of_sharding(experiment: Experiment) -> list[str]:
    kinds = {"coco": "shard/coco", "sample": "shard/coco", "folder": "shard/folder", "column": "shard/folder"}
    return list(dict.fromkeys(kinds[source.kind] for source in experiment.sources if source.kind in kinds))


def _networks(
    run: _Run, images: Images, shards: dict[str, tuple[Ref, ...]], features: Features, heads: dict[HeadSpec, Ref]
) -> NetworkResults:
    """Networks for a phone: trained, compressed and scored; nothing where the experiment has none."""
    experiment = run.experiment
    if experiment.mobile is None:
        return NetworkResults.none()

    # Made by the trainings' deployment as well: nothing else looks at them.
    pictures = run.stage(lambda: canonical_shards(experiment, images, shards), "train/mobilenet")

    def trained(kinds: Callable[[Variant], bool]) -> dict[Variant, tuple[Ref, ...]]:
        return trained_networks(experiment, pictures, features, heads, kinds)

    run.stage(lambda: trained(is_fine_tuned), "train/mobilenet")
    networks = run.stage(
        lambda: exported_networks(experiment, pictures, trained(lambda variant: True)), "compress/mobilenet"
    )
    scores = run.stage(lambda: network_scores(experiment, pictures, networks), "score/mobilenet")
    return network_results(experiment, networks, scores)


def _cells(
    run: _Run, features: Features, heads: dict[HeadSpec, Ref], scores: dict[tuple[Variant, View], Ref]
) -> list[CellResults]:
    """Results of all cells; on pools every unfinished cell is a run of `evaluate-cell/cpu`."""
    from storage.store import open_store
    from tasks.recipe import NotFinished, only_finished

    plans = [cell_plan(run.experiment, cell, features, heads, scores) for cell in run.experiment.cells]

    def unfinished() -> list[Child]:
        children = []
        for plan in plans:
            try:
                with only_finished():
                    cell_results([plan])
            except NotFinished:
                ref = plan_cell.compute(open_store(), plan=plan)[0]
                parameters = {"plan": ref.uri, "cell": plan.cell.name}
                children.append(Child("evaluate-cell/cpu", parameters, f"evaluate {plan.cell.name}"))
        return children

    results = run_stage(run.dispatch, lambda: cell_results(plans), unfinished)
    run.progress.advance()
    return results


def _protocols(experiment: Experiment, features: Features, heads: dict[HeadSpec, Ref]) -> tuple[list[Ref], Ref]:
    """The first project's rows at every stage of the ablation, and the control with shuffled labels."""
    rows = stage_rows(experiment, features.extractor)
    wanted: dict[Scoring, Any] = {}
    for row in rows:
        for scoring in (row.real, row.fake, row.reference):
            if scoring is not None and scoring not in wanted:
                wanted[scoring] = score_view.submit(
                    head=scoring.head,
                    model=heads[scoring.head],
                    features=features.of(scoring.sources, scoring.extractor, (scoring.view,)),
                    view=scoring.view,
                    splits=experiment.splits,
                )
    scores = dict(zip(wanted, collect(wanted.values()), strict=True))
    stages = []
    for stage in dict.fromkeys(row.stage for row in rows):
        chosen = tuple(row for row in rows if row.stage == stage)
        stages.append(
            evaluate_stage.submit(
                stage=stage,
                rows=chosen,
                real=tuple(scores[row.real] for row in chosen),
                fake=tuple(scores[row.fake] for row in chosen),
                reference=tuple(scores[row.reference] if row.reference else None for row in chosen),
                seed=experiment.seed,
                resamples=experiment.bootstrap_resamples,
            )
        )
    head = svm_head(experiment, _smallest(experiment), features.extractor)
    control = shuffled_control.submit(
        head=head,
        features=features.of((*head.real, *head.fakes), head.extractor, head.views),
        splits=experiment.splits,
        repeats=CONTROL_REPEATS,
        seed=experiment.seed,
    )
    done = collect([*stages, control])
    return done[:-1], done[-1]


def _smallest(experiment: Experiment) -> Resolution:
    """The resolution at which no source is enlarged, as far as the grid has one."""
    return min(experiment.resolutions, key=lambda r: experiment.canonical_side if r == "native" else r)


def _quality(experiment: Experiment, features: Features) -> list[Ref]:
    futures = []
    for resolution in experiment.resolutions:
        cell = Cell(resolution=resolution)
        view = (cell.fair_view,)
        futures += [
            measure_quality.submit(
                source=fake,
                cell=cell,
                layer=features.extractor.layer,
                real=features.of(experiment.real_names, features.extractor, view),
                fake=features.of((fake,), features.extractor, view),
                inception_real=features.of(experiment.real_names, features.inception, view)
                if features.inception
                else (),
                inception_fake=features.of((fake,), features.inception, view) if features.inception else (),
                inception_weights=features.inception.weights if features.inception else None,
                seed=experiment.seed,
            )
            for fake in experiment.fake_names
        ]
    return collect(futures)


def _examples(experiment: Experiment, images: Images, shards: dict[str, tuple[Ref, ...]]) -> Ref:
    sources = (*experiment.real_names, *experiment.fake_names)
    views: tuple[View, ...] = tuple(cell.fair_view for cell in experiment.cells)
    ref: Ref = example_pictures(
        sources=sources,
        shards=tuple(shards[source][0] for source in sources),
        views=views,
        canonical=images.canonical,
        seed=experiment.seed,
    )
    return ref


def _counts(experiment: Experiment, images: Images, shards: dict[str, tuple[Ref, ...]], features: Features) -> Ref:
    view = (Cell(resolution=_smallest(experiment)).fair_view,)
    ref: Ref = count_images(
        sources=tuple(source.name for source in experiment.sources),
        labels=tuple(source.label for source in experiment.sources),
        shards=tuple(shards[source.name] for source in experiment.sources),
        features=tuple(
            features.of((source.name,), features.extractor, view) if source.evaluated else ()
            for source in experiment.sources
        ),
        entries=tuple(images.indexed.get(source.name, ()) for source in experiment.sources),
        assignment=images.assignment,
        unseen_assignment=images.unseen_assignment,
    )
    return ref
