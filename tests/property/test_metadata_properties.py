"""What is stated of pictures outside reaches the tables as it was stated, whatever form it came in."""

import csv
import json
import math
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.local import LocalStore
from storage.objects import Ref, read_table
from storage.tables import FAKE, REAL
from tasks.data.coco import coco_inventory, index_coco
from tasks.data.columns import column_inventory
from tasks.data.folder import folder_inventory
from tasks.data.grouping import assign_groups
from tasks.data.metadata import NamedPictures
from tasks.data.shards import scan_pictures, shard_images
from tasks.data.sources.column import ColumnSource, index_column, unlocated_column
from tasks.data.sources.folder import FolderSource, index_folder, unlocated
from tasks.spec.splits import FixedSplits
from tests.unit.indexed_folders import indexed, rows_of

FIELDS = ("prompt", "text", "caption", "group_id", "class_name", "licence", "seed")

# Of every kind that writers leave in such files; lone surrogates are tested apart.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [
            "", " ", "nan", "NaN", "None", "null", "<NA>", "007", "1e5", "1.0", "True", "-1", "a, b", 'a "b"', "a;b\tc",
            "one\ntwo", "one\r\ntwo", " a cat ", "a  cat", "a cat", "caf\u00e9", "cafe\u0301", "\ufeffx", "a\u2028b",
            "18446744073709551615", "[1, 2]", "{}", "=1+1", "\u200b",
        ]
    ),
)  # fmt: skip
numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(width=64), st.sampled_from([0, 1, 7.0, -0.0, math.nan]), st.booleans()
)
values = st.one_of(st.none(), texts, numbers, st.lists(st.one_of(st.none(), texts), max_size=3))
rows_of_json = st.lists(st.dictionaries(st.sampled_from(FIELDS), values), min_size=1, max_size=6)
rows_of_texts = st.lists(st.dictionaries(st.sampled_from(FIELDS), texts), min_size=1, max_size=6)


def plain(value: object) -> str | None:
    """The text that a value states, said once more."""
    if isinstance(value, list):
        stated = [plain(item) for item in value]
        return next((text for text in stated if text is not None), None)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isfinite(value) and value == round(value) and abs(value) < 9e15:
        return format(value + 0.0, ".0f").replace("-0", "0") if value == 0 else format(value, ".0f")
    text = str(value)
    if re.fullmatch(r"\s*(|nan|none|null|<na>|nat|#?n/a)\s*", text, re.IGNORECASE):
        return None
    return text


def plain_group(text: str) -> str:
    """A group without white space around it and, if it is a whole number, without decimals."""
    group = text.strip()
    return group[:-2] if group.endswith(".0") and re.fullmatch("-?[0-9]+", group[:-2]) else group


def same_prompt(one: str, other: str) -> bool:
    """Whether two prompts have the same letters, marks and numbers, or where they have none, the same signs."""
    return said(one) == said(other)


def said(text: str) -> str:
    """What two texts that people would call equal have in common."""
    seen = "".join(
        sign
        for sign in text
        if not re.search("VARIATION SELECTOR|FILLER|GRAPHEME JOINER|VOWEL INHERENT", unicodedata.name(sign, ""))
    )
    form = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", seen).casefold()).casefold()
    form = unicodedata.normalize("NFKD", form)
    if re.search(r"[^\W_]", form):
        return "".join(sign for sign in form if re.match(r"[^\W_]", sign) or unicodedata.category(sign).startswith("M"))
    return re.sub(r"\s+", " ", unicodedata.normalize("NFD", seen)).strip(" ")


def check_described(rows: Sequence[dict[str, Any]], label: str, indexed: Sequence[dict[str, Any]]) -> None:
    """Compare what an index says with what the rows stated."""
    assert len(indexed) == len(rows)
    stated = [{name: plain(row.get(name)) for name in FIELDS} for row in rows]
    prompts = []
    for row, entry in zip(stated, indexed, strict=True):
        told = [row[name] for name in (("prompt", "text", "caption") if label == "fake" else ("prompt",))]
        prompt = next((text for text in told if text is not None), None)
        caption = row["caption"] if label == "fake" or row["caption"] is not None else row["text"]
        assert (entry["prompt"], entry["caption"]) == (prompt, caption)
        assert (entry["licence"], entry["seed"]) == (row["licence"], row["seed"])
        assert entry["categories"] == ([] if row["class_name"] is None else [row["class_name"]])
        prompts.append(prompt)
    for i, (row, entry) in enumerate(zip(stated, indexed, strict=True)):
        if row["group_id"] is not None:
            assert entry["group_id"] == plain_group(row["group_id"])
        elif label == "real" or prompts[i] is None:
            assert entry["group_id"] == entry["image_id"]
        for j in range(i):
            if label == "fake" and row["group_id"] is None and stated[j]["group_id"] is None:
                one, other = prompts[i], prompts[j]
                is_one_group = one is not None and other is not None and same_prompt(one, other)
                assert (entry["group_id"] == indexed[j]["group_id"]) == is_one_group


