"""Any detector that was evaluated and any perturbation is reported, without being named anywhere."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pytest

from deployments.tables import GRID, short_tables
from flows.publish import headline_rows
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, commit
from storage.tables import RESULT_SCHEMA
from tasks.data.perturbations import base as perturbations
from tasks.detectors import base
from tasks.evaluation.cells import ROC_SCHEMA, Scored
from tasks.presets import parse_experiment
from tasks.report import sections as report_sections_module
from tasks.report.blocks import Fold, Gallery, Heats, Section, Table, Text
from tasks.report.controls import control_rows
from tasks.report.data import RELIABILITY, CellKey, ReportData, ResultIndex
from tasks.report.headline import headline_blocks
from tasks.report.page import render_html, render_markdown
from tasks.report.quality import quality_table
from tasks.report.reported import FIRST_PROJECT, read_reported
from tasks.report.run import _control_row, _reliability
from tasks.report.sections import SECTIONS, Kind, report_sections, report_tables
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment
from tests.unit.toy_perturbation import Flip
from tests.unit.toy_section import mixes_blocks, mixes_table

COUNTS = (
    "source", "label", "split_or_fold", "images", "groups", "left_out", "quarantined", "duplicates", "collapse_rate",
    "files", "no_jpegs", "own_tables", "own_tables_quality",
)  # fmt: skip
RESULTS = pl.DataFrame(RESULT_SCHEMA.empty_table()).schema
ROC = pl.DataFrame(ROC_SCHEMA.empty_table()).schema


class Guess(base.DetectorBase):
    """A made-up kind of detector."""

    kind: Literal["guess"] = "guess"

    @property
    def title(self) -> str:
        return f"guesses {self.role}s"


@pytest.fixture(scope="module", autouse=True)
def made_up_kinds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(base.KINDS, "guess", Guess)
        patch.setitem(perturbations.KINDS, "flip", Flip)
        yield


@pytest.fixture(scope="module")
def experiment(made_up_kinds: None) -> Experiment:
    """Three made-up detectors and two probes, in cells of which one is made up."""
    return parse_experiment(
        {
            "name": "made-up",
            "sources": [
                {"kind": "coco", "name": "coco", "directory": "somewhere"},
                {"kind": "folder", "name": "ours", "path": "ours", "label": "fake"},
                {"kind": "folder", "name": "theirs", "path": "theirs", "label": "fake"},
            ],
            "resolutions": [64],
            "qualities": [None, 20, 60],
            "perturbations": ["flip-1"],
            "detectors": [
                {"kind": "guess", "name": "a-probe", "role": "probe"},
                *({"kind": "guess", "name": name} for name in ("zeta", "alpha", "beta")),
                {"kind": "guess", "name": "b-probe", "role": "probe"},
            ],
        }
    )


# What is made up of every detector: its AUROC on uncompressed pictures.
EASE = {"a-probe": 0.5, "zeta": 0.9, "alpha": 0.8, "beta": 0.7, "b-probe": 0.6, "foreign": 0.55}
NAMES = ("none", "q20", "q60", "flip-1", "elsewhere")


def fits_of(experiment: Experiment) -> dict[Fit, float]:
    fits = {Fit(detector=name, role="probe" if "probe" in name else "detector"): ease for name, ease in EASE.items()}
    for name in ("alpha", "beta"):
        fits |= {Fit(detector=name, seed=seed): EASE[name] - 0.01 * seed for seed in (1, 2)}
        fits |= {Fit(detector=name, fitted_on=fake): EASE[name] - 0.1 for fake in experiment.fake_names}
    return fits


def rows_of(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for mix in experiment.all_mixes:
        for fit, ease in fits_of(experiment).items():
            for place, perturbation in enumerate(NAMES if fit.is_whole else NAMES[:1]):
                row = fit.model_dump() | {"protocol": "fair", "resolution": "64", "perturbation": perturbation}
                row |= {"mix": mix.name, "n_real": 100, "n_fake": 100, "n_groups": 100}
                for metric, rule in (("auroc", None), ("ece", None), ("balanced_accuracy", "val"), ("accuracy", "val")):
                    value = ease - 0.02 * place
                    bounds = {"value": value, "low": value - 0.03, "high": value + 0.03}
                    yield row | {"metric": metric, "threshold_rule": rule} | bounds


def points_of(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for mix in experiment.all_mixes:
        for fit in fits_of(experiment):
            for perturbation in NAMES if fit.is_whole else NAMES[:1]:
                for share in (0.0, 0.5, 1.0):
                    place = {"resolution": "64", "perturbation": perturbation, "mix": mix.name}
                    yield fit.model_dump() | place | {"fpr": share, "tpr": share**0.5}


@pytest.fixture(scope="module")
def data(experiment: Experiment) -> ReportData:
    return ReportData(
        experiment=experiment,
        run_name="run",
        created="2026-01-31 12:00 UTC",
        results=pl.DataFrame(list(rows_of(experiment)), schema=RESULTS),
        reported=read_reported(FIRST_PROJECT),
        flags={},
        ablation_stages=(),
        roc=pl.DataFrame(list(points_of(experiment)), schema=ROC),
        examples=pl.DataFrame(),
        quality=pl.DataFrame(),
        quarantine=pl.DataFrame(),
        counts=pl.DataFrame(),
        provenance={},
    )


@pytest.fixture(scope="module")
def sections(data: ReportData) -> dict[str, Section]:
    return {section.anchor: section for section in report_sections(data)}


@pytest.fixture(scope="module")
def tables(data: ReportData) -> dict[str, pl.DataFrame]:
    return report_tables(data)


def test_detectors_are_in_the_experiments_order_and_foreign_ones_after_them_by_name(data: ReportData) -> None:
    index = ResultIndex(data.experiment, data.results)
    assert [one.name for one in index.detectors] == ["zeta", "alpha", "beta", "foreign"]
    assert [one.name for one in index.probes] == ["a-probe", "b-probe"]
    assert [one.label for one in index.detectors[2:]] == ["beta: guesses detectors", "foreign"]
    assert index.headline.name == "zeta"


def test_the_headline_speaks_of_the_best_detector_and_the_ranking_of_the_first(
    sections: dict[str, Section], tables: dict[str, pl.DataFrame]
) -> None:
    said = [block.text for block in sections["headline"].blocks if isinstance(block, Text)]
    assert "Of 4 detectors the best is zeta in 4 of 4 cells." in said
    assert tables["ranking"]["auroc"].unique().to_list() == [EASE["zeta"]]
    (lead,) = (one for block in sections["headline"].blocks if isinstance(block, Heats) for one in block.maps)
    assert lead.columns == ("none", "q20", "q60", "flip-1")
    assert lead.values[0] == pytest.approx([0.9, 0.88, 0.86, 0.84])
    assert set(lead.notes[0]) == {"ours\nzeta"}


def test_the_grid_has_a_heat_map_of_every_detector_with_the_experiments_cells_as_columns(
    sections: dict[str, Section],
) -> None:
    blocks = sections["grid"].blocks
    shown = [one for block in blocks if isinstance(block, Heats) for one in block.maps]
    folds = [block for block in blocks if isinstance(block, Fold)]
    folded = [one for fold in folds for block in fold.blocks if isinstance(block, Heats) for one in block.maps]
    for maps in (shown, folded):
        assert [one.title for one in maps] == ["zeta", "alpha", "beta", "foreign"]
        for one in maps:
            assert one.columns == ("64/none", "64/q20", "64/q60", "64/flip-1")
            assert one.rows == ("ours", "theirs", "combined")
            assert one.values[0][3] is not None
    assert "cell=64/flip-1&detector=beta&mix=theirs" in shown[2].links[1][3]


def test_the_grid_table_has_every_detector_and_the_probes_last(tables: dict[str, pl.DataFrame]) -> None:
    grid = tables["grid"]
    assert grid["detector"].unique(maintain_order=True).to_list() == [
        "zeta", "alpha", "beta", "foreign", "a-probe", "b-probe",
    ]  # fmt: skip
    assert set(grid.filter(role="probe")["title"]) == {"guesses probes"}
    cells = ["64/none", "64/q20", "64/q60", "64/flip-1", "64/elsewhere"]
    assert grid.filter(detector="beta", mix="ours")["cell"].to_list() == cells
    assert grid.filter(detector="foreign")["title"].unique().to_list() == [""]
    assert grid.filter(detector="beta", mix="ours", perturbation="flip-1")["auroc"].to_list() == [0.7 - 0.06]


def test_calibration_has_every_detector(sections: dict[str, Section]) -> None:
    (shown,) = (block for block in sections["calibration"].blocks if isinstance(block, Table))
    assert list(dict.fromkeys(row[0].text for row in shown.rows)) == ["zeta", "alpha", "beta", "foreign"]
    assert [column.title for column in shown.columns[3:]] == ["none", "q20", "q60", "flip-1"]


def test_roc_curves_are_of_every_detector_itself_and_titled(sections: dict[str, Section]) -> None:
    galleries = [block for block in sections["roc"].blocks if isinstance(block, Gallery)]
    assert [picture.title for gallery in galleries for picture in gallery.pictures] == [
        "zeta", "alpha", "beta", "foreign", "a-probe", "b-probe",
    ]  # fmt: skip
    colours = [re.findall(rb'class="c(\d+)"', picture.data) for picture in galleries[0].pictures]
    assert [set(one) for one in colours] == [{str(number).encode()} for number in range(6)], "a detector has a colour"
    for gallery in galleries:
        for picture in gallery.pictures:
            assert "flip-1 0." in picture.alt


def test_every_probe_has_its_own_part_of_the_controls(
    sections: dict[str, Section], tables: dict[str, pl.DataFrame]
) -> None:
    texts = [block.text for block in sections["controls"].blocks if isinstance(block, Text)]
    assert any("the interval of a-probe does not contain 0.5" in text for text in texts)
    assert any("the interval of b-probe does not contain 0.5" in text for text in texts)
    assert set(tables["probe"]["detector"]) == {"a-probe", "b-probe"}
    assert {"cell", "resolution", "perturbation"} <= set(tables["probe"].columns)


def test_seeds_and_the_cross_table_have_every_detector_that_was_fitted_so(tables: dict[str, pl.DataFrame]) -> None:
    seeds, cross = tables["seeds"], tables["cross"]
    assert seeds["detector"].unique(maintain_order=True).to_list() == ["alpha", "beta"]
    assert seeds.filter(detector="beta", mix="ours")["training_seed"].to_list() == [0, 1, 2]
    assert seeds.filter(detector="beta")["spread"].to_list() == pytest.approx([0.02] * 9)
    assert cross["detector"].unique(maintain_order=True).to_list() == ["alpha", "beta"]
    assert cross.filter(detector="alpha").select("fitted_on", "tested_on").rows() == [
        ("ours", "ours"), ("ours", "theirs"), ("theirs", "ours"), ("theirs", "theirs"),
    ]  # fmt: skip


def test_no_table_has_a_column_of_jpeg_qualities(tables: dict[str, pl.DataFrame]) -> None:
    assert [name for name, table in tables.items() if "jpeg_quality" in table.columns] == []


def test_an_experiment_of_jpegs_alone_calls_its_columns_jpeg_quality(data: ReportData) -> None:
    experiment = data.experiment.model_copy(update={"perturbations": ()})
    for given, word, columns in (
        (data, "perturbation", ("none", "q20", "q60", "flip-1")),
        (dataclasses.replace(data, experiment=experiment), "JPEG quality", ("none", "q20", "q60")),
    ):
        index = ResultIndex(given.experiment, given.results)
        blocks = headline_blocks(given, index, report_tables(given))
        (heats,) = (block for block in blocks if isinstance(block, Heats))
        assert heats.maps[0].column_title == word
        assert heats.maps[0].columns == columns


def test_both_documents_name_every_detector(data: ReportData) -> None:
    without_curves = dataclasses.replace(data, roc=data.roc.clear())
    for document in (render_html(without_curves), render_markdown(without_curves).replace("\\", "")):
        for name in EASE:
            assert name in document


def test_the_terminal_shows_a_grid_of_every_detector_in_the_reports_order(
    tmp_path: Path, tables: dict[str, pl.DataFrame]
) -> None:
    store = LocalStore(tmp_path)
    nothing = {
        "quality": pl.DataFrame(
            schema=dict.fromkeys(("source", "cell", "metric", "n_real", "n_fake", "value", "low", "high"))
        ),
        "counts": pl.DataFrame(schema=dict.fromkeys(COUNTS)),
    }
    for name, table in (tables | nothing).items():
        path = store.path(f"run/tables/{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(path)
    short = short_tables(store, "run")
    assert [title for title in short if title.startswith(GRID)] == [
        "The grid: AUROC of zeta (guesses detectors)",
        "The grid: AUROC of alpha (guesses detectors)",
        "The grid: AUROC of beta (guesses detectors)",
        "The grid: AUROC of foreign",
    ]
    assert [title for title in short if "balanced accuracy" in title] == [
        "The grid: balanced accuracy of zeta (guesses detectors) at the threshold from val"
    ]
    assert "The probe: AUROC of b-probe (guesses probes)" in short
    every = short["Every detector: AUROC in 64/none"]
    assert every["detector"].to_list() == ["zeta", "alpha", "beta", "foreign", "a-probe", "b-probe"]
    assert every.columns[:2] == ["detector", "what it is"]
    grid = short["The grid: AUROC of beta (guesses detectors)"]
    assert ("64/flip-1", *["0.640 [0.610, 0.670]"] * 3) in grid.rows()


def test_the_terminal_says_of_an_older_run_what_to_do(tmp_path: Path, tables: dict[str, pl.DataFrame]) -> None:
    store = LocalStore(tmp_path)
    path = store.path("run/tables/grid.parquet")
    path.parent.mkdir(parents=True)
    tables["grid"].drop("title", "role").write_parquet(path)
    with pytest.raises(SpecError, match="run was written by an older version: evaluate the experiment again"):
        short_tables(store, "run")


def test_the_headline_artifact_has_every_detector_and_no_probe_and_no_further_fit(
    tmp_path: Path, data: ReportData
) -> None:
    store = LocalStore(tmp_path)
    parts: dict[str, pa.Table] = {"results.parquet": data.results.to_arrow()}
    ref = commit(store, "report", step="report", digest="0" * 64, recipe={}, parts=parts)
    rows = headline_rows(store, ref)
    assert {row["detector"] for row in rows} == {"zeta", "alpha", "beta", "foreign"}
    assert len(rows) == 4 * 3 * len(NAMES)
    (row,) = (row for row in rows if (row["detector"], row["cell"], row["mix"]) == ("beta", "64/flip-1", "ours"))
    assert (row["auroc"], row["auroc 95 %"], row["balanced_accuracy"]) == (0.64, "[0.610, 0.670]", 0.64)
    assert json.loads(json.dumps(rows)) == rows


def test_each_control_is_a_row_of_its_detector_on_shuffled_labels(tmp_path: Path, data: ReportData) -> None:
    store = LocalStore(tmp_path)
    nothing: dict[str, pa.Table] = {ROWS: pa.table({})}
    found = []
    for name, mean in (("beta", 0.51), ("alpha", 0.56)):
        recipe = {"arguments": {"head": {"name": name, "views": [{"resolution": 64}]}}}
        notes = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
        ref = commit(store, name, step="control", digest="0" * 64, recipe=recipe, parts=nothing, notes=notes)
        found.append(_control_row(store, ref, data.results))
        assert found[-1].schema == data.results.schema
    index = ResultIndex(data.experiment, pl.concat([data.results, *found]))
    rows = control_rows(data, index)
    cell = CellKey("shuffled", "64", "none")
    assert [(fit, cell_key) for fit, cell_key, _ in rows] == [(Fit(detector=name), cell) for name in ("alpha", "beta")]
    assert [(one.value, one.contains(0.5)) for *_, one in rows] == [(0.56, False), (0.51, True)]


def test_reliability_is_of_the_drawn_and_scored_pictures_of_the_main_mix(
    tmp_path: Path, experiment: Experiment
) -> None:
    store = LocalStore(tmp_path)
    mixes = experiment.all_mixes
    found = []
    for name, missing in (("zeta", 0), ("alpha", 3)):
        rows = [
            {"image_id": f"{source}-{number}", "source": source, "label": int(source != "coco"), "split": split}
            | {"resolution": "64", "perturbation": "none"}
            | {"p_fake": None if source == "coco" and number < missing else 0.05 + 0.1 * (number % 10)}
            for source, count in (("coco", 40), ("ours", 30), ("theirs", 30))
            for split in ("val", "test")
            for number in range(count)
        ]
        parts: dict[str, pa.Table] = {ROWS: pl.DataFrame(rows, schema_overrides={"label": pl.Int8}).to_arrow()}
        ref = commit(store, name, step="score", digest="0" * 64, recipe={}, parts=parts)
        found.append(Scored(fit=Fit(detector=name), scores=ref, reference=ref, mixes=mixes))
    table = _reliability(store, found, experiment)
    assert table.schema == pl.Schema(RELIABILITY)
    assert set(table["mix"]) == {"combined"}
    # As many fakes as photographs, half of each generator; pictures without a score have no bin.
    assert dict(table.group_by("detector").agg(pl.col("pictures").sum()).iter_rows()) == {"zeta": 80, "alpha": 77}
    ten = table.filter(detector="zeta")["p_fake"].to_list()
    assert ten == pytest.approx([0.05 + 0.1 * number for number in range(10)])


def test_quality_is_shown_by_cell() -> None:
    columns = {"source": ["g"], "resolution": ["64"], "jpeg_quality": [None], "metric": ["FID"], "value": [1.0]}
    empty = ReportData(
        experiment=parse_experiment(
            {"name": "x", "sources": [
                {"kind": "coco", "name": "coco", "directory": "d"},
                {"kind": "folder", "name": "g", "path": "g", "label": "fake"},
            ]}
        ),
        run_name="", created="", results=pl.DataFrame(schema=RESULTS), reported=(), flags={}, ablation_stages=(),
        roc=pl.DataFrame(), examples=pl.DataFrame(), quality=pl.DataFrame(columns), quarantine=pl.DataFrame(),
        counts=pl.DataFrame(), provenance={},
    )  # fmt: skip
    table = quality_table(empty, ResultIndex(empty.experiment, empty.results))
    assert table.columns == ["source", "cell", "resolution", "metric", "value"]
    assert table["cell"].to_list() == ["64/none"]


def test_a_cell_key_is_named_like_a_cell() -> None:
    key = CellKey("ours", "64", "flip-1")
    assert key.row == {"cell": "64/flip-1", "resolution": "64", "perturbation": "flip-1"}


def test_a_toy_section_is_one_file_and_an_entry(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind("mixes", "Mixes", lambda on: mixes_blocks(on.tables), {"mixes": mixes_table})
    monkeypatch.setattr(report_sections_module, "SECTIONS", (*SECTIONS, kind))
    assert report_tables(data)["mixes"]["mix"].to_list() == [mix.name for mix in data.experiment.all_mixes]
    assert report_sections(data)[-1].title == "Mixes"
    for document in (render_html(data), render_markdown(data)):
        assert "What stands against what." in document


def with_rows(data: ReportData, rows: list[dict[str, Any]]) -> ReportData:
    return dataclasses.replace(data, results=pl.concat([data.results, pl.DataFrame(rows, schema=RESULTS)]))


def test_the_published_decision_and_pictures_without_a_score_are_told(data: ReportData) -> None:
    key = data.results.filter(protocol="fair", detector="alpha", metric="auroc").row(0, named=True)
    rows = [
        key | {"metric": "balanced_accuracy", "threshold_rule": "published", "value": 0.625},
        key | {"metric": "unscored", "threshold_rule": None, "value": 3.0, "reason": "ValueError: too small (3)"},
    ]
    for given, expected in ((data, False), (with_rows(data, rows), True)):
        (section,) = (one for one in report_sections(given) if one.anchor == "grid")
        texts = "\n".join(one.text for one in section.blocks if isinstance(one, Text))
        assert ("alpha could not score some test pictures, which take no part: at most 3, in" in texts) == expected
        assert (": ValueError: too small (3)." in texts) == expected
        titles = [column.title for one in section.blocks if isinstance(one, Table) for column in one.columns]
        assert ("as published, uncalibrated" in titles) == expected
    (row,) = report_tables(with_rows(data, rows))["grid"].filter(unscored=3).iter_rows(named=True)
    assert row["balanced_accuracy@published"] == 0.625
