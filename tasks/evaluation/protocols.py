"""Which heads an experiment fits, which scores it needs, and the first project's way of comparing, defect by defect."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from tasks.data.perturbations.jpeg import jpeg
from tasks.detectors.base import DetectorBase, Grid
from tasks.features.base import ExtractorBase
from tasks.features.kinds import ExtractorSpec
from tasks.features.vgg16 import Vgg16Spec
from tasks.networks.detector import MobileNet
from tasks.networks.variants import Variant, svm_teaches, variants
from tasks.spec.base import Spec
from tasks.spec.detectors import SVM_TEACHER, Fit, HeadSpec, SvmSpec
from tasks.spec.experiment import Experiment, Mix, SeedProtocol
from tasks.spec.views import Cell, Resolution, View

SEED_SVM = SvmSpec(c_values=(1.0,), standardise=False, calibrate=False)
# Gives an extractor that an experiment names with its weights named by digest.
Keyed = Callable[[ExtractorBase], ExtractorBase]
# The first project saved the photographs of its compressed rows at this quality.
PHOTOGRAPH_QUALITY = 100

# What results are called of pictures that keep their own history, beside those that take one of both classes.
AS_IS = "as-is"
# And of the same photographs, encoded once and twice: what is told there is history.
HISTORY_CONTROL = "history-control"
# The same, by the detectors as they are fitted on photographs and generated pictures.
APPLIED_CONTROL = "history-control-applied"

SeedMix = Literal["gan", "stable", "combined"]


class SeedRow(Spec):
    """One row of the first project's table."""

    mix: SeedMix
    cell: Cell


SEED_ROWS: tuple[SeedRow, ...] = (
    SeedRow(mix="gan", cell=Cell(resolution=256)),
    SeedRow(mix="stable", cell=Cell(resolution=256)),
    SeedRow(mix="gan", cell=Cell(resolution=64)),
    SeedRow(mix="stable", cell=Cell(resolution=64)),
    SeedRow(mix="combined", cell=Cell(resolution=64, perturbation=jpeg(20))),
    SeedRow(mix="combined", cell=Cell(resolution=64, perturbation=jpeg(40))),
    SeedRow(mix="combined", cell=Cell(resolution=64, perturbation=jpeg(60))),
    SeedRow(mix="combined", cell=Cell(resolution=64)),
    SeedRow(mix="gan", cell=Cell(resolution="native")),
    SeedRow(mix="stable", cell=Cell(resolution="native")),
)


class Stage(Spec):
    """One stage of the ablation: the switches of the first project's defects, off one after the other."""

    name: str
    title: str
    sentence: str
    stable_64_reads_gan: bool = True
    head_of_64_from_256: bool = True
    test_at_own_size: bool = True
    fakes_only_compressed: bool = True
    path: Literal["raw", "fair"] = "raw"
    first_projects_svm: bool = True


STAGES: tuple[Stage, ...] = (
    Stage(
        name="ablation-0",
        title="seed protocol",
        sentence="Everything as the first project did it.",
    ),
    Stage(
        name="ablation-1",
        title="own folder for Stable 64x64",
        sentence="The Stable 64x64 row reads Stable Diffusion's pictures instead of the GAN's.",
        stable_64_reads_gan=False,
    ),
    Stage(
        name="ablation-2",
        title="own head for 64x64",
        sentence="The SVM of the 64x64 rows is fitted on 64x64 features instead of 256x256 ones.",
        stable_64_reads_gan=False,
        head_of_64_from_256=False,
    ),
    Stage(
        name="ablation-3",
        title="same input side in testing",
        sentence="Test pictures enter the network at the side at which training pictures did.",
        stable_64_reads_gan=False,
        head_of_64_from_256=False,
        test_at_own_size=False,
    ),
    Stage(
        name="ablation-4",
        title="both classes compressed",
        sentence="In compressed rows photographs are encoded at the same quality as fakes instead of at 100.",
        stable_64_reads_gan=False,
        head_of_64_from_256=False,
        test_at_own_size=False,
        fakes_only_compressed=False,
    ),
    Stage(
        name="ablation-5",
        title="fair path",
        sentence="Both classes are cropped, brought to one size and encoded once before the view is made.",
        stable_64_reads_gan=False,
        head_of_64_from_256=False,
        test_at_own_size=False,
        fakes_only_compressed=False,
        path="fair",
    ),
    Stage(
        name="ablation-6",
        title="validated head: the fair number",
        sentence="The grid's own head: features scaled, C and threshold chosen on val, all sources in training.",
        stable_64_reads_gan=False,
        head_of_64_from_256=False,
        test_at_own_size=False,
        fakes_only_compressed=False,
        path="fair",
        first_projects_svm=False,
    ),
)