def index_of(root: Path, write: Callable[[Path, list[dict[str, Any]]], None], rows: Sequence[dict[str, Any]],
             suffix: str, label: str) -> list[dict[str, Any]]:  # fmt: skip
    """The entries of pictures `0.png`, `1.png`, ..., with a metadata file beside them in any order of its rows."""
    folder = root / "pictures"
    folder.mkdir()
    for number in range(len(rows)):
        (folder / f"{number}.png").write_bytes(b"x")
    named = [{"file_name": f"{number}.png", **row} for number, row in enumerate(rows)]
    random.Random(len(rows)).shuffle(named)
    write(folder / f"metadata{suffix}", named)
    source = FolderSource(name="sd", path=str(folder), label=label)  # type: ignore[arg-type]
    return entries(LocalStore(root / "store"), source)


def entries(store: LocalStore, source: FolderSource) -> list[dict[str, Any]]:
    return rows_of(store, indexed(store, source))


def write_list(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=len(rows) % 2 == 0), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) for row in rows), encoding="utf-8")


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    delimiter = ",;\t"[len(rows) % 3]
    with path.open("w", encoding="utf-8-sig" if len(rows) % 2 else "utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", *FIELDS], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@settings(max_examples=150, deadline=None)
@given(rows_of_json, st.sampled_from([".json", ".jsonl"]), st.sampled_from(["real", "fake"]))
def test_what_json_states_is_indexed(rows: list[dict[str, Any]], suffix: str, label: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        found = index_of(Path(root), write_list if suffix == ".json" else write_lines, rows, suffix, label)
    check_described(rows, label, found)


@settings(max_examples=100, deadline=None)
@given(rows_of_texts, st.sampled_from(["real", "fake"]))
def test_what_csv_states_is_indexed(rows: list[dict[str, Any]], label: str) -> None:
    assume(all("\0" not in text for row in rows for text in row.values()))
    with tempfile.TemporaryDirectory() as root:
        found = index_of(Path(root), write_table, rows, ".csv", label)
    check_described(rows, label, found)


columns = st.sampled_from(
    [
        (pa.string(), st.one_of(st.none(), texts)),
        (pa.large_string(), st.one_of(st.none(), texts)),
        (pa.int64(), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
        (pa.uint64(), st.one_of(st.none(), st.integers(0, 2**64 - 1))),
        (pa.float64(), st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float))),
        (pa.bool_(), st.one_of(st.none(), st.booleans())),
        (pa.list_(pa.string()), st.one_of(st.none(), st.lists(st.one_of(st.none(), texts), max_size=3))),
        (pa.null(), st.none()),
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, pa.Array], list[dict[str, Any]]]:
    """Typed columns of some fields, and their rows."""
    count = draw(st.integers(1, 6))
    arrays = {}
    for name in draw(st.lists(st.sampled_from(FIELDS), unique=True)):
        kind, cells = draw(columns)
        arrays[name] = pa.array(draw(st.lists(cells, min_size=count, max_size=count)), kind)
        if pa.types.is_string(kind) and draw(st.booleans()):
            arrays[name] = arrays[name].dictionary_encode()
    rows = [{name: array[row].as_py() for name, array in arrays.items()} for row in range(count)]
    return arrays, rows


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(["real", "fake"]), st.booleans())
def test_what_parquet_states_is_indexed(
    table: tuple[dict[str, pa.Array], list[dict[str, Any]]], label: str, inline: bool
) -> None:
    arrays, rows = table
    with tempfile.TemporaryDirectory() as root:
        if inline:
            path = Path(root) / "set.parquet"
            pq.write_table(pa.table({"image": [b"x"] * len(rows), **arrays}), path, row_group_size=2)
            source = FolderSource(name="sd", path=str(path), label=label)  # type: ignore[arg-type]
            found = entries(LocalStore(Path(root) / "store"), source)
        else:

            def write(path: Path, named: list[dict[str, Any]]) -> None:
                order = [int(row["file_name"].removesuffix(".png")) for row in named]
                names = pa.array([row["file_name"] for row in named])
                pq.write_table(
                    pa.table({"file_name": names, **{k: v.take(pa.array(order)) for k, v in arrays.items()}}), path
                )

            found = index_of(Path(root), write, rows, ".parquet", label)
    check_described(rows, label, found)


