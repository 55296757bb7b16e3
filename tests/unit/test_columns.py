"""A published set with several pictures in every row becomes several sources, whose siblings share a group."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from flows.preflight import checked_experiment
from flows.shard import Images, image_shards
from storage.errors import BadImage, MissingInput, SpecError
from storage.local import LocalStore
from storage.objects import Ref, notes_of, read_table
from tasks.data import columns as columns_module
from tasks.data.columns import check_column, column_inventory
from tasks.data.entries import ENTRY_SCHEMA, QUARANTINE, cell_name, read_entries, read_entry
from tasks.data.sources.column import ColumnSource, index_column, unlocated_column
from tasks.presets import load_experiment, parse_experiment
from tasks.recipe import Step
from tasks.report.counts import count_images, warnings_of
from tasks.spec.experiment import Experiment

GENERATORS = {"first": "image_gen0", "second": "image_gen1"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    return LocalStore(tmp_path / "store")


def picture(seed: int, side: int = 48) -> bytes:
    """A smooth picture of its own for every seed, as PNG."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def write_set(path: Path, prompts: list[str | None], seed: int = 0, **further: list[Any]) -> Path:
    """A Parquet file with a prompt and two generators' pictures in every row, two rows in a row group."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = {
        column: pa.array(
            [
                {"bytes": picture(1000 * index + seed + row), "path": f"{row}.png"} if given is None else given[row]
                for row in range(len(prompts))
            ],
            kind,
        )
        for index, column in enumerate(GENERATORS.values(), start=1)
        for given in [further.pop(column, None)]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"original_prompt": pa.array(prompts, pa.string()), **further, **pictures}), path, 2)
    return path


def column(path: Path, name: str = "first", **fields: Any) -> ColumnSource:
    return ColumnSource.model_validate({"name": name, "path": str(path), "column": GENERATORS[name], **fields})


def indexed(store: LocalStore, source: ColumnSource) -> list[dict[str, Any]]:
    ref, _ = index_column.compute(
        store, source=unlocated_column(source), inventory=column_inventory(source).digest, path=source.path
    )
    assert isinstance(ref, Ref)
    table = read_table(store, ref)
    assert table.schema.equals(ENTRY_SCHEMA)
    return list(table.to_pylist())


def test_every_row_is_an_entry_that_reads_its_own_column(tmp_path: Path, store: LocalStore) -> None:
    path = write_set(tmp_path / "set.parquet", ["a cat", "a dog", "a cat"])
    for index, name in enumerate(GENERATORS, start=1):
        rows = indexed(store, column(path, name, prompt_column="original_prompt"))
        assert [row["image_id"] for row in rows] == [f"{name}:row-{row:09d}" for row in range(3)]
        assert [(row["position"], row["prompt"]) for row in rows] == [(0, "a cat"), (1, "a dog"), (2, "a cat")]
        read = [data for _, data in read_entries(path, [row["file"] for row in rows])]
        assert read == [picture(1000 * index + row) for row in range(3)]


def test_siblings_of_a_row_share_a_group_and_so_do_rows_of_one_prompt(tmp_path: Path, store: LocalStore) -> None:
    path = write_set(tmp_path / "set.parquet", ["a cat", None, " a cat ", ""], id=["x", "y", None, "z"])
    by_prompt, by_id, by_row = (
        [[row["group_id"] for row in indexed(store, column(path, name, **fields))] for name in GENERATORS]
        for fields in (
            {"prompt_column": "original_prompt"},
            {"prompt_column": "original_prompt", "group_column": "id"},
            {},
        )
    )
    for first, second in (by_prompt, by_id, by_row):
        assert first == second
    assert by_prompt[0][0] == by_prompt[0][2]
    assert by_prompt[0][0].startswith("prompt:")
    assert len(set(by_prompt[0])) == 3
    assert by_id[0] == ["x", "y", by_prompt[0][2], "z"]
    assert len(set(by_row[0])) == 4
    assert by_row[0][1] == by_prompt[0][1]


def test_a_directory_is_read_in_the_order_of_its_files_names(tmp_path: Path, store: LocalStore) -> None:
    root = tmp_path / "set"
    write_set(root / "b.parquet", ["third", "first"], seed=10)
    write_set(root / "a" / "0.parquet", ["first", "second", "x"])
    (root / "README.md").write_text("not a part of it")
    rows = indexed(store, column(root, prompt_column="original_prompt"))
    assert [row["image_id"] for row in rows] == [
        *(f"first:a/0.parquet/row-{row:09d}" for row in range(3)),
        *(f"first:b.parquet/row-{row:09d}" for row in range(2)),
    ]
    assert [row["position"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["group_id"] == rows[4]["group_id"]  # one prompt, two files
    wanted = [rows[index] for index in (1, 2, 4)]
    read = list(read_entries(root, [row["file"] for row in wanted]))
    assert [file for file, _ in read] == [row["file"] for row in wanted]
    assert [data for _, data in read] == [picture(1000 + seed) for seed in (1, 2, 11)]


def test_rows_without_prompts_keep_their_names_when_files_come_and_the_set_moves(
    tmp_path: Path, store: LocalStore
) -> None:
    write_set(tmp_path / "set" / "b.parquet", [None, None])
    before = indexed(store, column(tmp_path / "set"))
    write_set(tmp_path / "set" / "a.parquet", [None, None], seed=50)
    (tmp_path / "set").rename(tmp_path / "moved")
    after = indexed(store, column(tmp_path / "moved"))
    for name in ("image_id", "group_id"):
        assert [row[name] for row in after[2:]] == [row[name] for row in before]
    assert len({row["group_id"] for row in after}) == 4


def test_a_limit_counts_rows_and_needs_only_the_files_that_hold_them(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_ROWS_AT_ONCE", 2)
    for name in ("a", "b"):
        write_set(tmp_path / "set" / f"{name}.parquet", [f"{name}{row}" for row in range(3)])
    (tmp_path / "set" / "c.parquet").write_bytes(b"PAR1 and no more")
    source = column(tmp_path / "set", prompt_column="original_prompt", limit=4)
    assert [row["prompt"] for row in indexed(store, source)] == ["a0", "a1", "a2", "b0"]
    short = column_inventory(column(tmp_path / "set", limit=3))
    (tmp_path / "set" / "b.parquet").unlink()
    assert column_inventory(column(tmp_path / "set", limit=3)) == short
    assert "c.parquet" in check_column(source)[0]


def test_files_of_a_set_may_be_links_as_in_the_cache_of_a_model_hub(tmp_path: Path, store: LocalStore) -> None:
    blob = write_set(tmp_path / "blobs" / "0123abcd", ["a cat"])
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "train.parquet").symlink_to(blob)
    [row] = indexed(store, column(tmp_path / "snapshot"))
    assert [data for _, data in read_entries(tmp_path / "snapshot", [row["file"]])] == [picture(1000)]


def test_a_check_names_all_that_is_missing_and_each_thing_once(tmp_path: Path) -> None:
    assert "expected a Parquet file" in check_column(column(tmp_path / "none"))[0]
    (tmp_path / "empty").mkdir()
    assert "Parquet files below" in check_column(column(tmp_path / "empty"))[0]
    root = tmp_path / "set"
    write_set(root / "a.parquet", ["a"])
    write_set(root / "b.parquet", ["b"])
    (root / "c.parquet").write_bytes(write_set(tmp_path / "whole.parquet", ["c"]).read_bytes()[:-20])
    lines = check_column(
        ColumnSource(
            name="third", path=str(root), column="image_gen9", prompt_column="prompt", group_column="image_gen0"
        )
    )
    assert len(lines) == 4
    for line, said in zip(
        lines, ("column 'image_gen9'", "'prompt' of texts", "'image_gen0' of texts", "cut off"), strict=True
    ):
        assert said in line
        assert ("c.parquet" if said == "cut off" else "a.parquet and 1 more files") in line
    with pytest.raises(MissingInput, match="image_gen9"):
        column_inventory(ColumnSource(name="third", path=str(root), column="image_gen9"))
    assert check_column(column(root / "a.parquet")) == []


def test_what_has_changed_since_the_index_is_set_aside_or_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    path = write_set(root / "a.parquet", [f"{row}" for row in range(4)])
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(1)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(bytes(data))
    files = [cell_name(row, "image_gen0", "a.parquet") for row in range(5)]
    reasons = [found.reason if isinstance(found, BadImage) else "" for _, found in read_entries(root, files)]
    assert reasons == ["", "", "unreadable", "unreadable", "missing-file"]
    [(_, gone)] = read_entries(root, [cell_name(0, "image_gen0", "gone.parquet")])
    assert isinstance(gone, BadImage)
    assert gone.reason == "missing-file"
    with pytest.raises(SpecError, match="expected pictures in the column 'original_prompt'"):
        list(read_entries(root, [cell_name(0, "original_prompt", "a.parquet")]))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(SpecError, match="cut off"):
        list(read_entries(root, files[:1]))


def test_prompts_that_say_nothing_are_no_group_and_lists_say_their_first(tmp_path: Path, store: LocalStore) -> None:
    given: list[pa.Array] = [
        pa.array(["a cat", " a  cat", "", "nan", None]),
        pa.array([["", "a cat"], ["a cat", "a dog"], [], [None], None], pa.list_(pa.string())),
        pa.array([7.0, 7.0, float("nan"), None, None]),
    ]
    for prompts in given:
        path = tmp_path / "set.parquet"
        pq.write_table(pa.table({"image": [b"x"] * 5, "told": prompts}), path)
        rows = indexed(store, ColumnSource(name="sd", path=str(path), column="image", prompt_column="told"))
        first, second, *others = [row["group_id"] for row in rows]
        assert first == second
        assert first.startswith("prompt:")
        assert [row["prompt"] for row in rows[2:]] == [None] * 3
        assert len({first, *others}) == 4


def test_a_prompt_column_that_is_not_named_is_warned_of(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": [b"x"], "Prompt": ["a cat"], "id": ["x"]}), path)
    cases: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({}, ["sd: prompts are not read from ['Prompt']: name one as prompt_column"]),
        ({"prompt_column": "Prompt"}, []),
        ({"group_column": "id"}, []),
    )
    for fields, warnings in cases:
        given = ColumnSource(name="sd", path=str(path), column="image", **fields)
        ref, _ = index_column.compute(
            store, source=unlocated_column(given), inventory=column_inventory(given).digest, path=str(path)
        )
        assert notes_of(store, ref)["warnings"] == warnings


def test_columns_that_may_say_which_rows_belong_together_are_warned_of(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "set.parquet"
    unread = "name the one of prompts as prompt_column, or the one that says which rows belong together as group_column"
    cases: tuple[tuple[dict[str, Any], Literal["real", "fake"], list[str]], ...] = (
        ({"sentence": ["a"], "id": ["x"], "md5": [b"x"], "image_gen0": [b"x"]}, "fake",
         [f"sd: each row is a group of its own, ['sentence', 'id'] are not read: {unread}"]),
        ({"sentence": ["a"]}, "real", []),
        ({"md5": [b"x"]}, "fake", []),
        ({"id": ["x"], "user_prompt": ["a"], "negative_prompt": ["b"]}, "fake",
         ["sd: prompts are not read from ['user_prompt']: name one as prompt_column"]),
    )  # fmt: skip
    for columns, label, warnings in cases:
        pq.write_table(pa.table({"image": [b"x"], **columns}), path)
        given = ColumnSource(name="sd", path=str(path), column="image", label=label)
        ref, _ = index_column.compute(
            store, source=unlocated_column(given), inventory=column_inventory(given).digest, path=str(path)
        )
        assert notes_of(store, ref)["warnings"] == warnings


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (pa.array(["a.png"]), "which is text: paths are not followed and base64 is not decoded"),
        (pa.array([[1, 2]], pa.list_(pa.uint8())), "pixels and lists of pictures are not read"),
        (pa.array([{"path": "a.png"}]), "which is struct<path: string>"),
        (
            pa.array([{"bytes": None, "path": "a"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "is null",
        ),
        (pa.array([], pa.binary()), "is null in all rows, or there are none"),
    ],
)
def test_a_column_without_pictures_is_refused_with_what_is_read(tmp_path: Path, cells: pa.Array, told: str) -> None:
    pq.write_table(pa.table({"image": cells}), tmp_path / "set.parquet")
    [missing] = check_column(ColumnSource(name="sd", path=str(tmp_path / "set.parquet"), column="image"))
    assert "pictures" in missing
    assert told in missing


@pytest.mark.parametrize("name", ["../set.parquet", "/etc/set.parquet", "a/../../set.parquet"])
def test_no_cell_is_read_outside_its_directory(tmp_path: Path, name: str) -> None:
    write_set(tmp_path / "set.parquet", ["a"])
    (tmp_path / "root" / "a").mkdir(parents=True)
    [(_, found)] = read_entries(tmp_path / "root", [cell_name(0, "image_gen0", name)])
    assert isinstance(found, BadImage)


def test_a_picture_with_the_name_of_a_row_is_still_a_picture(tmp_path: Path) -> None:
    for name in ("row:1", "row:1:a", "row:1:a:b.png"):
        (tmp_path / name).write_bytes(name.encode())
        assert read_entry(tmp_path, name) == name.encode()
        assert list(read_entries(tmp_path, [name])) == [(name, name.encode())]


def document(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "sources": [
            {"kind": "folder", "name": "photographs", "path": str(root / "photographs"), "label": "real"},
            {
                "kind": "prompt-set",
                "path": str(root / "set"),
                "prompt_column": "original_prompt",
                "columns": dict(GENERATORS),
                "limit": 9,
            },
        ],
        "splits": {"kind": "folds", "count": 3},
        "shard_size": 4,
    } | changes


def write_data(root: Path) -> None:
    (root / "photographs").mkdir(parents=True)
    for seed in range(9):
        (root / "photographs" / f"{seed}.png").write_bytes(picture(seed))
    write_set(root / "set" / "0.parquet", [f"prompt {row}" for row in range(5)])
    write_set(root / "set" / "1.parquet", ["prompt 0", *(f"prompt {row}" for row in range(5, 9))], seed=20)


def test_a_prompt_set_is_one_source_per_column(tmp_path: Path) -> None:
    experiment = parse_experiment(document(tmp_path))
    assert experiment.fake_names == ("first", "second")
    assert experiment.class_names == ("real", "first", "second")
    _, first, second = experiment.sources
    assert isinstance(first, ColumnSource)
    assert isinstance(second, ColumnSource)
    assert (first.column, second.column, first.label, second.limit) == ("image_gen0", "image_gen1", "fake", 9)
    assert Experiment.model_validate(experiment.model_dump(mode="json")) == experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": None}, "needs columns as a mapping"),
        ({"columns": ["image_gen0"]}, "needs columns as a mapping"),
        ({"columns": {}}, "needs columns as a mapping"),
        ({"name": "elsa"}, "neither name nor column"),
        ({"columns": {"Big One": "image"}}, "name: String should match"),
        ({"columns": {"photographs": "image_gen0"}}, "two sources have the same name"),
        ({"columns": {"first": "image:gen"}}, "column: String should match"),
        ({"rows": 3}, "rows: there is no such field"),
        ({"limit": 0}, "limit: Input should be greater"),
    ],
)
def test_a_broken_prompt_set_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    broken = document(tmp_path)
    broken["sources"][1] |= changes
    with pytest.raises(SpecError, match=message):
        parse_experiment(broken)


def test_overrides_reach_each_source_of_a_prompt_set_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(document(tmp_path)))
    experiment = load_experiment(str(path), {"sources.first.limit": 3, "sources.second.smaller_by_nature": True})
    _, first, second = experiment.sources
    assert isinstance(first, ColumnSource)
    assert isinstance(second, ColumnSource)
    assert (first.limit, second.limit) == (3, 9)
    assert (first.smaller_by_nature, second.smaller_by_nature) == (False, True)
    with pytest.raises(SpecError, match=r"'sources.third.limit' names no item .*'first', 'second'"):
        load_experiment(str(path), {"sources.third.limit": 3})


def test_before_a_run_all_that_a_set_lacks_is_named_at_once(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "set" / "0.parquet", ["a"])
    broken = document(tmp_path, extractor={"weights": "random:0"})
    broken["sources"][1]["columns"] = {"first": "image_gen0", "third": "image_gen3", "fourth": "image_gen4"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(broken, sort_keys=False))
    with pytest.raises(MissingInput) as caught:
        checked_experiment(str(path))
    assert [[word in line for word in ("photographs", "third", "fourth")] for line in caught.value.missing] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


class Finished:
    """The future of a step that was computed in place."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def result(self) -> Any:
        return self.found


