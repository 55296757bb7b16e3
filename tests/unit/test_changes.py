"""What changed between two runs: paired, on the pictures of both, against hand-made tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from deployments.cli import app
from flows import publish as publishing
from storage.errors import MissingInput, SpecError, Undetectable
from storage.local import LocalStore
from storage.runs import set_latest_run
from storage.tables import RESULT_SCHEMA
from tasks.evaluation.alarm import undetectable
from tasks.evaluation.significance import auroc_difference
from tasks.explorer.changes import AnsweredRun, beyond_chance, changes, in_a_line, read_run
from tasks.presets import parse_experiment
from tasks.spec.experiment import Experiment

COUNT = 60  # of each class; each picture is a group of its own
CELLS = (("64", "none"), ("64", "q20"))


def run(name: str, shift: float = 1.0, seed: int = 0, **columns: Any) -> AnsweredRun:
    """A run whose fakes stand `shift` above photographs in the compressed cell; elsewhere they always stand as high."""
    rows = []
    for resolution, perturbation in CELLS:
        noise = np.random.default_rng(seed)
        for source, truth in (("town", "photograph"), ("gan", "generated")):
            for number in range(COUNT):
                apart = (shift if perturbation == "q20" else 2.0) if source == "gan" else 0.0
                p = 1 / (1 + np.exp(-(noise.normal() + apart - 0.5)))
                row = {
                    "source": source,
                    "image_id": f"{source}-{number}",
                    "group_id": f"{source}-{number}",
                    "truth": truth,
                    "drawn": ["gan"],
                    "resolution": resolution,
                    "perturbation": perturbation,
                    "svm_p_fake": p,
                    "svm_verdict": "generated" if p >= 0.5 else "photograph",
                }
                rows.append(row | columns)
    return AnsweredRun(name, pl.DataFrame(rows))


def test_equal_runs_changed_nowhere() -> None:
    found = changes(run("a"), run("b"))
    assert len(found) == 4
    assert found["difference"].to_list() == [0.0] * 4
    assert not len(beyond_chance(found))
    assert (
        in_a_line(found, "a")
        == "No cell changed beyond chance since a (4 comparisons on the pictures that both count, Holm)."
    )


def test_the_cell_that_fell_is_found_and_named_with_its_numbers() -> None:
    before, after = run("a", shift=2.5), run("b", shift=0.0, seed=1)
    found = changes(before, after)
    significant = beyond_chance(found)
    assert set(significant["perturbation"]) == {"q20"}
    worst = significant.row(0, named=True)
    cells = [one.pictures.filter(pl.col("perturbation") == "q20") for one in (before, after)]
    label = (cells[0]["truth"] == "generated").to_numpy()
    aurocs = [roc_auc_score(label, cell["svm_p_fake"]) for cell in cells]
    row = found.row(by_predicate=(pl.col("perturbation") == "q20") & (pl.col("metric") == "auroc"), named=True)
    assert (row["before"], row["after"]) == pytest.approx(tuple(aurocs))
    assert row["difference"] == pytest.approx(aurocs[1] - aurocs[0])
    delong = auroc_difference(label, cells[1]["svm_p_fake"], cells[0]["svm_p_fake"], cells[0]["group_id"])
    assert (row["low"], row["high"], row["p"]) == pytest.approx((delong.low, delong.high, delong.p))
    assert f"of svm on gan in 64/q20 from {worst['before']:.3f} to {worst['after']:.3f}" in in_a_line(found, "a")


def test_only_pictures_that_both_tested_are_compared() -> None:
    before, after = run("a"), run("b")
    fewer = AnsweredRun("b", after.pictures.filter(pl.col("image_id") != "gan-0"))
    assert set(changes(before, fewer)["n_fake"]) == {COUNT - 1}


def test_a_detector_and_a_cell_of_one_run_alone_are_left_out() -> None:
    before, after = run("a", other_p_fake=0.5, other_verdict="generated"), run("b")
    after = AnsweredRun("b", after.pictures.filter(pl.col("perturbation") == "none"))
    found = changes(before, after)
    assert set(found["detector"]) == {"svm"}
    assert set(found["perturbation"]) == {"none"}


def test_too_few_groups_give_a_difference_without_a_claim() -> None:
    found = changes(run("a", group_id="one"), run("b", shift=0.0, group_id="one"))
    assert found["p"].null_count() == len(found)
    assert in_a_line(found, "a").startswith("Nothing can be said")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda one: one.pictures.with_columns(image_id=pl.col("image_id") + "x"), "no picture in the same cell"),
        (lambda one: one.pictures.rename({"svm_p_fake": "new_p_fake"}), "no detector and no mix in common"),
    ],
)
def test_runs_with_nothing_in_common_are_refused(other: Callable[[AnsweredRun], pl.DataFrame], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        changes(run("a"), AnsweredRun("b", other(run("b"))))


def put(store: LocalStore, one: AnsweredRun) -> str:
    """Lay a run into a store, as the newest of the experiment `towns`."""
    place = f"runs/evaluate/{one.name}"
    file = store.path(f"{place}/pictures.parquet")
    file.parent.mkdir(parents=True)
    one.pictures.write_parquet(file)
    store.write(f"{place}/explorer/index.html", b"")
    store.write(f"{place}/report.html", b"")
    store.write(f"{place}/index.json", b"{}")
    set_latest_run(store, "towns", place)
    return place


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path))
    monkeypatch.delenv("TELLTALE_REPORTS_URL", raising=False)
    return LocalStore(tmp_path)


def test_a_run_of_an_older_version_is_named_with_what_to_do(store: LocalStore) -> None:
    store.write("runs/evaluate/old-1/index.json", b"{}")
    with pytest.raises(MissingInput, match=r"pictures\.parquet of the run old-1: it is of an older version; evaluate"):
        read_run(store, "runs/evaluate/old-1")


@pytest.mark.parametrize("damage", ["cut", "column"])
def test_damaged_pictures_of_a_run_are_one_sentence(store: LocalStore, damage: str) -> None:
    place = put(store, run("towns-1"))
    file = store.path(f"{place}/pictures.parquet")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        pl.read_parquet(file).drop("svm_verdict").write_parquet(file)
    told = CliRunner().invoke(app, ["report", "towns-1", "towns-1"])
    assert told.exit_code == 2
    assert told.stderr.startswith("error: the pictures of the run towns-1 cannot be read: ")


def test_the_command_says_where_a_run_lies_and_what_changed(store: LocalStore) -> None:
    put(store, run("towns-1", shift=2.5))
    place = put(store, run("towns-2", shift=0.0, seed=1))
    told = CliRunner().invoke(app, ["report"])
    assert told.exit_code == 0
    assert f"{place}/report.html" in told.output
    assert f"{place}/explorer/index.html" in told.output
    assert json.loads(CliRunner().invoke(app, ["report", "towns", "--json"]).output)["run"] == "towns-2"
    compared = CliRunner().invoke(app, ["report", "towns-1", "towns"])
    assert compared.output.startswith("Changed beyond chance since towns-1: ")
    listed = json.loads(CliRunner().invoke(app, ["report", "towns-1", "towns-2", "--json"]).output)
    assert len(listed["changes"]) == 4


@pytest.mark.parametrize("arguments", [["nobody"], ["towns-1", "nobody"], ["../towns-1"], ["towns-1", "old-1"]])
def test_a_run_that_is_not_there_is_one_sentence(store: LocalStore, arguments: list[str]) -> None:
    put(store, run("towns-1"))
    store.write("runs/evaluate/old-1/index.json", b"{}")
    told = CliRunner().invoke(app, ["report", *arguments])
    assert told.exit_code == 2
    assert told.stderr.startswith("error: ")
    assert len(told.stderr.strip().splitlines()) == 1


def test_an_empty_store_says_how_to_make_a_run(store: LocalStore) -> None:
    told = CliRunner().invoke(app, ["report"])
    assert (told.exit_code, "telltale evaluate" in told.stderr) == (2, True)


def result(mix: str, detector: str, value: float | None, **changes: Any) -> dict[str, Any]:
    row = {
        "protocol": "fair",
        "resolution": "64",
        "perturbation": "none",
        "mix": mix,
        "detector": detector,
        "seed": 0,
        "role": "detector",
        "metric": "auroc",
        "value": value,
    }
    return row | changes


def experiment(**changes: Any) -> Experiment:
    names = {"town": "real", "first": "fake", "second": "fake"}
    document = {
        "name": "towns",
        "sources": [{"kind": "folder", "name": name, "path": name, "label": label} for name, label in names.items()],
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [64],
        "extractor": {"kind": "vgg16", "weights": "random:0"},
    }
    return parse_experiment(document | changes)


def results(*rows: dict[str, Any]) -> pl.DataFrame:
    empty = pl.DataFrame(RESULT_SCHEMA.empty_table())
    return pl.DataFrame([dict.fromkeys(empty.columns) | row for row in rows], schema=empty.schema)


def test_a_generator_is_undetectable_where_its_best_detector_is_below_the_least() -> None:
    table = results(
        result("gan", "svm", 0.55),
        result("gan", "other", 0.61),
        result("sd", "svm", 0.93),
        result("combined", "svm", 0.5),
        # None of these tells anything of the detectors as they are.
        result("gan", "probe", 0.99, role="probe"),
        result("gan", "svm", 0.99, seed=1),
        result("gan", "svm", 0.99, without="sd"),
        result("gan", "svm", 0.99, protocol="as-is"),
        result("gan", "svm", 0.99, perturbation="q90"),
        result("gan", "third", None),
    )
    found = undetectable(table, {"gan": "GAN", "sd": "SD"}, 0.7)
    assert list(found) == ["GAN: 0.610 at best, by other in 64/none"]
    assert not undetectable(table, {"gan": "GAN", "sd": "SD"}, 0.6)


def test_a_published_run_raises_the_alarm_of_its_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    table = results(result("first", "traces", 0.6), result("second", "traces", 0.9))
    monkeypatch.setattr(pl, "read_parquet", lambda _: table)
    monkeypatch.setattr(publishing, "read_part", lambda *_: b"")
    calm = experiment()
    publishing._raise_alarm(None, calm, None, "runs/evaluate/traces-1")  # type: ignore[arg-type]
    alarmed = experiment(alarm_below=0.7)
    assert parse_experiment(alarmed.model_dump(mode="json")) == alarmed
    with pytest.raises(Undetectable, match=r"0\.7 \(alarm_below\) on first: 0\.600 at best.*published at runs"):
        publishing._raise_alarm(None, alarmed, None, "runs/evaluate/traces-1")  # type: ignore[arg-type]


def test_a_new_run_says_in_one_line_what_changed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(publishing, "show_markdown", lambda _, text, line: told.append((text, line)))
    first, second = put(store, run("towns-1", shift=2.5)), put(store, run("towns-2", shift=0.0, seed=1))
    publishing._show_changes(store, experiment(), first, second)
    publishing._show_changes(store, experiment(), first, first)
    publishing._show_changes(store, experiment(), "runs/evaluate/old-1", second)
    lines = [line for _, line in told]
    assert lines[0].startswith("Changed beyond chance since towns-1: ")
    assert "| gan | 64/q20 | svm |" in told[0][0]
    assert lines[1].startswith("No cell changed beyond chance since towns-1")
    assert lines[2].startswith("This run is compared with none: ")
