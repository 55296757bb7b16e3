"""The seed protocol's defects are switches: off one after the other, from the old table to the fair number."""

from tasks.detectors.base import Entry
from tasks.evaluation.protocols import (
    SEED_ROWS,
    STAGES,
    SeedRow,
    StageRow,
    detectors_of,
    grid_of,
    mixes_of,
    needed_features,
    stage_rows,
)
from tasks.features.base import ExtractorBase
from tasks.features.inception import InceptionSpec
from tasks.features.vgg16 import Vgg16Spec
from tasks.presets import parse_experiment
from tasks.report.reported import FIRST_PROJECT, read_reported
from tasks.spec.base import IN_A_RECIPE
from tasks.spec.detectors import Fit, HeadSpec
from tasks.spec.experiment import Experiment, SeedProtocol
from tasks.spec.views import Cell, View

EXTRACTOR = Vgg16Spec(weights="random:0")


def keyed(named: ExtractorBase) -> ExtractorBase:
    return EXTRACTOR if isinstance(named, Vgg16Spec) else named


def experiment(**changes: object) -> Experiment:
    return parse_experiment(
        {
            "name": "small",
            "sources": [
                {"kind": "coco", "name": "coco", "directory": "d"},
                {"kind": "folder", "name": "sd", "path": "p", "label": "fake"},
                {"kind": "gan", "name": "gan", "trained_on": "coco", "count": 10},
            ],
            "seed_protocol": {"real": "coco", "gan": "gan", "stable": "sd"},
        }
        | changes
    )


def find(mix: str, cell: str, stage: int) -> StageRow:
    rows = stage_rows(experiment(), EXTRACTOR)
    (row,) = [
        row for row in rows if row.row.mix == mix and row.row.cell == Cell.parse(cell) and row.stage == STAGES[stage]
    ]
    return row


def test_the_ten_rows_are_those_of_the_reported_table() -> None:
    reported = read_reported(FIRST_PROJECT)
    assert [
        (row.mix.replace("stable-diffusion", "stable"), str(row.resolution), row.jpeg_quality) for row in reported
    ] == [(row.mix, str(row.cell.resolution), row.cell.jpeg_quality) for row in SEED_ROWS]


def test_at_first_every_defect_is_there() -> None:
    stable = find("stable", "64/none", 0)
    assert stable.fake.sources == ("gan",)
    assert stable.real.head.views == (View(path="raw", resolution=256),)
    assert isinstance(stable.fake.extractor, Vgg16Spec)
    assert stable.fake.extractor.side is None
    compressed = find("combined", "64/q20", 0)
    assert (compressed.fake.view.jpeg_quality, compressed.real.view.jpeg_quality) == (20, 100)
    assert compressed.reference is None
    assert compressed.real.head.svm.c_values == (1.0,)


def test_each_stage_turns_one_switch_off_and_keeps_the_others_off() -> None:
    switches = [
        (
            stage.stable_64_reads_gan,
            stage.head_of_64_from_256,
            stage.test_at_own_size,
            stage.fakes_only_compressed,
            stage.path == "raw",
            stage.first_projects_svm,
        )
        for stage in STAGES
    ]
    for index, state in enumerate(switches):
        assert state == tuple(position >= index for position in range(6))


def entries(of: Experiment, cell: Cell) -> dict[str, tuple[Entry, HeadSpec]]:
    """By label what is scored in a cell, and the head that scores it."""
    grid = grid_of(of, keyed)
    found = [(entry, one.trains(entry, grid)) for one in detectors_of(of) for entry in one.entries(grid)]
    return {entry.fit.label: (entry, head) for entry, head in found if entry.cell == cell}  # type: ignore[misc]


def test_the_last_stage_is_the_grids_own_score() -> None:
    row = find("combined", "64/q20", 6)
    entry, head = entries(experiment(), Cell.parse("64/q20"))["svm"]
    assert row.fake.head == head
    assert row.fake.view == entry.cell.view("fair") == row.real.view
    assert row.reference is not None
    assert row.reference.view == entry.reference.view("fair") == View(path="fair", resolution=64)


def test_thresholds_of_compressed_cells_come_from_the_uncompressed_view() -> None:
    """Of every detector but the probe, which is fitted on the cell's own view."""
    found = {label: entry.reference.name for label, (entry, _) in entries(experiment(), Cell.parse("256/q40")).items()}
    assert found == {"svm": "256/none", "svm-aug": "256/none", "probe": "256/q40"}


