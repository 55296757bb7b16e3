"""Networks for a phone: trained, compressed, exported, and scored over all views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.detectors import Scores, detector_scores, fitted_models
from flows.embed import Features, feature_shards
from flows.histories import Pictures, all_pictures
from flows.stages import stage
from storage.errors import SpecError
from storage.objects import Ref
from tasks.data.canonical import canonical_pictures, cropped_pictures
from tasks.detectors.base import Inputs
from tasks.evaluation.cards import PUBLISHED_ROTATION, ScoredCell, complete_card
from tasks.evaluation.comparison import DescribedNetwork, describe_networks
from tasks.evaluation.protocols import grid_of, networks_of, svm_head, training_view
from tasks.evaluation.rejection import evaluate_rejection
from tasks.features.kinds import ExtractorSpec
from tasks.networks.distillation import distil
from tasks.networks.export import export_network
from tasks.networks.latency import measure_latency
from tasks.networks.mobilenet import Setting, train_mobilenet
from tasks.networks.mobilenet_weights import import_mobilenet, keyed_mobilenet
from tasks.networks.pruning import prune_magnitude, prune_structure
from tasks.networks.quantization import quantize_network
from tasks.networks.residual import train_residual
from tasks.networks.scoring import gather_scores, score_network
from tasks.networks.variants import (
    LEFT_OUT,
    Variant,
    origin,
    rejection_scenarios,
    svm_teaches,
    teachers,
    variants,
)
from tasks.recipe import chosen_device
from tasks.spec.base import Spec
from tasks.spec.detectors import (
    SVM_TEACHER,
    Distilled,
    FineTuned,
    MagnitudePruned,
    Quantized,
    Residual,
    StructurePruned,
)
from tasks.spec.experiment import Experiment
from tasks.spec.views import Cell, View

Shards = dict[str, tuple[Ref, ...]]

LATENCY_SIDES = (224, 512)
LATENCY_RUNS = 60


@dataclass(frozen=True)
class Networks:
    """Finished networks, one ref per rotation: weights (none of a quantized one) and exported files."""

    trained: dict[Variant, tuple[Ref, ...]]
    exported: dict[Variant, tuple[Ref, ...]]


@dataclass(frozen=True)
class NetworkResults:
    """What the report says of networks beside their cells, and what is given away: card and file of each."""

    networks: Networks
    described: Ref | None
    latency: Ref | None
    rejections: tuple[Ref, ...]
    published: dict[str, tuple[Ref, Ref]]

    @classmethod
    def none(cls) -> NetworkResults:
        """Those of an experiment without networks."""
        return cls(Networks({}, {}), None, None, (), {})


def setting_of(experiment: Experiment, variant: Variant, rotation: int) -> Setting:
    """What a training of one rotation needs beside pictures and specs."""
    first = training_view(experiment)
    # Only an augmented training sees the grid: to any other, one more quality is nothing new.
    training = getattr(variant.network, "training", None)
    augmented = training is not None and training.augmented
    of_cells = [cell.view(experiment.path) for cell in experiment.cells]
    others = [view for view in of_cells if view != first] if augmented else []
    return Setting(
        classes=variant.classes,
        rotation=rotation,
        splits=experiment.splits,
        views=(first, *others),
        device=chosen_device(),
        seed=variant.seed,
        windows=1 if experiment.mobile is None else experiment.mobile.windows,
    )


def canonical_shards(experiment: Experiment, pictures: Mapping[str, Pictures]) -> Shards:
    """Canonical pictures of every source that a network or another detector of pictures is trained or tested on."""
    sources = (*experiment.photographs(experiment.fake_names), *experiment.fake_names, *experiment.unseen_names)
    return canonical_by_source(experiment, {source: pictures[source] for source in sources})


def canonical_by_source(experiment: Experiment, pictures: Mapping[str, Pictures]) -> Shards:
    """Canonical pictures of all of these sources, or on the crop path what windows are cut from."""
    step = canonical_pictures if experiment.path == "fair" else cropped_pictures
    futures = {
        source: [
            step.submit(source=source, shard=index, **arguments) for index, arguments in enumerate(brought.each_shard)
        ]
        for source, brought in pictures.items()
    }
    return {source: tuple(collect(waiting)) for source, waiting in futures.items()}


def trained_networks(
    experiment: Experiment,
    pictures: Shards,
    features: Features | None,
    heads: Mapping[Spec, Ref],
    kinds: Callable[[Variant], bool] = lambda variant: True,
) -> dict[Variant, tuple[Ref, ...]]:
    """Weights of the networks of some kinds and of what they start from; all rotations of a wave side by side.

    `pictures` are the canonical ones, by source. `features` and `heads` are needed where the SVM is a teacher.
    """
    among = variants(experiment)
    trained: dict[Variant, tuple[Ref, ...]] = {}
    for wave in _waves(among, kinds):
        futures = {
            variant: [
                _submit(experiment, variant, rotation, among, trained, pictures, features, heads)
                for rotation in range(experiment.splits.rotations)
            ]
            for variant in wave
        }
        trained |= {variant: tuple(collect(waiting)) for variant, waiting in futures.items()}
    return trained


def exported_networks(experiment: Experiment, pictures: Shards, trained: dict[Variant, tuple[Ref, ...]]) -> Networks:
    """The exported file of every network and rotation; quantized ones are made here, from those of their origins."""
    among = variants(experiment)
    rotations = range(experiment.splits.rotations)
    futures = {
        variant: [export_network.submit(name=variant.fit, rotation=r, network=trained[variant][r]) for r in rotations]
        for variant in among
        if variant in trained
    }
    exported = {variant: tuple(collect(waiting)) for variant, waiting in futures.items()}
    quantized: dict[Variant, list[Any]] = {}
    for variant in among:
        if isinstance(variant.network, Quantized):
            start = _found(origin(variant, among), variant)
            quantized[variant] = [
                quantize_network.submit(
                    spec=variant.network,
                    exported=exported[start][rotation],
                    images=_pictures_of(experiment, variant, pictures),
                    rotation=rotation,
                    splits=experiment.splits,
                    views=(training_view(experiment),),
                )
                for rotation in rotations
            ]
    exported |= {variant: tuple(collect(waiting)) for variant, waiting in quantized.items()}
    return Networks(trained, {variant: exported[variant] for variant in among})


def network_scores(experiment: Experiment, pictures: Shards, networks: Networks) -> Scores:
    """Scores of every network: in all cells, or only in that of its training where others are compared with it."""
    return detector_scores(
        networks_of(experiment), grid_of(experiment, lambda named: named), network_inputs(pictures, networks)
    )


def network_inputs(pictures: Shards, networks: Networks) -> Inputs:
    """What networks read; they have no features, and nothing is fitted on them."""
    exported = {variant.fit: refs for variant, refs in networks.exported.items()}
    return Inputs(features=_no_features, pictures=pictures, models={}, networks=exported)


def _no_features(sources: tuple[str, ...], extractor: ExtractorSpec, views: tuple[View, ...]) -> tuple[Ref, ...]:
    raise SpecError(f"no features of {extractor.name} were computed")


def unseen_scores(experiment: Experiment, pictures: Shards, networks: Networks) -> dict[str, Ref]:
    """Scores of the first network on each source that none was trained on."""
    if not networks.exported:
        return {}
    assert experiment.mobile is not None
    known = next(iter(networks.exported))
    first = training_view(experiment).model_copy(update={"windows": experiment.mobile.windows})
    futures = {
        source: [
            score_network.submit(
                fit=known.fit,
                models=networks.exported[known],
                pictures=shard,
                views=(first,),
                val_views=(),
                splits=experiment.splits,
                unseen=True,
                source=source,
                shard=index,
            )
            for index, shard in enumerate(pictures[source])
        ]
        for source in experiment.unseen_names
    }
    gathered = {
        source: gather_scores.submit(fit=known.fit, view=first, scores=tuple(refs[0] for refs in collect(waiting)))
        for source, waiting in futures.items()
    }
    return dict(zip(gathered, collect(gathered.values()), strict=True))


def network_results(
    experiment: Experiment, networks: Networks, scores: Scores, unseen: Mapping[str, Ref]
) -> NetworkResults:
    """What the networks are and weigh, how fast they are, how well they reject, and their cards."""
    assert experiment.mobile is not None
    among = tuple(networks.exported)
    first = Cell(resolution=training_view(experiment).resolution)
    grid = [variant for variant in among if variant.fit.is_whole]
    named = [variant for variant in among if variant.absent is None]
    described = describe_networks.submit(
        networks=tuple(
            DescribedNetwork(
                variant=_keyed(variant),
                weights=networks.trained.get(variant, ()),
                exported=networks.exported[variant],
            )
            for variant in named
        )
    )
    rejections = _rejections(experiment, among, scores, unseen)
    cells = sorted(experiment.cells, key=lambda cell: cell != first)
    cards = {
        variant.base: complete_card.submit(
            name=variant.base,
            exported=networks.exported[variant][PUBLISHED_ROTATION],
            cells=tuple(ScoredCell(cell=cell, scores=scores.of[variant.fit, cell]) for cell in cells),
            rejection=experiment.mobile.rejection,
            sources={source.name: source.in_words for source in experiment.evaluated_sources},
            canonical_side=experiment.canonical_side,
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )
        for variant in grid
    }
    description, *done = collect([described, *rejections, *cards.values()])
    rejected, completed = done[: len(rejections)], done[len(rejections) :]
    # Alone, after everything else: what is measured here is time.
    latency = measure_latency(
        networks=tuple(variant.base for variant in grid),
        exported=tuple(networks.exported[variant][PUBLISHED_ROTATION] for variant in grid),
        eager=networks.trained[grid[0]][PUBLISHED_ROTATION],
        sides=LATENCY_SIDES,
        runs=LATENCY_RUNS,
    )
    published = {
        variant.base: (card, networks.exported[variant][PUBLISHED_ROTATION])
        for variant, card in zip(grid, completed, strict=True)
    }
    return NetworkResults(networks, description, latency, tuple(rejected), published)


def _rejections(
    experiment: Experiment, among: tuple[Variant, ...], scores: Scores, unseen: Mapping[str, Ref]
) -> list[Any]:
    """Futures of how well the first network rejects each source that it does not know."""
    assert experiment.mobile is not None
    first = Cell(resolution=training_view(experiment).resolution)
    return [
        evaluate_rejection.submit(
            scenario=f"{scenario} {source}",
            network=known.base,
            known=(scores.of[known.fit, first],),
            unknown=(scores.of[known.fit, first] if scenario == LEFT_OUT else unseen[source],),
            unknown_sources=experiment.all_families[source] if scenario == LEFT_OUT else (source,),
            classes=known.classes,
            score=experiment.mobile.rejection.score,
            kept=experiment.mobile.rejection.kept,
            bounds=experiment.mobile.rejection.bounds,
            seed=experiment.seed,
            resamples=experiment.bootstrap_resamples,
        )
        for scenario, source in rejection_scenarios(experiment)
        for known in [_rejecting(among, source if scenario == LEFT_OUT else None)]
    ]


def with_keyed_weights(experiment: Experiment) -> Experiment:
    """The experiment with its weights and detectors named by what they are, as a report tells of them.

    What is given away is no part of it: a licence in other words makes no other report.
    """
    networks = () if experiment.mobile is None else experiment.mobile.networks
    keyed = tuple(keyed_mobilenet(network) if isinstance(network, FineTuned) else network for network in networks)
    mobile = None if experiment.mobile is None else experiment.mobile.model_copy(update={"networks": keyed})
    detectors = tuple(detector.reported() for detector in experiment.detectors)
    update = {"extractor": experiment.extractor.keyed(), "detectors": detectors, "mobile": mobile, "published": None}
    return experiment.model_copy(update=update)


def _keyed(variant: Variant) -> Variant:
    if not isinstance(variant.network, FineTuned):
        return variant
    return variant.model_copy(update={"network": keyed_mobilenet(variant.network)})


def _rejecting(among: tuple[Variant, ...], absent: str | None) -> Variant:
    """The network whose rejection is tested: the first one, or the same without a generator."""
    return next(variant for variant in among if variant.absent == absent)


def _submit(
    experiment: Experiment,
    variant: Variant,
    rotation: int,
    among: tuple[Variant, ...],
    trained: dict[Variant, tuple[Ref, ...]],
    pictures: Shards,
    features: Features | None,
    heads: Mapping[Spec, Ref],
) -> Any:
    """The future of one network's weights."""
    network = variant.network
    setting = setting_of(experiment, variant, rotation)
    images = _pictures_of(experiment, variant, pictures)
    start = origin(variant, among)
    parent = trained[start][rotation] if start else None
    if isinstance(network, FineTuned):
        keyed = keyed_mobilenet(network)
        algorithm, _, digest = keyed.weights.partition(":")
        weights = import_mobilenet(sha256=digest, path=network.weights) if algorithm == "sha256" else None
        return train_mobilenet.submit(spec=keyed, setting=setting, images=images, weights=weights)
    if isinstance(network, Residual):
        return train_residual.submit(spec=network, setting=setting, images=images)
    if isinstance(network, MagnitudePruned):
        return prune_magnitude.submit(spec=network, setting=setting, images=images, network=parent)
    if isinstance(network, StructurePruned):
        return prune_structure.submit(spec=network, setting=setting, images=images, network=parent)
    assert isinstance(network, Distilled)
    svm: Ref | None = None
    svm_features: tuple[Ref, ...] = ()
    if variant.aided and SVM_TEACHER in network.teachers:
        svm, svm_features = _svm_teacher(experiment, features, heads)
    return distil.submit(
        spec=network,
        setting=setting,
        images=images,
        student=parent,
        teachers=tuple(trained[teacher][rotation] for teacher in teachers(variant, among)),
        svm=svm,
        svm_features=svm_features,
        aided=variant.aided,
    )


