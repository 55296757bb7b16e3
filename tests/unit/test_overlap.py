"""A picture that is a photograph and a fake at once is refused, by name, before anything is computed."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.shard import image_shards
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import notes_of
from tasks.data.grouping import assignment_warnings, warnings_on
from tasks.data.overlap import equal_rows
from tasks.presets import parse_experiment
from tasks.recipe import Step


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The store of steps that run here, without Prefect."""

    class Made:
        def __init__(self, ref: Any) -> None:
            self._ref = ref

        def result(self) -> Any:
            return self._ref

    kept = LocalStore(tmp_path / "store")
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(Step, "submit", lambda self, **arguments: Made(self.compute(kept, **arguments)[0]))
    return kept


def picture(seed: int, kind: str = "PNG") -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, seeds: range, kind: str = "PNG") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{seed:03d}.{kind.lower()}").write_bytes(picture(seed, kind))
    return folder


FOLDS = {"kind": "folds", "count": 3}


def sources(real: Path, fake: Path) -> list[dict[str, Any]]:
    return [
        {"kind": "folder", "name": name, "label": name, "path": str(path)}
        for name, path in (("real", real), ("fake", fake))
    ]


def experiment(real: Path, fake: Path, **more: Any) -> Any:
    return parse_experiment({"name": "both", "sources": sources(real, fake), "splits": FOLDS, **more})


def test_a_folder_of_fakes_that_holds_the_photographs_is_refused_before_any_scan(
    tmp_path: Path, store: LocalStore
) -> None:
    real = write(tmp_path / "set" / "nature", range(9))
    write(tmp_path / "set" / "ai", range(100, 109))
    with pytest.raises(SpecError) as caught:
        image_shards(experiment(real, tmp_path / "set"))
    assert str(caught.value).startswith(
        "9 pictures are in two sources that contradict each other, photographs and fakes or seen and unseen "
        "('fake:nature/000.png' = 'real:000.png', 'fake:nature/001.png' = 'real:001.png', "
        "'fake:nature/002.png' = 'real:002.png', ...)"
    )
    assert "allow_overlap: true" in str(caught.value)
    assert list(store.list("objects/scan")) == []


def test_a_copy_under_another_name_elsewhere_is_refused_too(tmp_path: Path, store: LocalStore) -> None:
    real, fake = write(tmp_path / "real", range(9)), write(tmp_path / "fake", range(100, 109))
    (fake / "copy.png").write_bytes(picture(4))
    with pytest.raises(SpecError, match=r"1 pictures .* \('fake:copy\.png' = 'real:004\.png'\)"):
        image_shards(experiment(real, fake))


@pytest.mark.parametrize("kinds", [("folder", "folder"), ("folder", "column"), ("column", "column")])
def test_one_parquet_file_given_with_both_labels_is_refused(
    tmp_path: Path, store: LocalStore, kinds: tuple[str, str]
) -> None:
    path = tmp_path / "both.parquet"
    pq.write_table(pa.table({"image": [picture(seed) for seed in range(18)]}), path)
    listed = [
        {"kind": kind, "name": label, "label": label, "path": str(path)}
        | ({"column": "image"} if kind == "column" else {})
        for kind, label in zip(kinds, ("real", "fake"), strict=True)
    ]
    with pytest.raises(SpecError, match="18 pictures are in two sources that contradict each other"):
        image_shards(parse_experiment({"name": "both", "sources": listed, "splits": FOLDS}))


