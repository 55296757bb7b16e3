"""What a shard says of each picture is what its file is, in whatever container, order, chunk and form it came."""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.local import LocalStore
from storage.objects import read_table
from storage.tables import FAKE, REAL
from tasks.data.folder import folder_inventory
from tasks.data.grouping import assign_groups
from tasks.data.pictures import decode_rgb
from tasks.data.shards import scan_pictures, shard_images
from tasks.data.sources.folder import FolderSource, index_folder, unlocated
from tasks.spec.splits import Folds

# Where the first row and the first column of the stored pixels lie in the upright picture (TIFF 6.0, tag 274).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@dataclass(frozen=True)
class Picture:
    seed: int
    width: int  # as stored
    height: int
    kind: str
    quality: int
    orientation: int

    def stored(self) -> npt.NDArray[np.uint8]:
        # Smooth, and different enough that no two are duplicates.
        small = np.random.default_rng(self.seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return np.array(Image.fromarray(small).resize((self.width, self.height), Image.Resampling.BICUBIC))

    def encoded(self) -> bytes:
        sink = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = self.orientation
        options: dict[str, Any] = {"exif": exif.tobytes()} if self.orientation != 1 and self.kind != "BMP" else {}
        if self.kind == "JPEG":
            options |= {"quality": self.quality, "subsampling": 0}
        if self.kind == "WEBP":
            options |= {"lossless": True, "exact": True}
        Image.fromarray(self.stored()).save(sink, self.kind, **options)
        return sink.getvalue()

    def upright(self) -> npt.NDArray[np.uint8]:
        """What Pillow decodes, pixel by pixel where the standard says that row 0 and column 0 lie."""
        row_side, column_side = SIDES[1 if self.kind == "BMP" else self.orientation]
        with Image.open(io.BytesIO(self.encoded())) as image:
            stored = np.array(image.convert("RGB"))
        turned = row_side in ("left", "right")
        shape = (self.width, self.height, 3) if turned else (self.height, self.width, 3)
        result = np.empty(shape, np.uint8)
        for row in range(self.height):
            for column in range(self.width):
                at = {}
                for side, index in ((row_side, row), (column_side, column)):
                    along = shape[0] if side in ("top", "bottom") else shape[1]
                    axis = "y" if side in ("top", "bottom") else "x"
                    at[axis] = index if side in ("top", "left") else along - 1 - index
                result[at["y"], at["x"]] = stored[row, column]
        return result


@st.composite
def pictures(draw: st.DrawFn) -> tuple[list[Picture], list[Picture]]:
    def one(seed: int) -> Picture:
        return Picture(
            seed=seed,
            width=draw(st.integers(9, 24)),
            height=draw(st.integers(9, 24)),
            kind=draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"])),
            quality=draw(st.integers(80, 100)),
            orientation=draw(st.integers(1, 8)),
        )

    first = draw(st.integers(0, 10**6))
    counts = draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))
    return [one(first + n) for n in range(counts[0])], [one(first + 100 + n) for n in range(counts[1])]


def write(root: Path, listed: list[Picture], rows_per_group: int | None) -> Path:
    """A folder of files, or a Parquet file with so many rows in a row group; names do not follow the order."""
    names = [f"{n * 7 % 10}-{n}.jpg" for n in range(len(listed))]
    if rows_per_group is None:
        root.mkdir()
        for name, picture in zip(names, listed, strict=True):
            (root / name).write_bytes(picture.encoded())
        return root
    cells = [{"bytes": one.encoded(), "path": name} for name, one in zip(names, listed, strict=True)]
    pq.write_table(pa.table({"image": cells}), f"{root}.parquet", row_group_size=rows_per_group)
    return Path(f"{root}.parquet")


def shard_rows(store: LocalStore, sources: list[FolderSource], chunk: int) -> Iterator[dict[str, Any]]:
    entries = [
        index_folder.compute(
            store,
            source=unlocated(source),
            inventory=folder_inventory(source).digest,
            path=source.path,
            metadata=None,
        )[0]
        for source in sources
    ]
    chunks = [
        [
            {"entries": ref, "source": source.name, "start": start, "count": chunk, "root": source.path}
            for start in range(0, ref.rows, chunk)
        ]
        for source, ref in zip(sources, entries, strict=True)
    ]
    scans = [[scan_pictures.compute(store, **one)[0] for one in of_source] for of_source in chunks]
    assignment, _ = assign_groups.compute(
        store,
        entries=tuple(entries),
        scans=tuple(map(tuple, scans)),
        sources=tuple(source.name for source in sources),
        labels=tuple(source.label for source in sources),
        evaluated=(True,) * len(sources),
        splits=Folds(count=3),
        seed=0,
    )
    for source, of_source, scanned in zip(sources, chunks, scans, strict=True):
        for one, scan in zip(of_source, scanned, strict=True):
            ref, _ = shard_images.compute(store, **one, scan=scan, assignment=assignment, label=source.label)
            yield from read_table(store, ref).to_pylist()


@given(pictures(), st.tuples(*[st.one_of(st.none(), st.integers(1, 10))] * 2), st.integers(1, 10))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_row_holds_its_own_picture_and_facts(
    made: tuple[list[Picture], list[Picture]], groups: tuple[int | None, int | None], chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        labels: tuple[Literal["real", "fake"], ...] = ("real", "fake")
        sources = [
            FolderSource(name=label, label=label, path=str(write(Path(folder) / label, listed, rows)))
            for label, listed, rows in zip(labels, made, groups, strict=True)
        ]
        rows = list(shard_rows(LocalStore(Path(folder) / "store"), sources, chunk))
    expected = {
        f"{label}:{n * 7 % 10}-{n}.jpg": (picture, label)
        for label, listed in zip(labels, made, strict=True)
        for n, picture in enumerate(listed)
    }
    assert sorted(row["image_id"] for row in rows) == sorted(expected)
    for row in rows:
        picture, label = expected[row["image_id"]]
        assert row["image"]["bytes"] == picture.encoded()
        assert (row["source"], row["label"]) == (label, {"real": REAL, "fake": FAKE}[label])
        assert (row["width"], row["height"], row["format"]) == (picture.width, picture.height, picture.kind)
        assert row["jpeg_quality"] == (picture.quality if picture.kind == "JPEG" else None)
        assert (row["group_id"], row["split"]) == (row["image_id"], None)
        assert row["fold"] in range(3)
        np.testing.assert_array_equal(decode_rgb(row["image"]["bytes"]), picture.upright())


@pytest.mark.parametrize("orientation", SIDES)
def test_the_definition_and_pillow_agree_on_what_is_upright(orientation: int) -> None:
    from PIL import ImageOps

    picture = Picture(seed=3, width=9, height=12, kind="PNG", quality=90, orientation=orientation)
    with Image.open(io.BytesIO(picture.encoded())) as image:
        np.testing.assert_array_equal(np.array(ImageOps.exif_transpose(image)), picture.upright())
