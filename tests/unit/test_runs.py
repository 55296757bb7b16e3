"""The newest run of each experiment, and its tables in short."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deployments.tables import FIRST_PROJECT, markdown, short_tables
from storage.errors import ObjectMissing
from storage.local import LocalStore
from storage.runs import browser_link, latest_run, set_latest_run


def test_each_experiment_has_its_newest_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(ObjectMissing, match=r"no run of 'seed' .* nor of any other experiment"):
        latest_run(store, "seed")
    set_latest_run(store, "sample", "runs/evaluate/sample-1")
    set_latest_run(store, "coco", "runs/evaluate/coco-1")
    set_latest_run(store, "sample", "runs/evaluate/sample-2")
    assert latest_run(store, "sample") == "runs/evaluate/sample-2"
    assert latest_run(store, "coco") == "runs/evaluate/coco-1"
    with pytest.raises(ObjectMissing, match=r"no run of 'seed' .* only of \['coco', 'sample'\]"):
        latest_run(store, "seed")


def test_a_link_leads_to_where_the_store_is_served_else_into_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.delenv("TELLTALE_REPORTS_URL", raising=False)
    assert browser_link(store, "runs/a b/report.html") == f"{tmp_path.as_uri()}/runs/a%20b/report.html"
    monkeypatch.setenv("TELLTALE_REPORTS_URL", "http://127.0.0.1:5000/")
    assert browser_link(store, "runs/a#1/report.html") == "http://127.0.0.1:5000/runs/a%231/report.html"


def test_a_value_and_its_interval_share_a_field(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    estimate = {"auroc": [0.75, None], "auroc_low": [0.7, None], "auroc_high": [0.8, None]}
    accuracy = {
        f"accuracy{suffix}": values
        for suffix, values in (("", [0.5, 1.0]), ("_low", [None] * 2), ("_high", [None] * 2))
    }
    balanced = {f"balanced_accuracy{suffix}": [0.5, 0.5] for suffix in ("", "_low", "_high")}
    at_val = {f"balanced_accuracy@val{suffix}": [0.5, 0.5] for suffix in ("", "_low", "_high")}
    cell = {"mix": ["a", "b"], "cell": ["64/none", "64/none"]}
    fair = {f"fair_{name}": values for name, values in (accuracy | estimate).items()}
    frames: dict[str, dict[str, Any]] = {
        "first_project": {
            "row": ["r", "s"],
            **cell,
            "reported_accuracy": [0.8, None],
            "seed_accuracy": [0.9, 0.9],
            "enlarged": [True, False],
            **fair,
        },
        "ablation": {"title": ["t", "t"], **cell, **accuracy},
        "ranking": {
            "resolution": ["64"] * 2,
            "rank": [1, 2],
            "generator": ["g", "h"],
            "real": ["r"] * 2,
            **estimate,
            **balanced,
        },
        "grid": {
            **cell,
            "detector": ["svm", "svm"],
            "title": ["a machine"] * 2,
            "role": ["detector"] * 2,
            "perturbation": ["none"] * 2,
            **estimate,
            **at_val,
        },
        "cross": {
            "detector": ["svm"] * 2,
            "resolution": ["64"] * 2,
            "fitted_on": ["g"] * 2,
            "tested_on": ["h"] * 2,
            "mix": ["a"] * 2,
            **estimate,
        },
        "seeds": {
            "detector": ["svm"] * 2,
            "mix": ["a"] * 2,
            "cell": ["64/none"] * 2,
            "training_seed": [0, 1],
            "auroc": [0.5, 0.5],
            "spread": [0.0, 0.0],
        },
        "quality": {
            "source": ["g"] * 2,
            "cell": ["64/none"] * 2,
            "metric": ["m"] * 2,
            "n_real": [1, 1],
            "n_fake": [1, 1],
            "value": [0.1, 0.2],
            "low": [0.0, None],
            "high": [0.2, None],
        },
        "counts": {
            "source": ["g"] * 2,
            "label": ["fake"] * 2,
            "split_or_fold": ["test"] * 2,
            "images": [1, 1],
            "groups": [1, None],
            "left_out": [0, 0],
            "quarantined": [0, 0],
            "collapse_rate": [0.0, None],
        },
    }
    for name, columns in frames.items():
        path = store.path(f"run/tables/{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(columns).write_parquet(path)
    tables = short_tables(store, "run")
    grid = tables["The grid: AUROC of svm (a machine)"]
    assert grid.rows() == [("64/none", "0.750 [0.700, 0.800]", "n/a")]
    assert tables[FIRST_PROJECT]["reported"].to_list() == ["0.800", "n/a"]
    assert list(tables)[-2:] == [FIRST_PROJECT, "Ablation: accuracy as the defects go, one after the other"]
    assert "| 64/none | 0.750 [0.700, 0.800] | n/a |" in markdown("Grid", grid)
    without = pl.DataFrame(frames["first_project"]).with_columns(seed_accuracy=pl.lit(None, pl.Float64))
    without.write_parquet(store.path("run/tables/first_project.parquet"))
    assert FIRST_PROJECT not in short_tables(store, "run"), "nothing was done as it was there"