@settings(max_examples=100, deadline=None)
@given(columns.flatmap(lambda one: st.tuples(st.just(one[0]), st.lists(one[1], min_size=1, max_size=8))))
def test_what_a_column_of_prompts_states_is_indexed(column: tuple[pa.DataType, list[Any]]) -> None:
    kind, cells = column
    array = pa.array(cells, kind)
    stated = [plain(cell) for cell in array.to_pylist()]
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "set.parquet"
        pq.write_table(pa.table({"image": [b"x"] * len(cells), "told": array}), path, row_group_size=3)
        source = ColumnSource(name="sd", path=str(path), column="image", prompt_column="told")
        store = LocalStore(Path(root) / "store")
        ref, _ = index_column.compute(
            store, source=unlocated_column(source), inventory=column_inventory(source).digest, path=str(path)
        )
        found = read_table(store, ref).to_pylist()
    assert [row["prompt"] for row in found] == stated
    for i, one in enumerate(stated):
        for j, other in enumerate(stated[:i]):
            is_one_group = one is not None and other is not None and same_prompt(one, other)
            assert (found[i]["group_id"] == found[j]["group_id"]) == is_one_group


# Names

parts = st.text(st.sampled_from("abAB1 %\u00e9\u00c9\u00df."), min_size=1, max_size=4).filter(
    lambda part: part.strip(".") != "" and part == part.strip()
)
names = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(parts, max_size=2),
    parts,
    st.sampled_from([".png", ".PNG", ".jpg"]),
)
WRITTEN_OTHERWISE: dict[str, Callable[[str], str]] = {
    "dot": lambda name: f"./{name}",
    "strokes": lambda name: name.replace("/", "//"),
    "windows": lambda name: name.replace("/", "\\"),
    "quoted": quote,
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "upper": str.upper,
    "absolute": lambda name: f"/home/me/Pictures/{name}",
    "drive": lambda name: f"D:\\Pictures\\{name}".replace("/", "\\"),
    "address": lambda name: f"https://example.org/pictures/{quote(name)}",
    "stem": lambda name: name[: name.rindex(".")],
}


@settings(max_examples=500, deadline=None)
@given(st.lists(names, min_size=1, max_size=6, unique=True), st.sampled_from(sorted(WRITTEN_OTHERWISE)), st.data())
def test_a_name_finds_its_picture_or_none_but_never_one_that_is_not_alike(
    pictures: list[str], way: str, data: st.DataObject
) -> None:
    named = NamedPictures(pictures, "")
    assert [named.find(picture) for picture in pictures] == [(0, picture) for picture in pictures]
    picture = data.draw(st.sampled_from(pictures))
    stated = WRITTEN_OTHERWISE[way](picture)
    found = named.find(stated)

    def letters(name: str) -> str:
        return unicodedata.normalize("NFD", unicodedata.normalize("NFC", name).casefold())

    def stem(name: str) -> str:
        return name[: name.rindex(".")]

    # Whatever else could be meant: it has the same letters, the same name without its suffix, or ends alike.
    wanted = letters(stem(picture) if way == "stem" else picture)
    alike = [
        name
        for name in pictures
        if wanted in (letters(name), letters(stem(name))) or letters(name).endswith(f"/{wanted}") or "%" in name
    ]
    assert found is None or found[1] in alike
    if len(alike) == 1:
        assert found is not None
        assert found[1] == picture


# COCO

annotations = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 4), texts), unique_by=lambda one: one[0])


