"""The main line: everything that is missing, the fan-out over cells, the first project's table, the report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow

from flows.audit import audits
from flows.cells import cell_results
from flows.collect import collect
from flows.compared import Compared, pictures_read
from flows.detectors import Scores, detector_scores, fitted_models
from flows.dispatch import Dispatch, computed
from flows.embed import Features, feature_shards
from flows.explorer import explorer
from flows.generate import generated
from flows.histories import counted_encodings, history_control, pictures_by_source
from flows.names import Request, run_name
from flows.networks import (
    NetworkResults,
    Networks,
    exported_networks,
    network_inputs,
    network_results,
    trained_networks,
    unseen_scores,
    with_keyed_weights,
)
from flows.publish import publish
from flows.runner import attempt, tasks_side_by_side
from flows.shard import Images, image_shards
from storage.objects import Ref
from tasks.data.sources.kinds import Source
from tasks.detectors.base import Inputs
from tasks.detectors.linear import score_view
from tasks.evaluation.cells import ScoredRow, evaluate_stage
from tasks.evaluation.examples import example_pictures
from tasks.evaluation.protocols import (
    AS_IS,
    HISTORY_CONTROL,
    Scoring,
    detectors_of,
    grid_of,
    networks_of,
    smallest_resolution,
    stage_rows,
)
from tasks.evaluation.quality import measure_quality
from tasks.report.counts import count_images
from tasks.report.run import write_report
from tasks.spec.base import Spec
from tasks.spec.experiment import Experiment
from tasks.spec.views import Cell, View


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: its report, the results that are its content, and the networks that are given away.

    `explorer` is every tested picture with what was said of it.
    """

    report: Ref
    explorer: Ref
    results: tuple[Ref, ...]
    networks: dict[str, tuple[Ref, Ref]]


