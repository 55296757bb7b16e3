"""Scores from elsewhere: every picture that a cell shows once, no others, finite; else an error that names them."""

import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, notes_of, read_part, read_table
from storage.tables import SCORE_SCHEMA
from tasks.brought_files import BroughtFiles, bring_files
from tasks.data.canonical import name_in_cell, picture_name, picture_rows
from tasks.detectors.scores_table import COLUMNS, ScoresTable, read_scores, score_by_table
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import Cell
from tests.unit.network_pictures import VIEWS, row, shard

PLACES = ("train", "val", "val", "test", "test", "test")
CELLS = tuple(Cell(resolution=view.resolution, perturbation=view.perturbation) for view in VIEWS)
FIT = Fit(detector="theirs")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def score_of(source: str, number: int, cell: str) -> float:
    return len(source) + number / 7 + len(cell) / 100


def full(places: Any = PLACES) -> list[tuple[str, str, str, float]]:
    """The table that `telltale pictures` would write, filled in; with folds all cells show all pictures."""
    return [
        (source, f"{number:03d}", cell.name, score_of(source, number, cell.name))
        for cell in CELLS
        for source in ("coco", "stable")
        for number, place in enumerate(places)
        if place != "train" and (place != "val" or cell.perturbation is None)
    ]


def table(rows: Any) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def written(folder: Path, frame: pl.DataFrame, name: str = "scores.csv") -> Path:
    path = folder / name
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def scored(store: LocalStore, path: Path, splits: Splits | None = None, places: Any = PLACES) -> tuple[Ref, ...]:
    """The table's scores of two shards."""
    pictures = tuple(
        shard(store, [row(source, number, place) for number, place in enumerate(places)], source)
        for source in ("coco", "stable")
    )
    brought = BroughtFiles.at(str(path), "cpu")
    files, _ = bring_files.compute(store, digest=brought.digest, path=str(path), pool="cpu")
    refs, _ = score_by_table.compute(
        store,
        fit=FIT,
        table=files,
        pictures=pictures,
        views=VIEWS,
        val_views=VIEWS[:2],
        splits=splits or FixedSplits(),
        cells=CELLS,
    )
    return tuple(refs)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_every_picture_gets_its_own_score_in_its_cell(store: LocalStore, tmp_path: Path, name: str) -> None:
    refs = scored(store, written(tmp_path, table(full()).sample(fraction=1, shuffle=True, seed=0), name))
    for view, cell, ref in zip(VIEWS, CELLS, refs, strict=True):
        found = read_table(store, ref)
        assert found.schema.equals(SCORE_SCHEMA)
        rows = found.to_pylist()
        assert {(one["source"], one["image_id"]): one["decision"] for one in rows} == {
            (source, f"{number:03d}"): score_of(source, number, cell.name)
            for source in ("coco", "stable")
            for number, place in enumerate(PLACES)
            if place == "test" or (place == "val" and view in VIEWS[:2])
        }
        assert {(one["split"], one["fold"]) for one in rows} <= {("val", 0), ("test", 0)}
        assert {one["perturbation"] for one in rows} == {view.perturbation_name}


def test_with_folds_a_score_serves_every_rotation(store: LocalStore, tmp_path: Path) -> None:
    folds = (0, 1, 2, 0, 1, 2)
    found = read_table(store, scored(store, written(tmp_path, table(full(folds))), Folds(count=3), folds)[0])
    assert found.num_rows == 24
    assert len({(one["source"], one["image_id"]) for one in found.to_pylist()}) == 12


def test_csv_and_parquet_give_the_same_scores_to_the_bit(store: LocalStore, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=len(full())) * 10.0 ** rng.integers(-30, 30, len(full()))
    rows = table([(*one[:3], value) for one, value in zip(full(), drawn, strict=True)])
    refs = [scored(store, written(tmp_path, rows, name))[0] for name in ("scores.csv", "scores.parquet")]
    assert refs[0].digest != refs[1].digest
    assert read_part(store, refs[0], ROWS) == read_part(store, refs[1], ROWS)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_scores_of_pictures_that_have_changed_since_are_refused(store: LocalStore, tmp_path: Path, name: str) -> None:
    """Another training of a generator gives other pictures the same ids."""
    of = {
        (source, f"{number:03d}"): picture_name(one)
        for source in ("coco", "stable")
        for number, one in enumerate(
            picture_rows(store, shard(store, [row(source, n, place) for n, place in enumerate(PLACES)], source))
        )
    }
    rows = table(full())
    files = [f"elsewhere/{of[source, image_id]}.webp" for source, image_id in rows.select("source", "image_id").rows()]
    same = rows.with_columns(file=pl.Series(files))
    assert len(scored(store, written(tmp_path, same, name))) == 3
    other = same.with_columns(pl.col("file").str.replace("elsewhere/....", "32/beef"))
    with pytest.raises(SpecError, match="32/q20: 6 scores are of pictures that have changed since, such as coco, 003"):
        scored(store, written(tmp_path, other, f"other-{name}"))


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
@pytest.mark.parametrize("folder", ["64/q20", "pictures/64/q20", "C:\\pictures\\64\\q20", "elsewhere"])
def test_a_file_lies_in_the_folder_of_its_rows_cell(tmp_path: Path, name: str, folder: str) -> None:
    """Rows whose cell was mixed up, as by sorting one column alone."""
    file = f"{folder}/{'ab' * 10}.png"

    def said(cell: str) -> list[str]:
        frame = table([("coco", "1", cell, 0.5)]).with_columns(file=pl.Series([file]))
        return ScoresTable(name="theirs", table=str(written(tmp_path, frame, name))).missing()

    assert said("64/q20") == []
    assert ([] if folder == "elsewhere" else [f"1 rows name a file of another cell, such as {file} in 64/none"]) == [
        line.rpartition(f"{name}: ")[2] for line in said("64/none")
    ]


