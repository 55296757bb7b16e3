"""What a person looks at: small pictures of all that is tested, with what every detector said of them."""

from collections.abc import Mapping, Sequence

from flows.cells import WHOLE, CellResults
from flows.collect import collect
from flows.detectors import Scores
from flows.embed import Features
from flows.histories import Pictures
from flows.networks import Networks
from storage.objects import Ref
from tasks.evaluation.protocols import detectors_of, mixes_of, smallest_resolution, training_view
from tasks.explorer.pictures import ShownScores, ShownSource
from tasks.explorer.run import write_explorer
from tasks.explorer.thumbnails import make_thumbnails
from tasks.explorer.views import ViewedNetwork, ViewedSource, make_shown_views
from tasks.spec.experiment import Experiment
from tasks.spec.views import Cell


def explorer(
    experiment: Experiment,
    brought: Mapping[str, Pictures],
    networks: Networks,
    scores: Scores,
    cells: Sequence[CellResults],
    features: Features,
) -> Ref:
    """The explorer's data and the table of pictures, of an experiment's pictures, networks, scores and features."""
    sources, said = _sources(experiment, brought), _said(experiment, scores)
    view = (Cell(resolution=smallest_resolution(experiment)).view(experiment.path),)
    ref: Ref = write_explorer(
        experiment=experiment.name,
        path=experiment.path,
        cells=experiment.cells,
        said=said,
        sources=sources,
        mixes=mixes_of(experiment, WHOLE),
        pairs=tuple(cell.pairs for cell in cells),
        extractor=features.extractor,
        features=features.of(tuple(source.name for source in sources), features.extractor, view),
        seed=experiment.seed,
        views=_views(experiment, brought, networks, said, sources),
    )
    return ref


def _views(
    experiment: Experiment,
    brought: Mapping[str, Pictures],
    networks: Networks,
    said: tuple[ShownScores, ...],
    sources: tuple[ShownSource, ...],
) -> Ref:
    """What detectors were shown of the surest mistakes, and where the networks look that know everything."""
    whole = {variant.fit.detector: refs for variant, refs in networks.exported.items() if variant.fit.is_whole}
    ref: Ref = make_shown_views(
        experiment=experiment.name,
        said=said,
        sources=tuple(
            ViewedSource(
                name=one.name,
                images=brought[one.name].shards,
                thumbnails=one.thumbnails,
                canonical=brought[one.name].canonical,
            )
            for one in sources
        ),
        cells=experiment.cells,
        path=experiment.path,
        networks=tuple(ViewedNetwork(detector=name, models=models) for name, models in whole.items()),
        trained_in=training_view(experiment),
    )
    return ref


def _sources(experiment: Experiment, brought: Mapping[str, Pictures]) -> tuple[ShownSource, ...]:
    """What rows are called, photographs first; versions of a photograph have its thumbnail."""
    of = {
        name: real for real in experiment.real_names for name in experiment.photographs(experiment.fake_names, (real,))
    }
    shards = {real: brought[name].shards for name, real in of.items()}
    shards |= {name: brought[name].shards for name in experiment.fake_names}
    making = {
        name: [make_thumbnails.submit(images=images, source=name, shard=index) for index, images in enumerate(refs)]
        for name, refs in shards.items()
    }
    made = {name: tuple(collect(waiting)) for name, waiting in making.items()}
    photographs = [ShownSource(name=name, of=real, label=0, thumbnails=made[real]) for name, real in of.items()]
    fakes = [ShownSource(name=name, of=name, label=1, thumbnails=made[name]) for name in experiment.fake_names]
    return (*photographs, *fakes)


def _said(experiment: Experiment, scores: Scores) -> tuple[ShownScores, ...]:
    """What every detector and probe says as it was fitted on everything."""
    titles = {one.name: one.title for one in detectors_of(experiment)}
    return tuple(
        ShownScores(
            detector=entry.fit.detector,
            title=titles.get(entry.fit.detector, entry.fit.detector),
            role=entry.fit.role,
            cell=entry.cell,
            scores=scores.of[entry.fit, entry.cell],
            reference=scores.of[entry.fit, entry.reference],
        )
        for entry in scores.entries
        if entry.evaluated and entry.fit.is_whole
    )