def test_columns_of_one_parquet_file_are_different_pictures(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "both.parquet"
    columns = {"photo": [picture(seed) for seed in range(9)], "fake": [picture(seed) for seed in range(50, 59)]}
    pq.write_table(pa.table(columns), path)
    listed = [
        {"kind": "column", "name": label, "label": label, "path": str(path), "column": column}
        for label, column in (("real", "photo"), ("fake", "fake"))
    ]
    images = image_shards(parse_experiment({"name": "both", "sources": listed, "splits": FOLDS}))
    assert notes_of(store, images.assignment)["shared"]["count"] == 0


def test_a_row_that_is_another_sources_file_is_found_once_it_was_read(tmp_path: Path, store: LocalStore) -> None:
    real = write(tmp_path / "real", range(9))
    pq.write_table(pa.table({"image": [picture(seed) for seed in (*range(50, 58), 7)]}), tmp_path / "fakes.parquet")
    with pytest.raises(SpecError, match=r"1 pictures .* \('real:007\.png' = 'fake:row-000000008'\)"):
        image_shards(experiment(real, tmp_path / "fakes.parquet"))
    # What was found stays found when all is there already.
    with pytest.raises(SpecError, match=r"'real:007\.png'"):
        image_shards(experiment(real, tmp_path / "fakes.parquet"))


def test_who_means_it_may_have_it_counted(tmp_path: Path, store: LocalStore) -> None:
    real = write(tmp_path / "set" / "nature", range(9))
    write(tmp_path / "set" / "ai", range(100, 109))
    images = image_shards(experiment(real, tmp_path / "set", allow_overlap=True))
    notes = notes_of(store, images.assignment)
    assert notes["shared"]["count"] == 9
    assert notes["sources"]["fake"]["duplicates"] == {"real": 9}
    refused = experiment(real, tmp_path / "set")
    with pytest.raises(SpecError, match="9 pictures"):
        image_shards(refused)


def test_the_same_scene_encoded_again_is_counted_and_not_refused(tmp_path: Path, store: LocalStore) -> None:
    # A reconstruction of a photograph is near to it, and a fake all the same.
    real, fake = write(tmp_path / "real", range(9)), write(tmp_path / "fake", range(100, 109))
    (fake / "again.jpg").write_bytes(picture(4, "JPEG"))
    images = image_shards(experiment(real, fake))
    notes = notes_of(store, images.assignment)
    assert notes["shared"] == {"count": 0, "first": []}
    assert notes["sources"]["fake"]["duplicates"] == {"real": 1}


@pytest.mark.parametrize("how", ["another format", "a comment", "turned by EXIF"])
def test_a_photograph_that_was_saved_again_without_loss_is_refused(tmp_path: Path, store: LocalStore, how: str) -> None:
    real, fake = write(tmp_path / "real", range(9), "JPEG"), write(tmp_path / "fake", range(100, 109))
    data = (real / "004.jpeg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        sink = io.BytesIO()
        if how == "another format":
            image.save(sink, "PNG")
        elif how == "turned by EXIF":
            exif = Image.Exif()
            exif[0x0112] = 3
            image.transpose(Image.Transpose.ROTATE_180).save(sink, "PNG", exif=exif)
        else:
            sink.write(data[:2] + b"\xff\xfe\x00\x07saved" + data[2:])
    (fake / "again.png").write_bytes(sink.getvalue())
    with pytest.raises(SpecError, match=r"1 pictures .* \('real:004\.jpeg' = 'fake:again\.png'\)"):
        image_shards(experiment(real, fake))


@pytest.mark.parametrize("known", ["real", "fake"])
@pytest.mark.parametrize("container", ["folder", "parquet"])
@pytest.mark.parametrize("role", ["unknown", "shifted"])
def test_an_unseen_source_of_pictures_that_are_trained_on_is_refused(
    tmp_path: Path, store: LocalStore, known: str, container: str, role: str
) -> None:
    real, fake = write(tmp_path / "real", range(9)), write(tmp_path / "fake", range(100, 109))
    seeds = range(6, 12) if known == "real" else range(106, 112)  # three of them are known
    if container == "folder":
        path = write(tmp_path / "unseen", seeds)
    else:
        path = tmp_path / "unseen.parquet"
        pq.write_table(pa.table({"image": [picture(seed) for seed in seeds]}), path)
    unseen = {"kind": "folder", "name": "new", "label": "fake", "path": str(path), "evaluated": False}
    mobile = {"networks": [{"kind": "fine-tuned", "name": "dense"}], "rejection": {role: ["new"]}}
    document = {"name": "both", "sources": [*sources(real, fake), unseen], "splits": FOLDS, "mobile": mobile}
    with pytest.raises(SpecError, match=r"3 pictures are in two sources that contradict each other, .*'new:"):
        image_shards(parse_experiment(document))
    images = image_shards(parse_experiment(document | {"allow_overlap": True}))
    assert images.unseen_assignment is not None
    assert notes_of(store, images.unseen_assignment)["shared"]["count"] == 3


def test_what_the_assignment_leaves_open_is_said(tmp_path: Path, store: LocalStore) -> None:
    real, fake = write(tmp_path / "real", range(9)), write(tmp_path / "fake", range(100, 109))
    (real / "002.png").unlink()
    (real / "only.jpg").write_bytes(picture(2, "JPEG"))
    (fake / "again.jpg").write_bytes(picture(4, "JPEG"))
    groups = {"real:001.png": "test", "real:1": "test", "no such": "train"}
    images = image_shards(experiment(real, fake, splits={"kind": "fixed", "groups": groups}))
    assert assignment_warnings(notes_of(store, images.assignment)) == [
        "1 of fake look like pictures of real, which has the other label: if they are reconstructions they stay in one "
        "split with these, if they were saved again they do not belong",
        "splits.groups names 'no such', 'real:1', which no picture has as its group",
        "the fair path draws its JPEG qualities from 1 photographs, the other 8 of 9 are no JPEGs",
    ]
    (real / "only.jpg").unlink()
    (fake / "again.jpg").unlink()
    images = image_shards(experiment(real, fake))
    told = assignment_warnings(notes_of(store, images.assignment))
    assert told == ["no photograph is a JPEG: on the fair path all are encoded at 90"]
    assert (warnings_on("fair", told), warnings_on("crop", told)) == (told, [])


def test_equal_rows_are_those_of_equal_digests() -> None:
    random = np.random.default_rng(0)
    one, other = (random.integers(0, 3, (count, 4)).astype(np.uint64) for count in (40, 60))  # many agree in part
    found = equal_rows(one, other)
    both = {tuple(row) for row in one.tolist()} & {tuple(row) for row in other.tolist()}
    assert {tuple(one[a].tolist()) for a, _ in found} == both
    assert all((one[a] == other[b]).all() for a, b in found)
    assert len(found) == len(both)
    assert len(equal_rows(one[:0], other)) == 0