def test_scores_of_a_chain_that_had_other_steps_are_refused(store: LocalStore, tmp_path: Path) -> None:
    pictures = shard(store, [row("coco", 0, "test")], "coco")
    (one,) = picture_rows(store, pictures)

    def shop(quality: int) -> Cell:
        return Cell.model_validate(
            {"resolution": 32, "perturbation": {"kind": "chain", "name": "shop", "steps": [f"q{quality}"]}}
        )

    def of(file: str, cell: Cell) -> int:
        frame = table([("coco", "000", "32/shop", 0.5)]).with_columns(file=pl.Series([f"32/shop/{file}.jpg"]))
        path = written(tmp_path, frame)
        brought = BroughtFiles.at(str(path), "cpu")
        files, _ = bring_files.compute(store, digest=brought.digest, path=str(path), pool="cpu")
        refs, _ = score_by_table.compute(
            store,
            fit=FIT,
            table=files,
            pictures=(pictures,),
            views=(cell.view("fair"),),
            val_views=VIEWS[:2],
            splits=FixedSplits(),
            cells=(cell,),
        )
        return int(read_table(store, refs[0]).num_rows)

    file = name_in_cell(picture_name(one), shop(60))
    assert (
        ScoresTable(name="theirs", table=str(written(tmp_path, table([("coco", "0", "32/shop", 1)])))).missing() == []
    )
    assert of(file, shop(60)) == 1
    with pytest.raises(SpecError, match="32/shop: 1 scores are of pictures that have changed since, such as coco, 000"):
        of(file, shop(20))


@pytest.mark.parametrize("files", [["a.png"], ["0123456789abcdef.png"], [None], [7]])
def test_files_of_other_names_say_nothing(files: list[Any]) -> None:
    frame = table([("coco", "1", "64/q20", 0.5)]).with_columns(file=pl.Series(files))
    for write in (pl.DataFrame.write_csv, pl.DataFrame.write_parquet):
        write(frame, file := io.BytesIO())
        assert read_scores(file.getvalue())["picture"].to_list() == [None]


def test_cells_that_the_experiment_has_not_are_ignored_and_noted(
    store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = [("coco", "nobody", "64/q60", 1.0), ("coco", "nobody", "native/q20", 1.0)]
    with caplog.at_level(logging.WARNING):
        refs = scored(store, written(tmp_path, table([*full(), *more])))
    assert notes_of(store, refs[0])["ignored_cells"] == ["64/q60", "native/q20"]
    assert "theirs: the table's cells 64/q60, native/q20 are none of this experiment: ignored" in caplog.messages


def without(*keys: tuple[str, str, str]) -> list[Any]:
    return [one for one in full() if one[:3] not in keys]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without(("coco", "003", "32/q20")), "32/q20: 1 of 6 pictures have no score, such as coco, 003: `telltale"),
        (without(("coco", "001", "32/none")), "32/none: 1 of 10 pictures have no score, such as coco, 001"),
        ([one for one in full() if one[2] != "32/q20"], "32/q20: 6 of 6 pictures have no score, such as coco, 003"),
        ([*full(), ("gan", "001", "32/q20", 0)], "32/q20: 1 scores are of pictures that it does not show, such as gan"),
        ([*full(), ("coco", "000", "32/q20", 0)], "1 scores are of pictures that it does not show, such as coco, 000"),
        ([*full(), ("coco", "001", "32/q20", 0)], "1 scores are of pictures that it does not show, such as coco, 001"),
        ([*without(("coco", "003", "32/q20")), ("coco", "003", "32/q20.0", 0)], "; its cells 32/q20.0 are none of"),
        ([("coco", "9", "32/q20", 0.5)], "native/none: 10 of 10 pictures have no score"),
    ],
)
def test_other_pictures_than_a_cell_shows_are_refused_with_examples(
    store: LocalStore, tmp_path: Path, rows: Any, message: str
) -> None:
    with pytest.raises(SpecError, match="theirs: ") as raised:
        scored(store, written(tmp_path, table(rows)))
    assert message in str(raised.value)


