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
from storage.objects import notes_of
from storage.store import LocalStore
from tasks.data.overlap import shared_rows
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


def experiment(real: Path, fake: Path, **more: Any) -> Any:
    sources = [
        {"kind": "folder", "name": name, "label": name, "path": str(path)}
        for name, path in (("real", real), ("fake", fake))
    ]
    return parse_experiment({"name": "both", "sources": sources, "splits": {"kind": "folds", "count": 3}, **more})


def test_a_folder_of_fakes_that_holds_the_photographs_is_refused_before_any_scan(
    tmp_path: Path, store: LocalStore
) -> None:
    real = write(tmp_path / "set" / "nature", range(9))
    write(tmp_path / "set" / "ai", range(100, 109))
    with pytest.raises(SpecError) as caught:
        image_shards(experiment(real, tmp_path / "set"))
    assert str(caught.value).startswith(
        "9 pictures are in a source of photographs and in one of fakes ('real:000.png' = 'fake:nature/000.png', "
        "'real:001.png' = 'fake:nature/001.png', 'real:002.png' = 'fake:nature/002.png', ...)"
    )
    assert "allow_overlap: true" in str(caught.value)
    assert list(store.list("objects/scan")) == []


def test_a_copy_under_another_name_elsewhere_is_refused_too(tmp_path: Path, store: LocalStore) -> None:
    real, fake = write(tmp_path / "real", range(9)), write(tmp_path / "fake", range(100, 109))
    (fake / "copy.png").write_bytes(picture(4))
    with pytest.raises(SpecError, match=r"1 pictures .* \('real:004\.png' = 'fake:copy\.png'\)"):
        image_shards(experiment(real, fake))


@pytest.mark.parametrize("kinds", [("folder", "folder"), ("folder", "column"), ("column", "column")])
def test_one_parquet_file_given_with_both_labels_is_refused(
    tmp_path: Path, store: LocalStore, kinds: tuple[str, str]
) -> None:
    path = tmp_path / "both.parquet"
    pq.write_table(pa.table({"image": [picture(seed) for seed in range(18)]}), path)
    sources = [
        {"kind": kind, "name": label, "label": label, "path": str(path)}
        | ({"column": "image"} if kind == "column" else {})
        for kind, label in zip(kinds, ("real", "fake"), strict=True)
    ]
    splits = {"kind": "folds", "count": 3}
    with pytest.raises(SpecError, match="18 pictures are in a source of photographs and in one of fakes"):
        image_shards(parse_experiment({"name": "both", "sources": sources, "splits": splits}))


def test_columns_of_one_parquet_file_are_different_pictures(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "both.parquet"
    columns = {"photo": [picture(seed) for seed in range(9)], "fake": [picture(seed) for seed in range(50, 59)]}
    pq.write_table(pa.table(columns), path)
    sources = [
        {"kind": "column", "name": label, "label": label, "path": str(path), "column": column}
        for label, column in (("real", "photo"), ("fake", "fake"))
    ]
    splits = {"kind": "folds", "count": 3}
    images = image_shards(parse_experiment({"name": "both", "sources": sources, "splits": splits}))
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
    (fake / "again.bmp").write_bytes(picture(4, "BMP"))
    images = image_shards(experiment(real, fake))
    notes = notes_of(store, images.assignment)
    assert notes["shared"] == {"count": 0, "first": []}
    assert notes["sources"]["fake"]["duplicates"] == {"real": 1}


def test_shared_rows_are_those_of_equal_digests_and_other_labels() -> None:
    random = np.random.default_rng(0)
    sha256 = random.integers(0, 3, (60, 4)).astype(np.uint64)  # many agree in their first words only
    is_real = random.random(60) < 0.5
    found = shared_rows(sha256, is_real)
    digests = [tuple(row) for row in sha256.tolist()]
    both = {digests[row] for row in range(60) if is_real[row]} & {digests[row] for row in range(60) if not is_real[row]}
    assert {digests[row] for row in found[:, 0]} == both
    assert all(digests[a] == digests[b] and is_real[a] and not is_real[b] for a, b in found.tolist())
    assert len(found) == len(both)
