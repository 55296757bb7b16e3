"""The parts of the whole-table benchmark that need no server: its pictures, its experiment, what counts as equal."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import first_table
from benchmarks.first_table import (
    GAN,
    GAN_SIDE,
    REAL_SOURCE,
    STABLE,
    Decisions,
    Pictures,
    PlainTable,
    Scale,
    drawn_files,
    experiment_document,
    files_of,
    photographs,
    plain_network,
    plain_table,
    row_decisions,
    row_name,
    shuffled,
    val_count,
    write_pictures,
)
from benchmarks.harness import Unequal
from tasks.data.pictures import decode_rgb
from tasks.data.views import make_views
from tasks.detectors.svm import balanced_weights, fit_linear_svm
from tasks.detectors.vgg16 import embed_pictures, load_vgg16
from tasks.evaluation.protocols import SEED_ROWS, STAGES, stage_rows
from tasks.presets import parse_experiment
from tasks.spec import Canonical, Experiment, Vgg16Spec, View

SMALL = Scale((48, 36), 40, 32, 32)
SIZE = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    write_pictures(made, SIZE, SMALL)
    return made


def experiment(folder: Path, **protocol: object) -> Experiment:
    document = experiment_document(folder, SIZE, SMALL)
    return parse_experiment(document | {"seed_protocol": document["seed_protocol"] | protocol})


def test_every_source_has_its_pictures_and_every_fake_its_photograph(folder: Path) -> None:
    count = 2 * SIZE + val_count(SIZE)
    for source, suffix, size in ((REAL_SOURCE, "jpg", (48, 36)), (GAN, "png", (64, 64)), (STABLE, "jpg", (40, 40))):
        files = sorted((folder / source).iterdir())
        assert [file.name for file in files] == [f"{number:05d}.{suffix}" for number in range(count)]
        assert {decode_rgb(file.read_bytes()).shape[:2] for file in files} == {size[::-1]}
    parents = [row["group_id"] for row in json.loads((folder / f"{GAN}.json").read_text())]
    assert parents == [f"{REAL_SOURCE}:{number:05d}.jpg" for number in range(count)]


def test_pictures_are_the_same_every_time_and_differ_from_each_other() -> None:
    once, again = ([np.asarray(picture) for picture in photographs(12, (48, 36))] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    thumbnails = np.stack([first_table._thumbnail(Image.fromarray(picture)) for picture in once])
    alike = thumbnails @ thumbnails.T - np.eye(12)
    assert alike.max() < first_table._DIFFERENT


def test_shuffling_keeps_pixels_and_moves_them() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    moved = np.asarray(shuffled(picture, 8, GAN_SIDE, np.random.default_rng(1)))
    assert np.array_equal(np.sort(moved.ravel()), np.sort(np.asarray(picture).ravel()))
    assert not np.array_equal(moved, np.asarray(picture))


def test_the_experiment_asks_for_the_table_and_one_cell(folder: Path) -> None:
    rows = stage_rows(experiment(folder), Vgg16Spec(weights="random:0"))
    assert [row.row for row in rows] == list(SEED_ROWS)
    assert {row.stage for row in rows} == {STAGES[0]}
    assert [cell.name for cell in experiment(folder).cells] == ["64/none"]


def test_one_more_quality_is_one_more_row(folder: Path) -> None:
    rows = stage_rows(experiment(folder, qualities=[20, 40, 60, 80]), Vgg16Spec(weights="random:0"))
    assert [row_name(row) for row in rows[len(SEED_ROWS) :]] == ["combined 64/q80"]


def test_a_row_tests_as_many_photographs_as_fakes(folder: Path) -> None:
    spec = experiment(folder)
    for row in stage_rows(spec, spec.extractor):
        sources = [source for _, source, _ in drawn_files(folder, spec, row)]
        assert sources.count(REAL_SOURCE) == SIZE
        assert len(sources) == 2 * SIZE


def test_the_plain_way_decides_as_telltales_parts_do(folder: Path) -> None:
    """One row, put together from views, batches and the Gram matrix instead."""
    spec = experiment(folder)
    plain = plain_table(Pictures(folder), spec, threads=1)
    row = next(row for row in stage_rows(spec, spec.extractor) if row_name(row) == "combined 64/q20")
    network = load_vgg16(spec.extractor, None)
    canonical = Canonical(side=32, qualities=((90, 1),))

    def embedded(files: list[tuple[str, Path]], view: View, extractor: Vgg16Spec) -> np.ndarray:
        pictures = [make_views(path.read_bytes(), path.name, [view], canonical)[view].pixels for _, path in files]
        return embed_pictures(network, extractor, pictures)

    head = row.real.head
    train = files_of(folder, spec, (*head.real, *head.fakes), "train")
    sources = np.array([source for source, _ in train])
    labels = (sources != REAL_SOURCE).astype(np.int64)
    coef, intercept = fit_linear_svm(
        embedded(train, head.views[0], spec.extractor), labels, balanced_weights(labels, sources), 1.0
    )
    for scoring in (row.real, row.fake):
        assert isinstance(scoring.extractor, Vgg16Spec)
        files = files_of(folder, spec, scoring.sources, "test")
        decisions = embedded(files, scoring.view, scoring.extractor) @ coef + intercept
        for (source, path), decision in zip(files, decisions, strict=True):
            key = (source, f"{source}:{path.name}")
            if key in plain.decisions["combined 64/q20"]:
                assert plain.decisions["combined 64/q20"][key] == pytest.approx(decision, rel=1e-2, abs=1e-3)
    assert set(plain.decisions) == {row_name(row) for row in stage_rows(spec, spec.extractor)}
    assert 0 < plain.fitted_again_s < plain.seconds


def test_the_plain_network_is_channels_first_and_full_precision() -> None:
    spec = Vgg16Spec(weights="random:0", layer="pool5-avg")
    weight = next(plain_network(spec).parameters())
    assert weight.is_contiguous()
    assert str(weight.dtype) == "torch.float32"


def test_stored_decisions_of_a_row_take_each_class_from_its_own_view(folder: Path) -> None:
    spec = experiment(folder)
    row = next(row for row in stage_rows(spec, spec.extractor) if row_name(row) == "combined 64/q20")
    picture = (REAL_SOURCE, "a")
    stored: dict[tuple[str, View], Decisions] = {
        ("256", row.real.view): {picture: 1.0},
        ("256", row.fake.view): {picture: 2.0, (GAN, "b"): 3.0, (STABLE, "c"): 4.0},
    }
    assert row_decisions(stored, row) == {picture: 1.0, (GAN, "b"): 3.0, (STABLE, "c"): 4.0}


@pytest.mark.parametrize(
    ("pairs", "furthest", "worst"),
    [
        ([[1.0, 1.003], [-1.0, -1.0]], 3e-3, 0.0),
        ([[1.0, 1.0], [-1.0, -1.0]], 0.0, 0.25),
    ],
)
def test_ways_that_decide_otherwise_are_not_measured(pairs: list[list[float]], furthest: float, worst: float) -> None:
    with pytest.raises(Unequal):
        first_table._judged(np.array(pairs), furthest, worst)


def test_what_one_svm_per_resolution_would_have_saved_is_said() -> None:
    plain = PlainTable({}, fitted_again_s=6.0, seconds=10.0)
    ours = SimpleNamespace(seconds=2.0)
    said = first_table._said(plain, ours)  # type: ignore[arg-type]
    assert "4.0 s instead of 10.0" in said
    assert said.endswith("the ratio were 2")