class Scoring(Spec):
    """Scores that the first project's table needs: a head on a view of some sources, with features of an extractor."""

    head: HeadSpec
    extractor: ExtractorSpec
    view: View
    sources: tuple[str, ...]


class StageRow(Spec):
    """One row of the table at one stage: where its scores of photographs and of fakes come from."""

    row: SeedRow
    stage: Stage
    real: Scoring
    fake: Scoring
    reference: Scoring | None  # the uncompressed scores whose val rows give the threshold; None: decision > 0


def grid_of(experiment: Experiment, keyed: Keyed) -> Grid:
    """What an experiment asks of its detectors."""
    return Grid(
        photographs=experiment.photographs,
        real=experiment.real_names,
        tested_apart=tuple(
            name for name in experiment.real_names if any(mix.real == (name,) for mix in experiment.all_mixes)
        ),
        fakes=experiment.fake_names,
        families=experiment.all_families,
        path=experiment.path,
        cells=experiment.cells,
        splits=experiment.splits,
        augmented=tuple(jpeg(quality) for quality in experiment.augmented_qualities),
        extractor=keyed(experiment.extractor),
        svm=experiment.svm,
        keyed=keyed,
    )


def detectors_of(experiment: Experiment) -> tuple[DetectorBase, ...]:
    """Everything that an experiment evaluates: its detectors, and its networks after them."""
    return (*experiment.all_detectors, *networks_of(experiment))


def networks_of(experiment: Experiment) -> tuple[MobileNet, ...]:
    """The networks of an experiment, each with all its fits."""
    first = Cell(resolution=training_view(experiment).resolution)
    networks: dict[str, list[Variant]] = {}
    for variant in variants(experiment):
        networks.setdefault(variant.base, []).append(variant)
    windows = 1 if experiment.mobile is None else experiment.mobile.windows
    return tuple(
        MobileNet(name=base, variants=tuple(of), first=first, windows=windows) for base, of in networks.items()
    )


def mixes_of(experiment: Experiment, fit: Fit) -> tuple[Mix, ...]:
    """The mixes on which a fit is evaluated: one that knows a single generator meets single ones, as pairs.

    One that does not know a family of generators, or a source of photographs, meets the mixes that have nothing else
    on that side. Their photographs are named as rows are.
    """
    mixes = [mix for mix in experiment.all_mixes if fit.fitted_on is None or len(mix.fakes) == 1]
    if fit.without is not None:
        family = experiment.all_families.get(fit.without, ())
        mixes = [mix for mix in mixes if set(mix.fakes) <= set(family) or mix.real == (fit.without,)]
    return tuple(_with_versions(experiment, mix) for mix in mixes)


def _with_versions(experiment: Experiment, mix: Mix) -> Mix:
    if not experiment.matches_history:
        return mix
    versions = tuple(experiment.photographs((fake,), mix.real) for fake in mix.fakes)
    return mix.model_copy(update={"real": tuple(itertools.chain.from_iterable(versions)), "versions": versions})


def svm_head(experiment: Experiment, resolution: Resolution, extractor: Vgg16Spec) -> HeadSpec:
    """The experiment's own SVM of a resolution: fitted on its uncompressed view, on all sources."""
    return HeadSpec(
        fit=Fit(detector=SVM_TEACHER),
        extractor=extractor,
        views=(Cell(resolution=resolution).view(experiment.path),),
        real=experiment.photographs(experiment.fake_names),
        fakes=experiment.fake_names,
        svm=experiment.svm,
    )


def seed_head(
    roles: SeedProtocol, path: Literal["raw", "fair"], resolution: Resolution, extractor: Vgg16Spec
) -> HeadSpec:
    """The first project's SVM of a resolution, on a path: C = 1, unscaled, on photographs and both generators."""
    return HeadSpec(
        fit=Fit(detector=SVM_TEACHER),
        extractor=extractor,
        views=(View(path=path, resolution=resolution),),
        real=(roles.real,),
        fakes=tuple(dict.fromkeys((roles.gan, roles.stable))),
        svm=SEED_SVM,
    )


def training_view(experiment: Experiment) -> View:
    """The view that networks are trained, calibrated and validated in: native, else the largest, uncompressed."""
    sides: list[int] = [side for side in experiment.resolutions if side != "native"]
    return Cell(resolution="native" if "native" in experiment.resolutions else max(sides)).view(experiment.path)


def stage_rows(experiment: Experiment, extractor: Vgg16Spec) -> tuple[StageRow, ...]:
    """The first project's ten rows at every stage; none where the experiment has no seed protocol.

    Rows whose resolution the experiment does not have are left out, as their last stage needs the grid's own head.
    """
    roles = experiment.seed_protocol
    if roles is None:
        return ()
    rows = [row for row in seed_rows(roles) if row.cell.resolution in (*experiment.resolutions, "native")]
    return tuple(_stage_row(experiment, roles, extractor, row, stage) for stage in STAGES for row in rows)


