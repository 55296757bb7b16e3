"""What is counted on the way reaches the table of pictures, and what is left open its warnings."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, read_table
from storage.tables import IMAGE_SCHEMA
from tasks.data.encoding import encode_jpeg, encode_png
from tasks.data.histories import count_encodings, encodings_of
from tasks.data.pictures import inspect_picture
from tasks.report.counts import count_images, warnings_of


def kept(store: LocalStore, name: str, table: pa.Table, **notes: Any) -> Ref:
    return commit(store, f"objects/x/{name}", step="x", digest=name, recipe={}, parts={ROWS: table}, notes=notes)


def test_duplicates_left_out_and_unread_pictures_are_counted_per_source(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    empty = pa.table({"image_id": pa.array([], pa.string())})
    features = pa.table({"group_id": ["a", "a", "b"], "split": pa.nulls(3, pa.string()), "fold": [0, 0, 1]})
    facts = {"label": "real", "evaluated": True, "images": 9, "places": {}}
    unseen = {"label": "fake", "evaluated": False, "images": 3, "places": {}, "duplicates": {"new": 2}}
    more = {"shared": {"count": 0, "first": []}, "qualities": [[90, 9]], "qualities_are_default": False}
    assignment = kept(
        store,
        "a",
        empty,
        sources={"coco": facts | {"duplicates": {"coco": 1, "x": 3}}, "x": facts | {"duplicates": {}}},
        unknown_groups=[],
        **more,
    )
    other = kept(store, "u", empty, sources={"new": unseen}, unknown_groups=[], **more)
    of_view = kept(store, "f", features, left_out=2, undecodable=1)
    images = kept(store, "i", empty)
    index = kept(store, "e", empty, warnings=["coco: look"])
    counts, _ = count_images.compute(
        store,
        sources=("coco", "new"),
        labels=("real", "fake"),
        shards=((images,), (images,)),
        features=((of_view, of_view), ()),
        entries=((index,), ()),
        assignment=assignment,
        unseen_assignment=other,
    )
    table = read_table(store, counts)
    rows = [
        {key: row[key] for key in ("source", "split_or_fold", "images", "groups", "left_out", "duplicates")}
        for row in table.to_pylist()
    ]
    whole = {"source": "coco", "left_out": 4, "duplicates": 4}
    assert rows == [
        {**whole, "split_or_fold": "fold 0", "images": 4, "groups": 1},
        {**whole, "split_or_fold": "fold 1", "images": 2, "groups": 1},
        {
            "source": "new",
            "left_out": 0,
            "duplicates": 2,
            "split_or_fold": "rejection only",
            "images": 0,
            "groups": None,
        },
    ]
    assert warnings_of(table) == [
        "coco: look",
        "2 pictures of coco were read when they were scanned and not when they were embedded: the workers have other "
        "libraries",
    ]


def test_files_that_are_not_matched_are_counted_per_source(tmp_path: Path) -> None:
    store, pixels, own = LocalStore(tmp_path / "store"), np.zeros((16, 16, 3), np.uint8), io.BytesIO()
    tables = [[step + 1 for step in table] for table in inspect_picture(encode_jpeg(pixels, 80)).quantization_tables]
    Image.fromarray(pixels).save(own, "JPEG", qtables=tables, subsampling=2)
    files = [(encode_png(pixels), "PNG", None), (encode_jpeg(pixels, 80), "JPEG", 80), (own.getvalue(), "JPEG", 80)]
    known = [
        {"image": {"bytes": data, "path": None}, "format": form, "jpeg_quality": quality, "width": 16, "height": 16}
        for data, form, quality in (*files, files[0])
    ]
    rows = [dict.fromkeys(IMAGE_SCHEMA.names) | {"source": "sd", "image_id": "i"} | one for one in known]
    shard = kept(store, "s", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))
    encoded, _ = count_encodings.compute(store, images=(shard,), source="sd")
    # Matching does not tell such files apart, and takes both by their quality.
    assert encodings_of(store, [encoded]) == [(80, "420", 2)]
    more = {"shared": {"count": 0, "first": []}, "qualities": [[90, 9]], "qualities_are_default": False}
    assignment = kept(store, "a", pa.table({"x": [1]}), sources={}, unknown_groups=[], **more)
    counts, _ = count_images.compute(
        store,
        sources=("sd", "made"),
        labels=("fake", "fake"),
        shards=((), ()),
        features=((), ()),
        entries=((), ()),
        assignment=assignment,
        encodings=((encoded,), ()),
    )
    names = ("files", "no_jpegs", "own_tables", "own_tables_quality")
    assert [[row[name] for name in names] for row in read_table(store, counts).to_pylist()] == [
        [4, 2, 1, 80],
        [None] * 4,
    ]
