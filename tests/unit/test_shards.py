"""From files to image shards: broken pictures are set aside, duplicates kept together, bytes kept as they are."""

import io
import json
import os
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from storage.digest import sha256_hex
from storage.errors import InputChanged, SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of, read_part, read_table
from storage.tables import IMAGE_METADATA, IMAGE_SCHEMA
from tasks.data.coco import coco_inventory, index_coco
from tasks.data.entries import QUARANTINE
from tasks.data.folder import folder_inventory
from tasks.data.grouping import assign_groups, photograph_qualities
from tasks.data.shards import scan_pictures, shard_images
from tasks.data.sources.coco import CocoSource
from tasks.data.sources.folder import FolderSource, index_folder, unlocated
from tasks.spec.splits import FixedSplits, Folds, Splits


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def scene(seed: int, side: int = 48) -> Image.Image:
    """A smooth picture of its own for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def write_scenes(root: Path, seeds: range, quality: int = 90) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (root / f"{seed:03d}.jpg").write_bytes(encoded(scene(seed), quality=quality))
    return root


@dataclass
class Pipeline:
    """The steps over some folders, as a flow would run them."""

    store: LocalStore
    sources: tuple[FolderSource, ...]
    chunk: int = 4

    def index(self) -> tuple[Ref, ...]:
        return tuple(
            index_folder.compute(
                self.store,
                source=unlocated(source),
                inventory=folder_inventory(source).digest,
                path=source.path,
                metadata=source.metadata,
            )[0]
            for source in self.sources
        )

    def starts(self, entries: Ref) -> range:
        return range(0, entries.rows, self.chunk)

    def scan(self, entries: tuple[Ref, ...]) -> tuple[tuple[Ref, ...], ...]:
        return tuple(
            tuple(
                scan_pictures.compute(
                    self.store, entries=ref, source=source.name, start=start, count=self.chunk, root=source.path
                )[0]
                for start in self.starts(ref)
            )
            for source, ref in zip(self.sources, entries, strict=True)
        )

    def assign(self, splits: Splits, seed: int = 0) -> Ref:
        entries = self.index()
        ref, _ = assign_groups.compute(
            self.store,
            entries=entries,
            scans=self.scan(entries),
            sources=tuple(source.name for source in self.sources),
            labels=tuple(source.label for source in self.sources),
            evaluated=tuple(source.evaluated for source in self.sources),
            splits=splits,
            seed=seed,
        )
        assert isinstance(ref, Ref)
        return ref

    def shard(self, assignment: Ref) -> list[Ref]:
        entries = self.index()
        shards = []
        for source, ref, scans in zip(self.sources, entries, self.scan(entries), strict=True):
            for start, scan in zip(self.starts(ref), scans, strict=True):
                shards.append(
                    shard_images.compute(
                        self.store,
                        entries=ref,
                        scan=scan,
                        assignment=assignment,
                        source=source.name,
                        label=source.label,
                        start=start,
                        count=self.chunk,
                        root=source.path,
                    )[0]
                )
        return shards


def folder_source(name: str, path: Path, label: str, **fields: Any) -> FolderSource:
    return FolderSource.model_validate({"name": name, "path": str(path), "label": label, **fields})


def two_sources(store: LocalStore, root: Path) -> Pipeline:
    return Pipeline(
        store,
        (
            folder_source("photos", write_scenes(root / "photos", range(10)), "real"),
            folder_source("fakes", write_scenes(root / "fakes", range(100, 110), quality=75), "fake"),
        ),
    )


def rows_of(store: LocalStore, refs: list[Ref]) -> list[dict[str, Any]]:
    return [row for ref in refs for row in read_table(store, ref).to_pylist()]


def aside_of(store: LocalStore, ref: Ref) -> dict[str, str]:
    return {row["image_id"]: row["reason"] for row in read_table(store, ref, name=QUARANTINE).to_pylist()}


def test_shards_hold_the_original_bytes_and_what_is_known_of_them(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    assignment = pipeline.assign(FixedSplits())
    shards = pipeline.shard(assignment)
    assert [ref.rows for ref in shards] == [4, 4, 2, 4, 4, 2]
    schema = read_table(store, shards[0]).schema
    assert schema.equals(IMAGE_SCHEMA)
    rows = rows_of(store, shards)
    for row in rows:
        path = tmp_path / row["source"] / row["image"]["path"]
        assert row["image"]["bytes"] == path.read_bytes()
        assert row["sha256"] == sha256_hex(path.read_bytes())
        assert (row["width"], row["height"], row["format"], row["fold"]) == (48, 48, "JPEG", None)
    assert Counter((row["source"], row["label"], row["jpeg_quality"]) for row in rows) == {
        ("photos", 0, 90): 10,
        ("fakes", 1, 75): 10,
    }
    assert Counter((row["source"], row["split"]) for row in rows)["photos", "test"] == 2


def test_a_shard_calls_its_pictures_pictures(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    shard = pipeline.shard(pipeline.assign(Folds(count=3)))[0]
    table = pq.read_table(io.BytesIO(read_part(store, shard, "part-0.parquet")))
    assert json.loads(table.schema.metadata[b"huggingface"]) == json.loads(IMAGE_METADATA["huggingface"])


def test_chunks_and_order_do_not_change_what_is_assigned(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    small = rows_of(store, [pipeline.assign(Folds(count=3))])
    large = rows_of(store, [Pipeline(store, pipeline.sources, chunk=100).assign(Folds(count=3))])
    assert small == large


def test_nothing_is_computed_twice_and_the_place_of_the_files_does_not_matter(
    tmp_path: Path, store: LocalStore
) -> None:
    first = two_sources(store, tmp_path).assign(FixedSplits())
    moved = two_sources(store, tmp_path / "moved")
    entries = moved.index()
    _, found = scan_pictures.compute(
        store, entries=entries[0], source="photos", start=0, count=4, root=moved.sources[0].path
    )
    assert found
    assert moved.assign(FixedSplits()) == first


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bad_pictures_are_set_aside_with_their_reason_and_odd_ones_are_used(tmp_path: Path, store: LocalStore) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    whole = encoded(scene(0))
    frames = [scene(seed) for seed in (1, 2)]
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = scene(3).resize((64, 32))
    grey = np.array(scene(4).convert("L"), dtype=np.uint16) * 257
    good = {
        "alpha.png": encoded(scene(5).convert("RGBA"), "PNG"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": encoded(scene(6).convert("CMYK")),
        "palette.png": encoded(scene(7).convert("P"), "PNG"),
        "rotated.jpg": encoded(wide, exif=turned.tobytes()),
        "sixteen.png": encoded(Image.fromarray(grey), "PNG"),
        "wrong.jpg": encoded(scene(8), "PNG"),
    }
    bad = {
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "dot.png": (encoded(scene(9).resize((1, 1)), "PNG"), "too-small"),
        "empty.jpg": (b"", "empty"),
        "huge.png": (png_header(20_000, 20_000), "too-large"),
        "text.jpg": (b"<html>not found</html>", "unreadable"),
    }
    for name, data in good.items():
        (root / name).write_bytes(data)
    for name, (data, _) in bad.items():
        (root / name).write_bytes(data)
    pipeline = Pipeline(store, (folder_source("photos", root, "real"),), chunk=100)
    [[scan]] = pipeline.scan(pipeline.index())
    assert aside_of(store, scan) == {f"photos:{name}": reason for name, (_, reason) in bad.items()}
    assert notes_of(store, scan) == {"n": len(good), "quarantined": len(bad)}
    rows = {row["image_id"].removeprefix("photos:"): row for row in read_table(store, scan).to_pylist()}
    assert sorted(rows) == sorted(good)
    assert (rows["wrong.jpg"]["format"], rows["wrong.jpg"]["jpeg_quality"]) == ("PNG", None)
    assert (rows["rotated.jpg"]["width"], rows["rotated.jpg"]["height"]) == (64, 32)  # as stored
    [shard] = pipeline.shard(pipeline.assign(Folds(count=3)))
    assert {row["image"]["path"]: row["image"]["bytes"] for row in rows_of(store, [shard])} == good


@pytest.mark.parametrize("change", ["other bytes of equal size and times", "gone", "another orientation"])
def test_nothing_is_made_of_a_file_that_changed_after_the_index(tmp_path: Path, store: LocalStore, change: str) -> None:
    pipeline = two_sources(store, tmp_path)
    assignment = pipeline.assign(FixedSplits())
    entries = pipeline.index()
    scans = pipeline.scan(entries)
    path = tmp_path / "photos" / "000.jpg"
    old, times = path.read_bytes(), path.stat()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(old[:-1] + b"\0" if "bytes" in change else upside_down(old))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    chunk = {"entries": entries[0], "source": "photos", "start": 0, "count": 4, "root": str(tmp_path / "photos")}
    with pytest.raises(InputChanged, match=r"photos: '000\.jpg' has changed or gone"):
        shard_images.compute(store, **chunk, scan=scans[0][0], assignment=assignment, label="real")
    empty = LocalStore(tmp_path / "another store")
    copied = index_of(empty, read_table(store, entries[0]))
    with pytest.raises(InputChanged, match=r"photos: '000\.jpg' has changed or gone"):
        scan_pictures.compute(empty, **{**chunk, "entries": copied})
    assert list(empty.list("objects/scan")) == []
    if change != "gone":
        # What lies there now is another recipe.
        assert pipeline.assign(FixedSplits()) != assignment


def test_rows_of_a_parquet_file_that_was_replaced_are_not_taken(tmp_path: Path, store: LocalStore) -> None:
    pictures = [encoded(scene(seed), "BMP") for seed in range(9)]
    path = tmp_path / "photos.parquet"
    # Without statistics and compression the two files' footers and sizes are equal.
    plain: Any = {"compression": "none", "write_statistics": False, "use_dictionary": False}
    pq.write_table(pa.table({"image": pictures}), path, **plain)
    pipeline = Pipeline(store, (folder_source("photos", path, "real"),))
    [entries] = pipeline.index()
    pq.write_table(pa.table({"image": pictures[::-1]}), path, **plain)
    with pytest.raises(InputChanged, match=r"photos: 'photos\.parquet' has changed or gone"):
        pipeline.scan((entries,))
    assert pipeline.index() != (entries,)


def upside_down(jpeg: bytes) -> bytes:
    """The same scan data with an EXIF orientation of 3 in front."""
    with Image.open(io.BytesIO(jpeg)) as image:
        exif = Image.Exif()
        exif[0x0112] = 3
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality="keep", exif=exif)
    return sink.getvalue()


def index_of(store: LocalStore, table: pa.Table) -> Ref:
    return commit(store, "objects/index/copy", step="index", digest="1" * 64, recipe={}, parts={ROWS: table})


def test_duplicates_within_and_across_sources_share_a_place_and_are_counted(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    photos, fakes = tmp_path / "photos", tmp_path / "fakes"
    (photos / "900.jpg").write_bytes((photos / "003.jpg").read_bytes())  # the same file
    (photos / "901.jpg").write_bytes(encoded(scene(4), quality=60))  # the same picture, saved again
    (fakes / "902.png").write_bytes(encoded(scene(5), "PNG"))  # a fake that is a photograph
    for splits in (FixedSplits(), Folds(count=3)):
        assignment = pipeline.assign(splits)
        rows = {row["image_id"]: row for row in read_table(store, assignment).to_pylist()}
        for copy, original in (
            ("photos:900.jpg", "photos:003.jpg"),
            ("photos:901.jpg", "photos:004.jpg"),
            ("fakes:902.png", "photos:005.jpg"),
        ):
            assert rows[copy]["duplicate_of"] == original
            assert rows[original]["duplicate_of"] is None
            for column in ("group_id", "split", "fold"):
                assert rows[copy][column] == rows[original][column]
        notes = notes_of(store, assignment)
        assert notes["sources"]["photos"]["duplicates"] == {"photos": 2}
        assert notes["sources"]["fakes"]["duplicates"] == {"photos": 1}
        assert (notes["sources"]["photos"]["images"], notes["sources"]["photos"]["groups"]) == (12, 10)
        assert notes["groups_merged_away"] == 3


def test_notes_hold_qualities_and_the_collapse_of_fakes(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    for copy in range(2):
        (tmp_path / "fakes" / f"again{copy}.png").write_bytes(encoded(scene(100), "PNG"))
    (tmp_path / "photos" / "900.jpg").write_bytes(encoded(scene(50), quality=40))
    notes = notes_of(store, pipeline.assign(FixedSplits()))
    assert notes["qualities"] == [[40, 1], [90, 10]]
    assert notes["qualities_are_default"] is False
    assert notes["sources"]["fakes"]["collapse"] == pytest.approx(2 / 12, abs=1e-6)
    assert "collapse" not in notes["sources"]["photos"]


def test_without_a_jpeg_the_qualities_are_the_default_and_say_so() -> None:
    assert photograph_qualities(pa.chunked_array([[None, None]], pa.int16())) == ([[90, 1]], True)
    assert photograph_qualities(pa.chunked_array([[90, None], [75, 75]], pa.int16())) == ([[75, 2], [90, 1]], False)


def test_ranges_leave_photographs_out_of_the_shards(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    assignment = pipeline.assign(FixedSplits(ranges={"train": (0, 5), "val": (5, 6), "test": (6, 8)}))
    shards = pipeline.shard(assignment)
    photos = [row for row in rows_of(store, shards) if row["source"] == "photos"]
    assert [row["split"] for row in photos] == [*["train"] * 5, "val", *["test"] * 2]
    assert [notes_of(store, ref)["left_out"] for ref in shards[:3]] == [0, 0, 2]
    assert notes_of(store, assignment)["sources"]["photos"]["places"]["left-out"] == {"images": 2, "groups": 2}
    assert notes_of(store, assignment)["qualities"] == [[90, 8]]


def test_a_range_through_a_duplicate_is_refused(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    (tmp_path / "photos" / "007.jpg").write_bytes((tmp_path / "photos" / "001.jpg").read_bytes())
    with pytest.raises(SpecError, match=r"photos:001.jpg is in train and photos:007.jpg in test"):
        pipeline.assign(FixedSplits(ranges={"train": (0, 5), "val": (5, 6), "test": (6, 8)}))


def test_a_split_that_is_empty_once_bad_pictures_are_gone_is_refused(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    for path in (tmp_path / "fakes").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(
        SpecError, match=r"no fake picture is left of fakes: (\d+) of \1 set aside: .* \1 \(first: fakes:"
    ):
        pipeline.assign(FixedSplits())


def test_a_split_that_a_few_pictures_cannot_fill_says_what_became_of_the_others(
    tmp_path: Path, store: LocalStore
) -> None:
    pipeline = two_sources(store, tmp_path)
    paths = sorted((tmp_path / "fakes").iterdir())
    for path in paths[1:]:
        path.write_bytes(b"")
    (tmp_path / "fakes" / "IMG_1").write_bytes(b"")
    with pytest.raises(SpecError) as caught:
        pipeline.assign(FixedSplits())
    lost = len(paths) - 1
    assert "no fake picture is left in " in str(caught.value)
    assert "of 1 groups, 1 before merging" in str(caught.value)
    assert f"; of fakes, {lost + 1} of {lost + 2} set aside: empty {lost} (first: fakes:" in str(caught.value)
    assert "not-an-image 1 (first: fakes:IMG_1: the suffix is missing; read are ." in str(caught.value)


def test_copies_of_one_picture_are_told_as_one_group(tmp_path: Path, store: LocalStore) -> None:
    pipeline = two_sources(store, tmp_path)
    paths = sorted((tmp_path / "fakes").iterdir())
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    with pytest.raises(SpecError, match=f"of 1 groups, {len(paths)} before merging"):
        pipeline.assign(FixedSplits())


def test_a_chunk_lies_anywhere_in_a_long_index(tmp_path: Path, store: LocalStore) -> None:
    names = [f"{number:05d}.jpg" for number in range(4_100)]  # more than one row group
    table = pa.table({"image_id": names, "file": [f"../{name}" for name in names], "sha256": names})
    entries = commit(store, "objects/index/x", step="index", digest="0" * 64, recipe={}, parts={ROWS: table})
    for start in (0, 1_995, 2_000, 3_999, 4_095, 5_000):
        scan, _ = scan_pictures.compute(
            store, entries=entries, source="photos", start=start, count=10, root=str(tmp_path)
        )
        assert list(aside_of(store, scan)) == names[start : start + 10]


def test_a_parquet_file_goes_the_same_way(tmp_path: Path, store: LocalStore) -> None:
    pictures = [encoded(scene(seed), "PNG") for seed in range(100, 109)]
    cells = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate([*pictures, b"broken"])]
    pq.write_table(
        pa.table({"image": cells, "prompt": ["a cat"] * 2 + [f"p{n}" for n in range(8)]}), tmp_path / "f.parquet"
    )
    photos = folder_source("photos", write_scenes(tmp_path / "photos", range(9)), "real")
    pipeline = Pipeline(store, (photos, folder_source("fakes", tmp_path / "f.parquet", "fake")))
    rows = [row for row in rows_of(store, pipeline.shard(pipeline.assign(Folds(count=3)))) if row["source"] == "fakes"]
    assert [row["image"]["bytes"] for row in rows] == pictures
    assert [row["image_id"] for row in rows] == [f"fakes:{n}.png" for n in range(9)]
    assert rows[0]["group_id"] == rows[1]["group_id"]
    assert rows[0]["fold"] == rows[1]["fold"]


def test_real_photographs_and_fakes_go_through(store: LocalStore) -> None:
    data = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[2].parent / "shared")) / "data"
    if not (data / "coco").is_dir() or not (data / "sd14").is_dir():
        pytest.skip("no real data: name their directory with TELLTALE_SHARED")
    coco = CocoSource(name="coco", directory=str(data / "coco"), limit=24)
    entries, _ = index_coco.compute(
        store,
        source=coco.name,
        inventory=coco_inventory(coco.directory, coco.split).digest,
        split=coco.split,
        first=0,
        limit=24,
        directory=coco.directory,
    )
    metadata = str(data / "sd14" / "metadata.json")
    fakes = Pipeline(store, (folder_source("sd14", data / "sd14", "fake", metadata=metadata, limit=24),), chunk=24)
    [fake_entries] = fakes.index()
    scan, _ = scan_pictures.compute(store, entries=entries, source="coco", start=0, count=24, root=coco.directory)
    [[fake_scan]] = fakes.scan((fake_entries,))
    assignment, _ = assign_groups.compute(
        store,
        entries=(entries, fake_entries),
        scans=((scan,), (fake_scan,)),
        sources=("coco", "sd14"),
        labels=("real", "fake"),
        evaluated=(True, True),
        splits=Folds(count=5),
        seed=0,
    )
    notes = notes_of(store, assignment)
    assert {name: facts["images"] for name, facts in notes["sources"].items()} == {"coco": 24, "sd14": 24}
    assert sum(count for _, count in notes["qualities"]) == 24
    assert all(facts["duplicates"] == {} for facts in notes["sources"].values())