def _svm_teacher(
    experiment: Experiment, features: Features | None, heads: Mapping[Spec, Ref]
) -> tuple[Ref, tuple[Ref, ...]]:
    if features is None:
        raise SpecError("a student whose teacher is the SVM needs features")
    view = training_view(experiment)
    head = svm_head(experiment, view.resolution, features.extractor)
    return heads[head], features.of((*head.real, *head.fakes), head.extractor, (view,))


def _waves(among: tuple[Variant, ...], kinds: Callable[[Variant], bool]) -> list[list[Variant]]:
    """Networks to train, parents in earlier waves than their children; parents of wanted ones are wanted."""
    wanted: dict[Variant, int] = {}

    def depth(variant: Variant) -> int:
        parents = [*([start] if (start := origin(variant, among)) else []), *teachers(variant, among)]
        found = 1 + max((depth(parent) for parent in parents), default=-1)
        wanted[variant] = found
        return found

    for variant in among:
        if not isinstance(variant.network, Quantized) and kinds(variant):
            depth(variant)
    ordered = [variant for variant in among if variant in wanted]
    return [[one for one in ordered if wanted[one] == level] for level in range(max(wanted.values(), default=-1) + 1)]


def _found(variant: Variant | None, child: Variant) -> Variant:
    if variant is None:
        raise SpecError(f"{child.fit.label}: a {child.kind} network is made from another one, and names none")
    return variant


