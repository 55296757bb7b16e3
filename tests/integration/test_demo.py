"""`make demo` in a fresh home: what its first screen says is true, and the same again is there without computing."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from storage.objects import read_table
from tasks.data.sample_photographs import EVERY_PHOTOGRAPH
from tests.integration.finished_run import FinishedRun, evaluated

DETECTORS = ("cooccurrence", "cooccurrence-aug", "spectrum")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    with evaluated("demo", tmp_path_factory.mktemp("demo")) as run:
        yield run


def auroc(demo: FinishedRun, **wanted: str) -> dict[str, float]:
    (row,) = demo.table("results").filter(metric="auroc", mix="autoencoded", **wanted).iter_rows(named=True)
    assert row["n_groups"] == len(EVERY_PHOTOGRAPH)
    return row


def test_again_it_computes_nothing_and_names_the_same_run(demo: FinishedRun) -> None:
    before = set(demo.store.list("objects"))
    again = demo.telltale("evaluate", "demo")
    assert set(demo.store.list("objects")) == before
    named = [[line for line in text.splitlines() if line.startswith("report:")] for text in (demo.printed, again)]
    assert named[0] == named[1]
    assert Path(named[0][0].split(maxsplit=1)[1]).is_file()


def test_a_photograph_is_told_from_itself_through_an_autoencoder_by_an_interval(demo: FinishedRun) -> None:
    rows = [auroc(demo, protocol="fair", perturbation="none", detector=name) for name in DETECTORS]
    best = max(rows, key=lambda row: row["value"])
    assert 0.75 < best["low"] < best["high"] <= 1
    shown = f"AUROC of {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}] at 96/none."
    said = " ".join(demo.printed.split())
    assert f"Uncompressed, {best['detector']} tells autoencoded from photographs with an {shown}" in said


def test_its_figure_is_that_of_the_pictures_that_anybody_can_open(demo: FinishedRun) -> None:
    pictures = pl.read_parquet(io.BytesIO(demo.store.read(f"{demo.place}/pictures.parquet")))
    cell = pictures.filter(resolution="96", perturbation="none")
    assert len(cell) == 2 * 10 * len(EVERY_PHOTOGRAPH)
    found = roc_auc_score(cell["truth"] == "generated", cell["cooccurrence_p_fake"])
    assert found == pytest.approx(auroc(demo, protocol="fair", perturbation="none", detector="cooccurrence")["value"])


def test_files_alone_tell_the_classes_apart_as_shipped_and_less_once_all_is_equal(demo: FinishedRun) -> None:
    shipped, fair = (
        auroc(demo, protocol=protocol, perturbation="none", detector="probe")
        for protocol in ("audit-as-shipped", "fair")
    )
    assert shipped["low"] > 0.95
    assert fair["high"] < shipped["low"]
    table = demo.printed[demo.printed.index("Made equal one after the other") :]
    assert f"{shipped['value']:.3f}" in table


def test_compression_hides_the_trace(demo: FinishedRun) -> None:
    values = [
        auroc(demo, protocol="fair", perturbation=name, detector="cooccurrence")["value"] for name in ("none", "q60")
    ]
    assert values[0] > values[1]


def test_shuffled_labels_are_at_chance(demo: FinishedRun) -> None:
    rows = demo.table("results").filter(protocol="control", metric="auroc")
    assert set(rows["detector"]) == set(DETECTORS)
    for row in rows.iter_rows(named=True):
        assert row["low"] < 0.5 < row["high"], row["detector"]


def test_pairs_show_the_same_and_grey_photographs_stay_grey(demo: FinishedRun) -> None:
    def pixels(source: str) -> dict[str, np.ndarray]:
        found = {}
        for ref in (*demo.refs(f"shard/{source}"), *demo.refs(f"generate/reconstruction/{source}")):
            for row in read_table(demo.store, ref, columns=["image_id", "image"]).to_pylist():
                found[row["image_id"]] = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        return found

    photographs, made = pixels("photographs"), pixels("autoencoded")
    assert set(photographs) == set(made)
    for name, picture in made.items():
        height, width = (side - side % 2 for side in photographs[name].shape[:2])
        photograph = photographs[name][:height, :width][16:-16, 16:-16]
        assert photograph.shape == picture.shape
        assert np.abs(photograph.astype(float) - picture).mean() < 12
        assert (np.ptp(photograph, axis=2).max() == 0) == (np.ptp(picture, axis=2).max() == 0)
