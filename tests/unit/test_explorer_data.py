"""What the explorer reads and the table of pictures: every figure is the one that a detector gave."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage.local import LocalStore
from storage.objects import Ref, manifest_of, read_part, read_table
from tasks.explorer.files import packed
from tasks.explorer.pictures import projection, shown_pictures
from tasks.explorer.run import write_explorer
from tasks.explorer.table import pictures_table
from tasks.explorer.thumbnails import LONGEST_SIDE, make_thumbnails, thumbnail
from tasks.features.vgg16 import Vgg16Spec
from tests.unit import shown_pictures as shown
from tests.unit.shown_pictures import CELLS, MIX, PLAIN, Q20

COUNT = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def written(store: LocalStore) -> Ref:
    ref, _ = write_explorer.compute(
        store,
        experiment="towns",
        path="fair",
        cells=CELLS,
        said=shown.said(store, COUNT),
        sources=shown.sources(store, COUNT),
        mixes=(MIX,),
        pairs=(shown.pairs(store),),
        extractor=Vgg16Spec(layer="pool5-avg", side=32, weights="random:0"),
        features=(shown.features(store, COUNT),),
        seed=0,
        views=shown.views(store, COUNT),
    )
    assert isinstance(ref, Ref)
    return ref


def part(store: LocalStore, ref: Ref, name: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(read_part(store, ref, name)))


def test_every_row_of_every_table_is_the_same_picture(store: LocalStore, written: Ref) -> None:
    run = json.loads(read_part(store, written, "data-run.json"))
    numbers, texts = part(store, written, "data-pictures.parquet"), part(store, written, "data-texts.parquet")
    assert run["pictures"] == len(numbers) == len(texts) == 2 * COUNT
    names = [run["sources"][place]["name"] for place in numbers["source"]]
    assert [name + "-" for name in names] == [one[: one.index("-") + 1] for one in texts["image_id"]]
    assert list(zip(names, texts["image_id"], strict=True)) == sorted(zip(names, texts["image_id"], strict=True))
    for cell, listed in zip(CELLS, run["cells"], strict=True):
        said = part(store, written, f"data-{listed['file']}")
        assert listed["name"] == cell.name
        for detector in ("svm", "other", "sizes"):
            wanted = [shown.p_fake(detector, cell, *_split(one)) for one in texts["image_id"]]
            assert said[detector].to_list() == wanted


def _split(image_id: str) -> tuple[str, int]:
    source, number = image_id.split("-")
    return source, int(number)


def test_thresholds_are_those_of_val_pictures_by_cell_and_fold(store: LocalStore, written: Ref) -> None:
    run = json.loads(read_part(store, written, "data-run.json"))
    svm = run["detectors"][0]
    assert (svm["name"], svm["title"], svm["role"]) == ("svm", "a svm", "detector")
    # Between photographs at 0.40 and 0.41 and fakes at 0.60 and 0.61, for each fold its own.
    assert set(svm["thresholds"]) == {"64/none", "64/q20"}
    first, second = svm["thresholds"]["64/none"]["0"], svm["thresholds"]["64/none"]["1"]
    assert 0.40 < first <= 0.60
    assert second == pytest.approx(first + 0.01)
    assert svm["thresholds"]["64/q20"] == svm["thresholds"]["64/none"]


def test_every_picture_has_its_own_thumbnail_within_the_packed_files(store: LocalStore, written: Ref) -> None:
    numbers, texts = part(store, written, "data-pictures.parquet"), part(store, written, "data-texts.parquet")
    for row, image_id in zip(numbers.iter_rows(named=True), texts["image_id"], strict=True):
        pack = read_part(store, written, f"data-thumbnails-{row['thumbnail']}.bin")
        with Image.open(io.BytesIO(pack[row["offset"] : row["offset"] + row["length"]])) as picture:
            assert picture.format == "WEBP"
            assert picture.size == (LONGEST_SIDE, LONGEST_SIDE // 2)
            small = np.asarray(picture.convert("RGB"), dtype=float)
        with Image.open(io.BytesIO(shown.file_of(_split(image_id)[1]))) as picture:
            whole = np.asarray(picture.resize((LONGEST_SIDE, LONGEST_SIDE // 2)), dtype=float)
        assert np.abs(small - whole).mean() < 25


def test_facts_are_those_of_the_files(store: LocalStore, written: Ref) -> None:
    numbers, texts = part(store, written, "data-pictures.parquet"), part(store, written, "data-texts.parquet")
    row, words = numbers.row(-1, named=True), texts.row(-1, named=True)
    assert (row["width"], row["height"], row["jpeg_quality"]) == (200, 100, 90)
    assert row["bytes"] == len(shown.file_of(COUNT - 1))
    assert words["categories"] == "car, tree"
    groups = dict(zip(texts["image_id"], numbers["group"], strict=True))
    assert groups["town-0"] == groups["town-1"] != groups["town-2"]
    assert len(set(groups.values())) == COUNT


def test_the_table_has_a_row_per_picture_and_cell_with_what_everybody_said(store: LocalStore, written: Ref) -> None:
    table = part(store, written, "pictures.parquet")
    assert len(table) == 2 * COUNT * len(CELLS)
    row = table.row(by_predicate=(pl.col("image_id") == "gan-3") & (pl.col("perturbation") == "q20"), named=True)
    assert (row["truth"], row["path"], row["resolution"], row["fold"]) == ("generated", "fair", "64", 1)
    assert (row["svm_p_fake"], row["svm_verdict"]) == (None, None)
    assert (row["other_p_fake"], row["other_verdict"]) == (shown.p_fake("other", Q20, "gan", 3), "generated")
    missed = table.row(by_predicate=(pl.col("image_id") == "gan-5") & (pl.col("perturbation") == "q20"), named=True)
    assert missed["other_verdict"] == "photograph"
    plain = table.row(by_predicate=(pl.col("image_id") == "gan-3") & (pl.col("perturbation") == "none"), named=True)
    assert (plain["svm_p_fake"], plain["svm_verdict"]) == (shown.p_fake("svm", PLAIN, "gan", 3), "generated")


def test_a_picture_has_no_row_where_nobody_said_anything(store: LocalStore) -> None:
    said = [one for one in shown.said(store, COUNT) if one.detector == "svm"]
    pictures = shown_pictures(store, shown.sources(store, COUNT), said)
    placed = np.zeros((len(pictures.rows), 2))
    table = pl.read_parquet(io.BytesIO(pictures_table(pictures, CELLS, placed, "fair", (MIX,), 0)))
    assert len(table) == 2 * COUNT * len(CELLS) - 1
    assert len(table.filter(pl.col("image_id") == "gan-3")) == 1


def test_thumbnails_stand_once_in_the_table_however_many_cells_there_are(store: LocalStore, written: Ref) -> None:
    metadata = pq.ParquetFile(io.BytesIO(read_part(store, written, "pictures.parquet"))).metadata
    column = next(
        metadata.row_group(0).column(place)
        for place in range(metadata.num_columns)
        if metadata.row_group(0).column(place).path_in_schema == "image.bytes"
    )
    packs = [one for one in manifest_of(store, written).parts if one.name.startswith("data-thumbnails")]
    assert column.total_uncompressed_size < 1.2 * sum(one.bytes for one in packs)


def test_the_table_opens_in_duckdb(store: LocalStore, written: Ref, tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "pictures.parquet"
    file.write_bytes(read_part(store, written, "pictures.parquet"))
    with duckdb.connect() as connection:
        query = (
            f"select truth, count(*), min(octet_length(image.bytes)) > 0 from '{file}' group by truth order by truth"
        )
        assert connection.execute(query).fetchall() == [("generated", 12, True), ("photograph", 12, True)]


def test_the_table_opens_as_a_dataset_that_shows_pictures(store: LocalStore, written: Ref, tmp_path: Path) -> None:
    from datasets import Dataset

    file = tmp_path / "pictures.parquet"
    file.write_bytes(read_part(store, written, "pictures.parquet"))
    found = Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    assert found[0]["image"].size == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert found[0]["truth"] == "generated"


def test_the_card_names_every_column(store: LocalStore, written: Ref) -> None:
    card = read_part(store, written, "pictures.md").decode()
    columns = part(store, written, "pictures.parquet").columns
    assert [name for name in columns if f"`{name}`" not in card] == []


def test_the_projection_parts_what_differs_most(store: LocalStore) -> None:
    pictures = shown_pictures(store, shown.sources(store, COUNT), shown.said(store, COUNT))
    placed = projection(store, pictures, [shown.features(store, COUNT)], seed=0)
    labels = pictures.rows["label"].to_numpy()
    of_class = [placed[labels == label, 0] for label in (0, 1)]
    assert abs(of_class[0].mean() - of_class[1].mean()) == pytest.approx(10, abs=0.5)
    assert np.isnan(projection(store, pictures, [], seed=0)).all()


def test_equal_thumbnails_are_packed_once_and_missing_ones_have_no_place() -> None:
    packs, places = packed([b"one", None, b"two!", b"one"])
    assert packs == [b"onetwo!"]
    assert places == [(0, 0, 3), None, (0, 3, 4), (0, 0, 3)]


def test_packed_files_stay_small_enough_to_be_read_whole() -> None:
    packs, places = packed([bytes([number]) * 900_000 for number in range(5)])
    assert [len(pack) for pack in packs] == [1_800_000, 1_800_000, 900_000]
    assert places[-1] == (2, 0, 900_000)


def test_a_picture_that_cannot_be_decoded_has_no_thumbnail_and_is_counted(store: LocalStore) -> None:
    broken = shown.images(store, "broken", 1, image={"bytes": b"no picture", "path": "x.jpg"})
    ref, _ = make_thumbnails.compute(store, images=broken, source="broken", shard=0)
    assert read_table(store, ref)["thumbnail"].to_pylist() == [None]
    assert manifest_of(store, ref).notes == {"undecodable": 1}


def test_only_test_pictures_of_fixed_splits_are_shown(store: LocalStore) -> None:
    trained = shown.images(store, "trained", 2, split="train", fold=None)
    assert make_thumbnails.compute(store, images=trained, source="trained", shard=0)[0].rows == 0


def test_a_small_picture_keeps_every_pixel() -> None:
    small = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    assert np.array_equal(thumbnail(small), small)