def _pictures_of(experiment: Experiment, variant: Variant, pictures: Shards) -> tuple[Ref, ...]:
    sources = (*experiment.photographs(variant.classes[1:]), *variant.classes[1:])
    return tuple(ref for source in sources for ref in pictures[source])


def is_fine_tuned(variant: Variant) -> bool:
    """Whether it is trained on its own; all others are compressed ones."""
    return isinstance(variant.network, FineTuned | Residual)


def _all_networks(experiment: Experiment) -> tuple[Shards, Networks]:
    brought = all_pictures(experiment)
    features = feature_shards(experiment, brought) if svm_teaches(experiment) else None
    heads = fitted_models(experiment, features) if features else {}
    pictures = canonical_shards(experiment, brought)
    trained = trained_networks(experiment, pictures, features, heads)
    return pictures, exported_networks(experiment, pictures, trained)


def _fine_tuned(experiment: Experiment) -> dict[Variant, tuple[Ref, ...]]:
    pictures = canonical_shards(experiment, all_pictures(experiment))
    return trained_networks(experiment, pictures, None, {}, is_fine_tuned)


def _scored_networks(experiment: Experiment) -> Scores:
    return network_scores(experiment, *_all_networks(experiment))


train_mobilenets = stage(
    "train",
    "train networks of",
    "Fine-tune the MobileNets of an experiment, one training per rotation; each resumes from its newest checkpoint.",
    _fine_tuned,
)


compress_mobilenets = stage(
    "compress",
    "compress networks of",
    "Prune, distil, quantize and export the MobileNets of an experiment.",
    _all_networks,
)


score_mobilenets = stage(
    "score",
    "score networks of",
    "Score the exported networks of an experiment in all views, through ONNX Runtime.",
    _scored_networks,
)