def csv(*lines: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text("\n".join(("source,image_id,cell,score", *lines)), encoding="utf-8")

    return write


def parquet(**columns: Any) -> Callable[[Path], None]:
    values = {"source": ["coco"], "image_id": ["1"], "cell": ["64/q20"], "score": [0.5]} | columns
    return lambda path: pl.DataFrame(values).write_parquet(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: path.write_text("source,image_id,score\n"),
            "expected the columns source, image_id, cell, score, ",
        ),
        (lambda path: path.write_bytes(b""), "expected the columns source, image_id, cell, score, got none"),
        (
            lambda path: path.write_text("source,image_id,cell,score,score\n"),
            "two columns are called score: rename one",
        ),
        (lambda path: path.write_bytes(b"PAR1 and no more"), "not readable as Parquet, it may be cut off: "),
        (
            lambda path: path.write_bytes(b"source,image_id,cell,score\rcoco,1,64/q20,0.5\r"),
            "there is a bare carriage return in its first line; if it is a table, save it again as CSV in UTF-8",
        ),
        (lambda path: path.write_bytes(b"\x89PNG\r\x00\xff\r1"), "neither Parquet nor readable as CSV: "),
        (lambda path: path.mkdir(), "Is a directory"),
        (csv('coco,"1,64/q20,0.5'), "neither Parquet nor readable as CSV in UTF-8, it may be cut off: "),
        (csv("coco,1,64/q20,0.5,0.5"), "neither Parquet nor readable as CSV in UTF-8, it may be cut off: "),
        (csv("coco,1,64/q20,"), "1 of 1 rows have no finite score, such as coco, 1 in 64/q20 ('')"),
        (csv("coco,1,64/q20,0,5".replace("0,5", "high")), "such as coco, 1 in 64/q20 ('high')"),
        (csv("coco,1,64/q20,nan", "coco,2,64/q20,-inf"), "2 of 2 rows have no finite score, such as coco, 1 in"),
        (
            csv("coco,1,64/q20,1", "coco,1,64/q20,1"),
            "1 pictures are there more than once in a cell, such as coco, 1 in",
        ),
        (csv("coco,1,64/q20,1", "coco,2,q20/64,1"), "a cell is named like 64/q20 or native/none, got 'q20/64'"),
        (csv("coco,1,64/,1"), "a cell is named like 64/q20 or native/none, got '64/'"),
        (csv(",1,64/q20,1"), "source is empty in 1 of 1 rows"),
        (parquet(image_id=[1]), "column image_id: expected text, got int64"),
        (parquet(score=["0.5"]), "column score: expected numbers, got "),
        (parquet(score=[None]), "column score: expected numbers, got "),
        (parquet(score=[float("nan")]), "1 of 1 rows have no finite score, such as coco, 1 in 64/q20 (nan)"),
        (parquet(cell=[None]), "column cell: expected text, got "),
    ],
)
def test_what_is_wrong_with_a_table_is_said_before_any_work(
    tmp_path: Path, write: Callable[[Path], Any], message: str
) -> None:
    write(path := tmp_path / "scores")
    (line,) = ScoresTable(name="theirs", table=str(path)).missing()
    assert line.startswith(f"theirs: {path}: ")
    assert message in line


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    lines = ScoresTable(name="theirs", table=str(tmp_path / "scores.csv")).missing()
    assert lines == [f"theirs: the table of scores: {tmp_path / 'scores.csv'} does not exist"]


def test_a_sound_table_lacks_nothing(tmp_path: Path) -> None:
    assert ScoresTable(name="theirs", table=str(written(tmp_path, table(full())))).missing() == []


def test_semicolons_and_a_mark_of_spreadsheets_are_read() -> None:
    text = "score;source;more;image_id;cell\r\n0.5;coco;x;007;64/q20\r\n"
    assert read_scores(b"\xef\xbb\xbf" + text.encode()).rows() == [("coco", "007", "64/q20", 0.5, None)]


@pytest.mark.parametrize(
    "name", ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", "../a/b", " a", "a\tb", "NA", "null", "=1+1", "ü"]
)
def test_ids_are_data(name: str) -> None:
    frame = table([("coco", name, "64/q20", 0.5)])
    file = io.BytesIO()
    frame.write_csv(file)
    assert read_scores(file.getvalue())["image_id"].to_list() == [name]


def test_a_million_rows_take_seconds() -> None:
    ids = pl.Series([f"{number // 12:09d}" for number in range(1_000_000)])
    cells = pl.Series([f"64/q{20 + number % 12}" for number in range(1_000_000)])
    scores = pl.Series(np.random.default_rng(0).normal(size=1_000_000))
    frame = pl.DataFrame({"source": ["coco"] * 1_000_000, "image_id": ids, "cell": cells, "score": scores})
    file = io.BytesIO()
    frame.write_csv(file)
    began = time.monotonic()
    assert len(read_scores(file.getvalue())) == 1_000_000
    # Half a second; machines are busy.
    assert time.monotonic() - began < 30


def test_the_published_threshold_is_on_the_tables_own_scale(tmp_path: Path) -> None:
    assert ScoresTable(name="theirs", table="scores.csv", threshold=3.5).published == 3.5