@pytest.fixture
def in_place(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """Steps run where they are submitted, without Prefect."""
    monkeypatch.setattr(Step, "submit", lambda self, **arguments: Finished(self.compute(store, **arguments)[0]))
    return store


def shard_rows(store: LocalStore, images: Images, source: str) -> list[dict[str, Any]]:
    return [row for ref in images.shards[source] for row in read_table(store, ref).to_pylist()]


def test_siblings_of_a_prompt_share_a_fold_across_sources_and_files(tmp_path: Path, in_place: LocalStore) -> None:
    write_data(tmp_path)
    images = image_shards(parse_experiment(document(tmp_path)))
    assert [ref.rows for ref in images.shards["first"]] == [4, 4, 1]
    rows = [row for name in GENERATORS for row in shard_rows(in_place, images, name)]
    places: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        places.setdefault(row["prompt"], set()).add((row["group_id"], row["fold"]))
    assert len(places) == 8
    assert all(len(found) == 1 for found in places.values())
    assert Counter(row["prompt"] for row in rows)["prompt 0"] == 4
    assert {row["image"]["bytes"] for row in shard_rows(in_place, images, "second")} == {
        picture(2000 + seed) for seed in (*range(5), *range(20, 24))
    }


def test_siblings_of_a_prompt_in_a_folder_share_a_fold_and_what_does_not_match_is_logged(
    tmp_path: Path, in_place: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    write_data(tmp_path)
    (tmp_path / "folder").mkdir()
    for seed in range(40):
        (tmp_path / "folder" / f"{seed}.png").write_bytes(picture(4000 + seed))
    lines = [{"file_name": f"{seed}.png", "text": f"prompt {seed % 10}"} for seed in range(39)]
    lines.append({"file_name": "gone.png", "text": "x"})
    (tmp_path / "folder" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = document(tmp_path)
    given["sources"].append({"kind": "folder", "name": "third", "path": str(tmp_path / "folder"), "label": "fake"})
    images = image_shards(parse_experiment(given))
    places: dict[str, set[tuple[str, int]]] = {}
    for name in (*GENERATORS, "third"):
        for row in shard_rows(in_place, images, name):
            places.setdefault(row["prompt"] or row["image_id"], set()).add((row["group_id"], row["fold"]))
    assert len(places) == 11  # prompts 0 to 7 of the set, 0 to 9 of the folder, and a picture without one
    assert all(len(found) == 1 for found in places.values())
    counts, _ = count_images.compute(
        in_place,
        sources=("third",),
        labels=("fake",),
        shards=(images.shards["third"],),
        features=((),),
        entries=(images.indexed["third"],),
        assignment=images.assignment,
    )
    logged = [record.getMessage() for record in caplog.records if record.name == "flows.shard"]
    assert logged == warnings_of(read_table(in_place, counts))
    assert logged == [
        "third: 1 of 40 rows of metadata.jsonl (2.5 %, first: gone.png) name no picture",
        "third: 1 of 40 pictures (2.5 %, first: 39.png) have no row in metadata.jsonl",
        "third: 1 of 40 pictures (2.5 %, first: third:39.png) have neither prompt nor group: each is its own",
        "no photograph is a JPEG: on the fair path all are encoded at 90",
    ]


def test_a_row_without_a_picture_is_set_aside_in_its_own_source_only(tmp_path: Path, in_place: LocalStore) -> None:
    write_data(tmp_path)
    cells = [{"bytes": picture(500 + row), "path": None} for row in range(5)]
    given = [None, {"bytes": None, "path": "1.png"}, {"bytes": b"", "path": "2.png"}, *cells[3:]]
    write_set(tmp_path / "set" / "0.parquet", [f"prompt {row}" for row in range(5)], image_gen1=given)
    images = image_shards(parse_experiment(document(tmp_path)))
    aside = {
        name: [
            (row["image_id"], row["reason"])
            for ref in images.indexed[name]
            for row in read_table(in_place, ref, name=QUARANTINE).to_pylist()
        ]
        for name in GENERATORS
    }
    assert aside == {"first": [], "second": [(f"second:0.parquet/row-{row:09d}", "empty") for row in range(3)]}
    assert len(shard_rows(in_place, images, "first")) == 9
    assert len(shard_rows(in_place, images, "second")) == 6


def with_unseen(root: Path) -> dict[str, Any]:
    (root / "dalle").mkdir()
    for seed in range(3000, 3003):
        (root / "dalle" / f"{seed}.png").write_bytes(picture(seed))
    (root / "dalle" / "copy.png").write_bytes(picture(3))  # of a photograph
    given = document(root)
    given["sources"] += [
        {"kind": "folder", "name": "dalle", "path": str(root / "dalle"), "label": "fake", "evaluated": False},
        {"kind": "prompt-set", "path": str(root / "set"), "columns": {"again": "image_gen1"}, "evaluated": False},
    ]
    rejection = {"unknown": ["dalle"], "shifted": ["again"]}
    given["mobile"] = {"networks": [{"kind": "fine-tuned", "name": "dense"}], "rejection": rejection}
    return given | {"allow_overlap": True}


def test_an_unseen_source_changes_nothing_of_the_others(tmp_path: Path, in_place: LocalStore) -> None:
    write_data(tmp_path)
    before = image_shards(parse_experiment(document(tmp_path)))
    after = image_shards(parse_experiment(with_unseen(tmp_path)))
    assert before.unseen_assignment is None
    assert (after.assignment, after.canonical) == (before.assignment, before.canonical)
    for name in ("photographs", "first", "second"):
        assert after.shards[name] == before.shards[name]
        assert after.indexed[name] == before.indexed[name]
    assert len(shard_rows(in_place, after, "dalle")) == 4
    assert len(shard_rows(in_place, after, "again")) == 10
    assert after.unseen_assignment is not None
    assert set(notes_of(in_place, after.unseen_assignment)["sources"]) == {"dalle", "again"}


def test_only_sources_that_take_no_part_are_unseen(tmp_path: Path) -> None:
    for name in ("first", "photographs", "nothing"):
        given = document(tmp_path)
        given["mobile"] = {"networks": [{"kind": "fine-tuned", "name": "dense"}], "rejection": {"unknown": [name]}}
        with pytest.raises(SpecError, match="a folder or a column with evaluated: false"):
            parse_experiment(given)