def seed_rows(roles: SeedProtocol) -> tuple[SeedRow, ...]:
    """The first project's rows, compressed ones at the qualities that the protocol names."""
    kept = [row for row in SEED_ROWS if row.cell.jpeg_quality in (None, *roles.qualities)]
    known = {row.cell.jpeg_quality for row in kept}
    further = [quality for quality in dict.fromkeys(roles.qualities) if quality not in known]
    return (*kept, *(SeedRow(mix="combined", cell=Cell(resolution=64, perturbation=jpeg(q))) for q in further))


def _stage_row(
    experiment: Experiment, roles: SeedProtocol, extractor: Vgg16Spec, row: SeedRow, stage: Stage
) -> StageRow:
    resolution, quality = row.cell.resolution, row.cell.jpeg_quality
    fakes = {"gan": (roles.gan,), "stable": (roles.stable,), "combined": (roles.gan, roles.stable)}[row.mix]
    if stage.stable_64_reads_gan and row.mix == "stable" and resolution == 64:
        fakes = (roles.gan,)
    fitted_at: Resolution = 256 if stage.head_of_64_from_256 and resolution == 64 else resolution
    if stage.first_projects_svm:
        head = seed_head(roles, stage.path, fitted_at, extractor)
        reference = None
    else:
        head = svm_head(experiment, resolution, extractor)
        reference = Scoring(
            head=head,
            extractor=extractor,
            view=View(path="fair", resolution=resolution),
            sources=(*experiment.real_names, *experiment.fake_names),
        )
    tested_by = extractor.model_copy(update={"side": None}) if stage.test_at_own_size else extractor
    real_quality = PHOTOGRAPH_QUALITY if quality is not None and stage.fakes_only_compressed else quality

    def scoring(sources: tuple[str, ...], at_quality: int | None) -> Scoring:
        view = View(path=stage.path, resolution=resolution, perturbation=jpeg(at_quality))
        return Scoring(head=head, extractor=tested_by, view=view, sources=sources)

    return StageRow(
        row=row,
        stage=stage,
        real=scoring((roles.real,), real_quality),
        fake=scoring(fakes, quality),
        reference=reference,
    )


def further_heads(experiment: Experiment, extractor: Vgg16Spec) -> tuple[HeadSpec, ...]:
    """The heads that are needed whichever detectors there are: for the first project's table, and as a teacher."""
    heads = [row.real.head for row in stage_rows(experiment, extractor)]
    if svm_teaches(experiment):
        heads.append(svm_head(experiment, training_view(experiment).resolution, extractor))
    return tuple(dict.fromkeys(heads))


def smallest_resolution(experiment: Experiment) -> Resolution:
    """The resolution at which no source is enlarged, as far as the grid has one."""
    return min(experiment.resolutions, key=lambda r: experiment.canonical_side if r == "native" else r)


def needed_features(
    experiment: Experiment, keyed: Keyed, measuring: Sequence[ExtractorSpec]
) -> dict[tuple[str, ExtractorSpec], tuple[View, ...]]:
    """All features that an experiment needs: per source and extractor, the views.

    On those of the extractors `measuring` it is measured how far fakes are from photographs, whatever detectors read.
    """
    needed: dict[tuple[str, ExtractorSpec], dict[View, None]] = {}

    def note(extractor_: ExtractorSpec, views: tuple[View, ...], sources: tuple[str, ...]) -> None:
        for source in sources:
            needed.setdefault((source, extractor_), {}).update(dict.fromkeys(views))

    grid, extractor = grid_of(experiment, keyed), keyed(experiment.extractor)
    assert isinstance(extractor, Vgg16Spec)
    for detector in detectors_of(experiment):
        for entry in detector.entries(grid):
            for needs in detector.features(entry, grid):
                note(*needs)
    for scoring in _scorings(experiment, extractor):
        note(scoring.extractor, (scoring.view,), scoring.sources)
    for head in further_heads(experiment, extractor):
        note(head.extractor, head.views, (*head.real, *head.fakes))
    uncompressed = tuple(Cell(resolution=resolution).view(experiment.path) for resolution in experiment.resolutions)
    for measured in measuring:
        note(measured, uncompressed, (*experiment.photographs(experiment.fake_names), *experiment.fake_names))
    return {key: tuple(views) for key, views in needed.items()}


def _scorings(experiment: Experiment, extractor: Vgg16Spec) -> Iterator[Scoring]:
    """All scores that the first project's table needs."""
    for row in stage_rows(experiment, extractor):
        yield from (row.real, row.fake, *([row.reference] if row.reference else []))