@settings(max_examples=60, deadline=None)
@given(annotations, st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5))), st.data())
def test_captions_and_categories_of_coco_are_indexed(
    spoken: list[tuple[int, int, str]], boxes: list[tuple[int, int]], data: st.DataObject
) -> None:
    groups = data.draw(st.lists(values, min_size=4, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "coco"
        (root / "val").mkdir(parents=True)
        (root / "annotations").mkdir()
        for number in range(1, 5):
            (root / "val" / f"{number}.jpg").write_bytes(b"x")
        images = [{"id": n, "file_name": f"{n}.jpg", "group": groups[n - 1]} for n in (3, 1, 4, 2)]
        told = [{"id": key, "image_id": n, "caption": text} for key, n, text in spoken]
        (root / "annotations" / "captions_val.json").write_text(json.dumps({"images": images, "annotations": told}))
        kinds = [{"id": n, "name": f"kind {6 - n}"} for n in (5, 2, 1, 4, 3)]
        found = [{"id": key, "image_id": n, "category_id": kind} for key, (n, kind) in enumerate(boxes)]
        (root / "annotations" / "instances_val.json").write_text(
            json.dumps({"annotations": found, "categories": kinds})
        )
        store = LocalStore(Path(folder) / "store")
        ref, _ = index_coco.compute(
            store,
            source="coco",
            inventory=coco_inventory(str(root), "val").digest,
            split="val",
            first=0,
            limit=None,
            directory=str(root),
        )
        rows = read_table(store, ref).to_pylist()
    for number, row in enumerate(rows, start=1):
        image_id = f"coco:{number:012d}"
        said = [text for _, n, text in sorted(spoken) if n == number and plain(text) is not None]
        group = plain(groups[number - 1])
        assert row["image_id"] == image_id
        assert row["caption"] == (said[0] if said else None)
        assert row["categories"] == [f"kind {6 - kind}" for kind in sorted({kind for n, kind in boxes if n == number})]
        assert row["group_id"] == (image_id if group is None else f"coco:{plain_group(group)}")
    assert len(rows) == 4


# From the index to the image shards


def test_image_shards_say_of_each_picture_what_was_stated_of_it(tmp_path: Path) -> None:
    random_pixels = np.random.default_rng(0)
    odd = [
        "a cat",
        "one\r\ntwo",
        "caf\u00e9",
        "\U0001f600",
        "x" * 3000,
        "007",
        "\u202eright to left",
        "a\u2028b",
        "=1+1",
    ]
    store = LocalStore(tmp_path / "store")
    given: dict[Literal["real", "fake"], dict[str, dict[str, Any]]] = {}
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        lines = []
        for number, text in enumerate(odd):
            pixels = random_pixels.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(tmp_path / label / f"{number}.png")
            lines.append(
                {"file_name": f"{number}.png", "prompt": f"{label} {text}", "caption": text, "class_name": f"c{text}",
                 "licence": f"l{text}", "seed": 2**64 - number - 1, "group_id": f"g{number // 2}"}
            )  # fmt: skip
        write_lines(tmp_path / label / "metadata.jsonl", lines)
        given[label] = {f"{label}:{line['file_name']}": line for line in lines}
    sources = [FolderSource(name=label, path=str(tmp_path / label), label=label) for label in given]
    indexes, scans = [], []
    for source in sources:
        ref, _ = index_folder.compute(
            store, source=unlocated(source), inventory=folder_inventory(source).digest, path=source.path, metadata=None
        )
        indexes.append(ref)
        place = {"entries": ref, "source": source.name, "start": 0, "count": 99, "root": source.path}
        scans.append(scan_pictures.compute(store, **place)[0])
    assignment, _ = assign_groups.compute(
        store,
        entries=tuple(indexes),
        scans=tuple((scan,) for scan in scans),
        sources=("real", "fake"),
        labels=("real", "fake"),
        evaluated=(True, True),
        splits=FixedSplits(groups={"g0": "test", "g1": "val", "g2": "train"}),
        seed=0,
    )
    splits: dict[str, set[str]] = {}
    for source, ref, scan in zip(sources, indexes, scans, strict=True):
        shard: Ref = shard_images.compute(
            store, entries=ref, scan=scan, assignment=assignment, source=source.name, label=source.label, start=0,
            count=99, root=source.path,
        )[0]  # fmt: skip
        rows = read_table(store, shard).to_pylist()
        assert {row["image_id"] for row in rows} == set(given[source.label])
        for row in rows:
            line = given[source.label][row["image_id"]]
            assert row["image"]["bytes"] == (tmp_path / source.label / line["file_name"]).read_bytes()
            assert (row["source"], row["label"]) == (source.name, REAL if source.label == "real" else FAKE)
            assert (row["prompt"], row["caption"]) == (line["prompt"], line["caption"])
            assert (row["categories"], row["licence"]) == ([line["class_name"]], line["licence"])
            assert (row["seed"], row["group_id"]) == (str(line["seed"]), line["group_id"])
            splits.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert (splits["g0"], splits["g1"], splits["g2"]) == ({"test"}, {"val"}, {"train"})
