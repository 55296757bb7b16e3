"""An audit of a set whose fakes differ from its photographs by container and size alone, from files to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from flows.evaluate import Evaluation
from storage.objects import finished_objects, read_part
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.presets import parse_experiment
from tasks.report.run import HTML
from tests.integration.computed_plans import computed_here, table
from tests.unit.tiny_onnx import INPUT, network

# Name: (label, kind of file, quality, height, width).
SOURCES = {
    "town": ("real", "JPEG", 96, 96, 140),
    "drawn": ("fake", "PNG", None, 110, 110),
    "saved": ("fake", "JPEG", 75, 96, 140),
    "stamps": ("fake", "PNG", None, 40, 40),
}
COUNT = 36
STAGES = ["as-shipped", "same-container", "same-size", "same-history"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for name, (_, form, quality, height, width) in SOURCES.items():
        (root / name).mkdir()
        for number in range(COUNT):
            random = np.random.default_rng([*name.encode(), number])
            pixels = gaussian_filter(random.normal(size=(height, width, 3)), (4, 4, 0)) * 300 + 128
            pixels += random.normal(size=pixels.shape) * 3
            options = {} if quality is None else {"quality": quality}
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            picture.save(root / name / f"{number:03d}.{form.lower()}", form, **options)
    return root


@pytest.fixture(scope="module")
def document(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    models = tmp_path_factory.mktemp("models")
    theirs = {"kind": "onnx", "input": INPUT, "fake": [1], "output": "logits", "answer": "softmax", "windows": 2}
    # It takes windows alone, and says that it takes any size.
    narrow = theirs | {"input": INPUT | {"side": None, "resize": "none"}}
    of_probe = {"kind": "linear", "name": "probe", "role": "probe", "extractor": {"kind": "probe"}}
    return {
        "name": "audited-windows",
        "path": "crop",
        "sources": [
            {"kind": "folder", "name": name, "path": str(folders / name), "label": label}
            for name, (label, *_) in SOURCES.items()
        ],
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [64],
        "qualities": [None],
        "extractor": {"kind": "vgg16", "layer": "pool5-avg", "side": 32, "weights": "random:0", "batch": 8},
        "detectors": [
            {"kind": "linear", "name": "traces", "extractor": {"kind": "cooccurrence"}, "loss": "discriminant",
             "windows": 2, "left_out": True},
            theirs | {"name": "theirs", "model": str(network(models / "theirs.onnx"))},
            narrow | {"name": "narrow", "model": str(network(models / "narrow.onnx", side=64))},
            of_probe | {"fitted_in": "each-cell"},
        ],
        "audited": ["drawn", "stamps"],
        "bootstrap_resamples": 100,
        "shard_size": 20,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def evaluation(store: Store, document: dict[str, Any]) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        return computed_here(parse_experiment(document), store)


@pytest.fixture(scope="module")
def audit(store: Store, evaluation: Evaluation) -> pl.DataFrame:
    return table(store, evaluation, "audit")


def aurocs(audit: pl.DataFrame, detector: str, mix: str) -> dict[str, Any]:
    """By stage; None where there is none."""
    return dict(audit.filter(detector=detector, mix=mix).select("stage", "auroc").iter_rows())


def test_every_detector_and_probe_has_every_stage_of_every_audited_generator(audit: pl.DataFrame) -> None:
    for detector in ("traces", "theirs", "narrow", "probe"):
        for mix in ("drawn", "stamps"):
            assert audit.filter(detector=detector, mix=mix)["stage"].to_list() == [*STAGES, "matched-content"]
    assert set(audit["mix"]) == {"drawn", "stamps"}
    assert set(audit["cell"].drop_nulls()) == {"native/none", "native/q90", "64/none"}


def test_the_container_and_the_size_are_all_that_the_probe_tells(audit: pl.DataFrame) -> None:
    found = aurocs(audit, "probe", "drawn")
    assert found["as-shipped"] > 0.98
    assert found["same-container"] > 0.98, "they are square still"
    assert found["same-size"] < 0.8
    assert found["same-history"] < 0.8


def test_an_encoding_that_photographs_alone_had_is_told_until_both_have_it(audit: pl.DataFrame) -> None:
    found = aurocs(audit, "traces", "drawn")
    assert found["as-shipped"] > 0.98
    assert found["same-history"] < 0.8


def test_generators_without_a_window_have_no_number_on_windows_and_the_reason_is_said(
    audit: pl.DataFrame, store: Store, evaluation: Evaluation
) -> None:
    rows = audit.filter(mix="stamps", detector="traces")
    assert rows["auroc"].is_null().to_list() == [False, False, True, True, True]
    assert rows["reason"].to_list()[2] == f"none of the {COUNT} pictures of stamps has a window of 64 pixels"
    assert rows["change"].is_null().to_list() == [True, False, True, True, True]
    page = read_part(store, evaluation.report, HTML).decode()
    assert "Claims, audited" in page
    assert "has a window of 64 pixels" in page


def test_a_network_that_takes_no_whole_picture_is_absent_with_the_reason_until_there_are_windows(
    audit: pl.DataFrame,
) -> None:
    rows = audit.filter(detector="narrow", mix="drawn")
    assert rows["auroc"].is_null().to_list() == [True, True, False, False, True]
    assert rows["reason"][0].startswith("it could not score any picture of drawn, town: ")


def test_changes_are_of_the_same_pictures_where_none_is_left_out(audit: pl.DataFrame) -> None:
    rows = audit.filter(mix="drawn", detector="traces", stage="same-container")
    assert rows["same_pictures"].to_list() == [True]
    assert rows.select(pl.col("change_low") <= pl.col("change"), pl.col("change") <= pl.col("change_high")).row(0) == (
        True,
        True,
    )


def test_curves_are_those_of_the_grid_alone(store: Store, evaluation: Evaluation) -> None:
    curves = table(store, evaluation, "roc").filter(pl.col("without").is_null(), detector="traces", mix="drawn")
    assert set(curves["resolution"]) == {"64"}
    assert curves["fpr"].is_sorted(), "one curve, not several under one name"


def test_the_run_itself_is_what_it_is_without_an_audit(
    store: Store, evaluation: Evaluation, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_SETTING, store.url)
    before = set(finished_objects(store))
    without = {key: value for key, value in document.items() if key != "audited"}
    computed_here(parse_experiment(without), store)
    new = {place.split("/")[1] for place in set(finished_objects(store)) - before}
    assert new == {"report"}