@flow(
    name="evaluate",
    flow_run_name=run_name("evaluate"),
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
        dispatch: `inline` runs everything here; `pools` spreads it over all workers of the cpu and gpu pools.

    Returns:
        The run's place in the store: `runs/evaluate/<run>`.
    """
    with attempt():
        spec, evaluation = computed(Request("evaluate", experiment, overrides, seed), dispatch, evaluation_of)
        return publish(spec, evaluation.report, evaluation.explorer, evaluation.results, evaluation.networks)


def evaluation_of(experiment: Experiment) -> Evaluation:
    """Everything of an experiment, from photographs to the report."""
    images = image_shards(experiment)
    made = generated(experiment, images)
    shards = images.shards | made.shards
    counted = counted_encodings(experiment, shards)
    brought = pictures_by_source(experiment, images, shards, counted)
    features = feature_shards(experiment, brought)
    models = fitted_models(experiment, features)
    detectors = detectors_of(experiment)
    pictures = pictures_read(experiment, detectors, brought)
    networks = _networks(experiment, pictures, features, models)
    inputs = replace(network_inputs(pictures, networks), features=features.of, models=models)
    scores = detector_scores(detectors, grid_of(experiment, features.keyed), inputs)
    found = _network_results(experiment, pictures, networks, scores)
    cells = cell_results(experiment, experiment.cells, scores)
    evaluations = (
        *(cell.evaluation for cell in cells),
        *_beside(experiment, images, shards, counted, inputs),
        *audits(experiment, images, shards, counted, scores),
    )
    stages, controls = _protocols(experiment, features, models), _controls(experiment, features)
    report = write_report(
        experiment=with_keyed_weights(experiment),
        cells=evaluations,
        stages=tuple(stages),
        controls=tuple(controls),
        quality=tuple(_quality(experiment, features)),
        examples=_examples(experiment, images, shards),
        counts=_counts(experiment, images, shards, features, counted),
        gans=tuple(made.weights.values()),
        diffused=tuple(ref for name, refs in made.shards.items() if name not in made.weights for ref in refs),
        heads=tuple(models.values()),
        assignment=images.assignment,
        features=tuple(dict.fromkeys(ref for refs in features.shards.values() for ref in refs)),
        pairs=tuple(cell.pairs for cell in cells),
        scored=tuple(one for cell in cells for one in cell.scored if one.fit.is_whole and one.fit.role == "detector"),
        comparisons=tuple(cell.comparison for cell in cells if cell.comparison is not None),
        described=found.described,
        latency=found.latency,
        rejections=found.rejections,
        trained=tuple(dict.fromkeys(ref for refs in networks.trained.values() for ref in refs)),
    )
    shown = explorer(experiment, brought, networks, scores, cells, features)
    return Evaluation(report, shown, (*evaluations, *stages, *controls), found.published)


def _beside(
    experiment: Experiment,
    images: Images,
    shards: dict[str, tuple[Ref, ...]],
    counted: Mapping[str, Ref],
    inputs: Inputs,
) -> Iterator[Ref]:
    """What stands beside results with matched histories: those with every picture's own, and those of the control."""
    if not experiment.matches_history:
        return
    as_is = experiment.uncompressed().model_copy(update={"history": "as-is"})
    if all(one.role != "detector" for one in as_is.detectors):
        return
    found = Compared.of(as_is, pictures_by_source(as_is, images, shards, {}))
    yield from found.results(AS_IS)
    control = history_control(experiment, images, shards, counted)
    if control is not None:
        found = Compared.of(*control, networks_of(experiment))
        yield from found.results(HISTORY_CONTROL)
        yield from found.applied(experiment, inputs)


def _networks(
    experiment: Experiment,
    pictures: dict[str, tuple[Ref, ...]],
    features: Features,
    models: Mapping[Spec, Ref],
) -> Networks:
    """Networks for a phone, trained, compressed and exported; none where the experiment has none."""
    return exported_networks(experiment, pictures, trained_networks(experiment, pictures, features, models))


def _network_results(
    experiment: Experiment, pictures: dict[str, tuple[Ref, ...]], networks: Networks, scores: Scores
) -> NetworkResults:
    if experiment.mobile is None:
        return NetworkResults.none()
    return network_results(experiment, networks, scores, unseen_scores(experiment, pictures, networks))


def _protocols(experiment: Experiment, features: Features, models: Mapping[Spec, Ref]) -> list[Ref]:
    """The first project's rows at every stage of the ablation."""
    rows = stage_rows(experiment, features.extractor)
    wanted: dict[Scoring, Any] = {}
    for row in rows:
        for scoring in (row.real, row.fake, row.reference):
            if scoring is not None and scoring not in wanted:
                wanted[scoring] = score_view.submit(
                    fit=scoring.head.fit,
                    head=scoring.head,
                    model=models[scoring.head],
                    features=features.of(scoring.sources, scoring.extractor, (scoring.view,)),
                    view=scoring.view,
                    splits=experiment.splits,
                )
    scores = dict(zip(wanted, collect(wanted.values()), strict=True))
    stages = []
    for stage in dict.fromkeys(row.stage for row in rows):
        scored = tuple(
            ScoredRow(
                row=row,
                real=scores[row.real],
                fake=scores[row.fake],
                reference=scores[row.reference] if row.reference else None,
            )
            for row in rows
            if row.stage == stage
        )
        stages.append(
            evaluate_stage.submit(
                stage=stage,
                rows=scored,
                seed=experiment.seed,
                resamples=experiment.bootstrap_resamples,
            )
        )
    return collect(stages)


def _controls(experiment: Experiment, features: Features) -> list[Ref]:
    """The controls with shuffled labels of the detectors that have one, where no source is enlarged."""
    cell, grid = Cell(resolution=smallest_resolution(experiment)), grid_of(experiment, features.keyed)
    inputs = Inputs(features=features.of, pictures={}, models={}, networks={})
    repeats, seed = experiment.control_repeats, experiment.seed
    asked = [one for one in detectors_of(experiment) if one.role == "detector"]
    futures = [one.control(cell, grid, inputs, repeats, seed) for one in asked]
    return collect([future for future in futures if future is not None])


def _quality(experiment: Experiment, features: Features) -> list[Ref]:
    futures = []
    for resolution in experiment.resolutions:
        cell = Cell(resolution=resolution)
        view = (cell.view(experiment.path),)
        futures += [
            measure_quality.submit(
                source=fake,
                cell=cell,
                layer=features.extractor.layer,
                real=features.of(experiment.photographs((fake,)), features.extractor, view),
                fake=features.of((fake,), features.extractor, view),
                inception_real=features.of(experiment.photographs((fake,)), features.inception, view)
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
    views: tuple[View, ...] = tuple(cell.view(experiment.path) for cell in experiment.cells)
    ref: Ref = example_pictures(
        sources=sources,
        shards=tuple(shards[source][0] for source in sources),
        views=views,
        canonical=images.canonical,
        seed=experiment.seed,
    )
    return ref


def _counts(
    experiment: Experiment,
    images: Images,
    shards: dict[str, tuple[Ref, ...]],
    features: Features,
    counted: Mapping[str, Ref],
) -> Ref:
    view = (Cell(resolution=smallest_resolution(experiment)).view(experiment.path),)

    def rows_of(source: Source) -> tuple[str, ...]:
        """What a source's rows are called; photographs that stand against several generators are counted once."""
        if source.label == "fake":
            return (source.name,)
        return experiment.photographs(experiment.fake_names[:1], (source.name,))

    ref: Ref = count_images(
        sources=tuple(source.name for source in experiment.sources),
        labels=tuple(source.label for source in experiment.sources),
        shards=tuple(shards[source.name] for source in experiment.sources),
        features=tuple(
            features.of(rows_of(source), features.extractor, view) if source.evaluated else ()
            for source in experiment.sources
        ),
        entries=tuple(images.indexed.get(source.name, ()) for source in experiment.sources),
        assignment=images.assignment,
        unseen_assignment=images.unseen_assignment,
        # What a run makes itself was nothing before.
        encodings=tuple(
            (counted[source.name],) if source.name in counted and source.name in images.indexed else ()
            for source in experiment.sources
        ),
    )
    return ref