def test_seeds_and_single_generators_are_fitted_for_uncompressed_cells() -> None:
    found = entries(experiment(), Cell.parse("64/none"))
    assert list(found) == ["svm", "svm-1", "svm-2", "svm-sd", "svm-gan", "svm-aug", "probe"]
    assert found["svm-2"][0].fit == Fit(detector="svm", seed=2)
    entry, head = found["svm-gan"]
    assert (entry.fit.fitted_on, head.fakes, head.real) == ("gan", ("gan",), ("coco",))
    assert [mix.name for mix in mixes_of(experiment(), entry.fit)] == ["sd", "gan"]
    assert [mix.name for mix in mixes_of(experiment(), found["svm-2"][0].fit)] == ["sd", "gan", "combined"]


def in_a_recipe(fit: Fit) -> object:
    return fit.model_dump(context=IN_A_RECIPE)


def test_recipes_have_a_fits_name_as_before_it_had_fields() -> None:
    heads = {label: head for label, (_, head) in entries(experiment(), Cell.parse("64/none")).items()}
    written = {label: head.model_dump(mode="json", context=IN_A_RECIPE) for label, head in heads.items()}
    named = {label: (document["name"], document["seed"]) for label, document in written.items()}
    assert named == {
        "svm": ("svm", 0), "svm-1": ("svm#1", 1), "svm-2": ("svm#2", 2), "svm-sd": ("svm@sd", 0),
        "svm-gan": ("svm@gan", 0), "svm-aug": ("svm-aug", 0), "probe": ("probe", 0),
    }  # fmt: skip
    assert in_a_recipe(Fit(detector="dense", seed=1, without="gan")) == "dense#1@without-gan"
    # The role is a column of scores and results, not of what is fitted.
    assert in_a_recipe(Fit(detector="a", role="probe")) == "a as probe"
    # What travels to a worker is whole.
    for head in heads.values():
        assert HeadSpec.model_validate(head.model_dump(mode="json")) == head


def test_another_quality_needs_only_its_own_views() -> None:
    few = needed_features(experiment(), keyed, [EXTRACTOR])
    more = needed_features(experiment(qualities=[None, 60, 40, 20, 30]), keyed, [EXTRACTOR])
    for key, views in few.items():
        assert set(views) <= set(more[key])
        assert {view.jpeg_quality for view in set(more[key]) - set(views)} <= {30}


def test_no_fair_view_is_embedded_at_the_pictures_own_size() -> None:
    for (_, extractor), views in needed_features(experiment(), keyed, [EXTRACTOR]).items():
        if isinstance(extractor, Vgg16Spec) and extractor.side is None:
            assert {view.path for view in views} == {"raw"}


def test_another_quality_of_the_table_is_one_row_more() -> None:
    roles = {"real": "coco", "gan": "gan", "stable": "sd", "qualities": [20, 40, 60, 80]}
    rows = stage_rows(experiment(seed_protocol=roles), EXTRACTOR)
    added = SeedRow(mix="combined", cell=Cell.parse("64/q80"))
    assert [row.row for row in rows] == [*SEED_ROWS, added] * len(STAGES)


def test_fewer_qualities_of_the_table_are_fewer_rows() -> None:
    roles = {"real": "coco", "gan": "gan", "stable": "sd", "qualities": [40]}
    kept = {row.row.cell.jpeg_quality for row in stage_rows(experiment(seed_protocol=roles), EXTRACTOR)}
    assert kept == {None, 40}


def test_a_protocol_with_nothing_changed_is_written_as_before() -> None:
    roles = SeedProtocol(real="coco", gan="gan", stable="sd")
    assert roles.model_dump(mode="json") == {"real": "coco", "gan": "gan", "stable": "sd"}


def test_without_a_seed_protocol_there_are_no_rows() -> None:
    assert stage_rows(experiment(seed_protocol=None), EXTRACTOR) == ()


def test_the_inception_network_sees_uncompressed_fair_views_only() -> None:
    inception = InceptionSpec(weights="sha256:6726825d")
    needed = needed_features(experiment(), keyed, [EXTRACTOR, inception])
    views = {source: views for (source, extractor), views in needed.items() if extractor == inception}
    assert set(views) == {"coco", "sd", "gan"}
    assert {view.name for view in views["sd"]} == {"fair/native/none", "fair/256/none", "fair/64/none"}
