"""Feature shards: the views of each picture, described once, with small and broken pictures left out and counted."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.local import LocalStore
from storage.objects import notes_of, read_manifest
from storage.tables import embedding_matrix, read_features
from tasks import kept_networks
from tasks.data.perturbations.base import ViewPicture
from tasks.data.views import PROBE_FEATURE_NAMES, make_views
from tasks.features import probe
from tasks.features import shards as features_module
from tasks.features.probe import ProbeSpec
from tasks.features.shards import embed_images
from tasks.features.vgg16 import embed_pictures, import_vgg16, load_vgg16
from tasks.features.vgg16_layout import tensor_shapes
from tasks.spec.views import Canonical, View
from tests.unit.embedded_shards import (
    CANONICAL,
    FAIR,
    FAIR_Q20,
    RAW,
    RAW_NATIVE,
    VGG16,
    VIEWS,
    embed,
    image_table,
    jpeg,
    png,
    seven_pictures,
    shard,
)


@pytest.fixture(scope="module")
def pictures() -> pa.Table:
    return seven_pictures()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_each_view_gets_an_object_of_its_own_with_what_was_left_out(store: LocalStore, pictures: pa.Table) -> None:
    refs = embed(store, shard(store, pictures))
    assert [ref.uri.rsplit("/", 1)[0] for ref in refs] == [
        f"objects/embed/vgg16-pool5-avg-32/{view.name}/coco-00003" for view in VIEWS
    ]
    fair = {"rows": 5, "dimension": 512, "left_out": 1, "unmatched": 0, "enlarged": 0, "undecodable": 1}
    raw = {"rows": 6, "dimension": 512, "left_out": 0, "unmatched": 0, "enlarged": 0, "undecodable": 1}
    assert [notes_of(store, ref) for ref in refs] == [fair, fair, raw, raw]
    frame = read_features(store, refs[:1])
    assert frame["image_id"].to_list() == [f"image-{index}" for index in (0, 1, 4, 5, 6)]
    assert frame["group_id"].to_list() == [f"group-{index}" for index in (0, 1, 4, 5, 6)]


def test_features_are_those_of_the_views_pixels(store: LocalStore, pictures: pa.Table) -> None:
    refs = embed(store, shard(store, pictures))
    data = pictures["image"][1].as_py()["bytes"]
    views = make_views(data, "image-1", VIEWS, CANONICAL)
    network = load_vgg16(VGG16, None)
    for view, ref in zip(VIEWS, refs, strict=True):
        expected = embed_pictures(network, VGG16, [views[view].pixels])[0]
        found = embedding_matrix(read_features(store, [ref]))[1]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_pictures_smaller_by_nature_are_enlarged_and_counted(store: LocalStore, pictures: pa.Table) -> None:
    notes = [notes_of(store, ref) for ref in embed(store, shard(store, pictures), enlarge=True)]
    assert [(note["rows"], note["left_out"], note["enlarged"]) for note in notes] == [
        (6, 0, 1),
        (6, 0, 1),
        (6, 0, 0),
        (6, 0, 0),
    ]


def test_a_view_is_the_same_whatever_other_views_are_missing(
    store: LocalStore, pictures: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shard(store, pictures)
    alone = embed(store, images, views=(FAIR_Q20,))
    asked: list[set[View]] = []

    def watched(data: bytes, image_id: str, views: list[View], canonical: Canonical) -> dict[View, ViewPicture]:
        asked.append(set(views))
        return make_views(data, image_id, views, canonical)

    monkeypatch.setattr(features_module, "make_views", watched)
    together = embed(store, images)
    assert together[1] == alone[0]
    assert len(asked) == pictures.num_rows
    assert set().union(*asked) == {FAIR, RAW, RAW_NATIVE}
    other = LocalStore(store.root / "other")
    fresh = embed(other, shard(other, pictures))
    contents = [
        [read_manifest(at, ref.uri).content for ref in refs] for at, refs in ((store, together), (other, fresh))
    ]
    assert contents[0] == contents[1]


def test_a_shard_of_which_nothing_is_left_gives_an_empty_table(store: LocalStore) -> None:
    refs = embed(store, shard(store, image_table([(png(40), 40, 40)])), views=(FAIR,))
    frame = read_features(store, refs)
    assert frame.is_empty()
    assert embedding_matrix(frame).shape == (0, 512)


def test_imported_weights_are_used(store: LocalStore, pictures: pa.Table, tmp_path: Path) -> None:
    import hashlib

    from safetensors.numpy import save_file

    tensors = {name: np.zeros(shape, np.float16) for name, shape in tensor_shapes("pool5-avg").items()}
    tensors["features.28.bias"][:] = 0.25
    path = tmp_path / "vgg16.safetensors"
    save_file(tensors, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights, _ = import_vgg16.compute(store, sha256=sha256, layer="pool5-avg", path=str(path))
    extractor = VGG16.model_copy(update={"weights": f"sha256:{sha256}"})
    refs = embed(store, shard(store, pictures), views=(FAIR,), extractor=extractor, weights=weights)
    np.testing.assert_array_equal(embedding_matrix(read_features(store, refs)), 0.25)


def test_as_is_pictures_of_several_sizes_keep_their_rows(store: LocalStore) -> None:
    table = image_table([(jpeg(64), 80, 64), (png(40), 40, 40), (jpeg(64, 1), 80, 64)])
    extractor = VGG16.model_copy(update={"side": None}).load(store, None, "cpu")
    together = embed_images(table, [RAW_NATIVE], extractor, CANONICAL, enlarge=False)[RAW_NATIVE]
    alone = [embed_images(table.slice(row, 1), [RAW_NATIVE], extractor, CANONICAL, enlarge=False) for row in range(3)]
    expected = np.concatenate([part[RAW_NATIVE].matrix() for part in alone])
    np.testing.assert_allclose(together.matrix(), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_the_probe_sees_the_files_and_no_content(store: LocalStore, pictures: pa.Table) -> None:
    refs = embed(store, shard(store, pictures), extractor=ProbeSpec(), views=(RAW_NATIVE,))
    assert refs[0].uri.startswith("objects/embed/probe/raw/native/none/coco-00003/")
    values = embedding_matrix(read_features(store, refs))
    column = dict(zip(PROBE_FEATURE_NAMES, values.T, strict=True))
    data = pictures["image"][0].as_py()["bytes"]
    assert values.shape == (6, probe.DIMENSION)
    assert np.exp(column["width"]) == pytest.approx([80, 80, 40, 80, 80, 80], rel=1e-6)
    assert np.exp(column["file_size"][0]) == pytest.approx(len(data), rel=1e-6)
    assert column["is_png"].tolist() == [0, 0, 1, 0, 0, 0]


def test_several_threads_decode_to_the_same_features(store: LocalStore, pictures: pa.Table) -> None:
    extractor = VGG16.load(store, None, "cpu")
    one, four = (
        embed_images(pictures, VIEWS, extractor, CANONICAL, enlarge=False, threads=threads) for threads in (1, 4)
    )
    for view in VIEWS:
        assert four[view].rows == one[view].rows
        assert four[view].matrix().tobytes() == one[view].matrix().tobytes()


def test_progress_counts_pictures_times_views(store: LocalStore, pictures: pa.Table) -> None:
    counted: list[int] = []
    extractor = ProbeSpec().load(store, None, "cpu")
    embed_images(pictures, VIEWS, extractor, CANONICAL, enlarge=False, advance=counted.append)
    assert sum(counted) == pictures.num_rows * len(VIEWS)


def test_pictures_that_no_rotation_tests_on_can_be_left_out(store: LocalStore, pictures: pa.Table) -> None:
    split = pa.array(["test"] + ["train"] * (pictures.num_rows - 1))
    table = pictures.set_column(pictures.schema.get_field_index("split"), "split", split)
    images = shard(store, table)
    of = {rows: embed(store, images, VIEWS[:1], rows=rows, enlarge=True)[0].rows for rows in ("tested", "all")}
    assert of["tested"] == 1 < of["all"]


def test_with_folds_every_picture_is_tested(store: LocalStore, pictures: pa.Table) -> None:
    index = pictures.schema.get_field_index
    folds = pa.array([0] * pictures.num_rows, pa.int16())
    table = pictures.set_column(index("fold"), "fold", folds)
    table = table.set_column(index("split"), "split", pa.nulls(table.num_rows, pa.string()))
    images = shard(store, table)
    tested, everything = (embed(store, images, VIEWS[:1], rows=rows, enlarge=True)[0] for rows in ("tested", "all"))
    assert tested.rows == everything.rows > 1


def test_what_does_not_stay_in_memory_comes_back_the_same(
    tmp_path: Path, pictures: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, spilled = LocalStore(tmp_path / "kept"), LocalStore(tmp_path / "spilled")
    in_memory = embed(kept, shard(kept, pictures))
    # Two batches of two pictures go to a file, the fifth picture stays.
    monkeypatch.setattr(features_module, "_KEPT_BYTES", 2 * 2 * 512 * 4 - 1)
    from_file = embed(spilled, shard(spilled, pictures))
    assert [read_manifest(kept, ref.uri).content for ref in in_memory] == [
        read_manifest(spilled, ref.uri).content for ref in from_file
    ]


def test_pictures_are_read_in_pieces_and_stay_with_their_rows(
    tmp_path: Path, pictures: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    column = pictures.schema.get_field_index("split")
    mixed = pictures.set_column(column, pictures.schema.field(column), pa.array(["train", "test"] * 3 + [None]))
    monkeypatch.setattr(features_module, "_FILES_AT_ONCE", 2)
    (ref,) = embed(store, shard(store, mixed), views=(RAW,), extractor=ProbeSpec(), rows="tested")
    frame = read_features(store, [ref])
    assert frame["image_id"].to_list() == ["image-1", "image-5"]
    rows = [pictures.slice(row, 1) for row in (1, 5)]
    extractor = ProbeSpec().load(store, None, "cpu")
    alone = [embed_images(row, [RAW], extractor, CANONICAL, enlarge=False)[RAW].matrix()[0] for row in rows]
    np.testing.assert_array_equal(embedding_matrix(frame), np.stack(alone))


def test_tasks_side_by_side_share_one_network_and_leave_none_behind(store: LocalStore) -> None:
    of_one_network = [VGG16.model_copy(update={"side": side}).load(store, None, "cpu") for side in (32, None)]
    assert len(kept_networks._networks) == 1
    of_another = VGG16.model_copy(update={"weights": "random:1"}).load(store, None, "cpu")
    assert len(kept_networks._networks) == 2
    del of_one_network, of_another
    gc.collect()
    assert len(kept_networks._networks) == 0


def test_a_network_stays_from_one_task_of_a_stage_to_the_next(store: LocalStore) -> None:
    def made_and_gone() -> int:
        VGG16.load(store, None, "cpu")
        gc.collect()
        return len(kept_networks._networks)

    with kept_networks.networks_kept():
        assert [made_and_gone(), made_and_gone()] == [1, 1]
    gc.collect()
    assert len(kept_networks._networks) == 0
