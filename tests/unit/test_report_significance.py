"""The report says which detectors differ by more than chance, with every comparison of a table adjusted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl
import pytest

from storage.tables import PAIR_SCHEMA, RANK_SCHEMA
from tasks.evaluation.cells import ROC_SCHEMA, evaluate_scores, results_table
from tasks.evaluation.pairs import Compared, compare_in_cell
from tasks.evaluation.significance import holm
from tasks.presets import parse_experiment
from tasks.report.blocks import Block, Fold, Section, Table, Text
from tasks.report.data import ReportData
from tasks.report.page import render_html, render_markdown
from tasks.report.sections import report_sections, report_tables
from tasks.report.significance import BEST, DIFFERS, NOT_WORSE
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment
from tests.unit.compared_scores import network_scores

NOISES = {"fair": 1.0, "good": 0.9, "poor": 4.0}


def make_experiment(detectors: Sequence[str]) -> Experiment:
    return parse_experiment(
        {
            "name": "made-up",
            "sources": [
                {"kind": "coco", "name": "coco", "directory": "somewhere"},
                {"kind": "folder", "name": "gan", "path": "gan", "label": "fake"},
                {"kind": "folder", "name": "diffusion", "path": "diffusion", "label": "fake"},
            ],
            "resolutions": [64],
            "qualities": [None, 20],
            "detectors": [{"kind": "linear", "name": name} for name in detectors],
        }
    )


def make_data(noises: dict[str, float], parents: int = 60) -> ReportData:
    """Everything as the steps make it of imaginary scores, which compression makes worse for `good` alone."""
    experiment = make_experiment(list(noises))
    plain = {
        name: network_scores(noise, seed, Fit(detector=name), parents)
        for seed, (name, noise) in enumerate(noises.items())
    }
    results, pairs, ranks = [], [], []
    for cell in experiment.cells:
        of_cell = {}
        for name, frame in plain.items():
            worse = cell.perturbation is not None and name == "good"
            scores = network_scores(5.0, 9, Fit(detector=name), parents) if worse else frame
            of_cell[name] = Compared(scores, frame, None if cell.perturbation is None else frame)
            results += evaluate_scores(
                scores, frame, experiment.all_mixes, fit=Fit(detector=name), cell=cell, protocol="fair", seed=0,
                resamples=50,
            )[0]  # fmt: skip
        found = compare_in_cell(of_cell, experiment.all_mixes, cell, seed=0, resamples=50)
        pairs += found[0]
        ranks += found[1]
    return ReportData(
        experiment=experiment,
        run_name="run",
        created="2026-01-31 12:00 UTC",
        results=pl.DataFrame(results_table(results)),
        reported=(),
        flags={},
        ablation_stages=(),
        roc=pl.DataFrame(ROC_SCHEMA.empty_table()),
        examples=pl.DataFrame(),
        quality=pl.DataFrame(),
        quarantine=pl.DataFrame(),
        counts=pl.DataFrame(),
        provenance={},
        pairs=pl.DataFrame(pairs, schema=pl.DataFrame(PAIR_SCHEMA.empty_table()).schema),
        ranks=pl.DataFrame(ranks, schema=pl.DataFrame(RANK_SCHEMA.empty_table()).schema),
    )


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data(NOISES)


def significance(data: ReportData) -> tuple[Block, ...]:
    sections: dict[str, Section] = {section.anchor: section for section in report_sections(data)}
    return sections["significance"].blocks


def tables_of(blocks: Sequence[Block]) -> dict[str, Table]:
    inside = [inner for block in blocks for inner in (block.blocks if isinstance(block, Fold) else (block,))]
    return {block.caption.partition(";")[0]: block for block in inside if isinstance(block, Table)}


def said(blocks: Sequence[Block]) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Text))


def test_the_best_of_each_mix_is_named_and_those_that_may_equal_it_are_marked(data: ReportData) -> None:
    table = tables_of(significance(data))["64/none: AUROC"]
    marks = {(row[0].text, row[1].text): row[1].tag for row in table.rows}
    for mix in (mix.name for mix in data.experiment.all_mixes):
        assert sorted(marks[mix, name] for name in ("good", "fair")) == [BEST, NOT_WORSE]
        assert marks[mix, "poor"] == ""
    assert [column.title for column in table.columns] == [
        "mix", "detector", "AUROC", "rank", "minus the best's", "p, adjusted", "left out", "groups",
    ]  # fmt: skip


def test_what_the_mark_means_is_said(data: ReportData) -> None:
    text = said(significance(data))
    assert f"“{NOT_WORSE}” marks a detector that is not significantly worse" in text
    assert "does not say that it is as good" in text
    assert "Holm's adjustment" in text
    assert "count as one draw" in text


def test_values_and_their_intervals_are_those_of_the_grid(data: ReportData) -> None:
    tables = report_tables(data)
    grid, table = tables["grid"], tables["significance"]
    for metric, column in (("auroc", "auroc"), ("accuracy", "accuracy@val")):
        shown = table.filter(metric=metric).sort("mix", "cell", "detector")
        expected = grid.sort("mix", "cell", "detector")
        assert shown["value"].to_list() == expected[column].to_list()
        assert shown["value_low"].to_list() == expected[f"{column}_low"].to_list()
    best = table.filter(pl.col("best") & (pl.col("metric") == "auroc"))
    assert (
        best["value"].to_list()
        == table.group_by("mix", "cell", "metric", maintain_order=True)
        .agg(pl.col("value").max())
        .filter(metric="auroc")["value"]
        .to_list()
    )


def test_p_is_adjusted_for_all_comparisons_of_one_table(data: ReportData) -> None:
    pairs = report_tables(data)["pairs"]
    mixes = len(data.experiment.all_mixes)
    within = pairs.filter((pl.col("perturbation") == "none") & (pl.col("metric") == "auroc"))
    assert len(within) == 3 * mixes
    assert within["comparisons"].to_list() == [3 * mixes] * len(within)
    assert within["p_holm"].to_list() == pytest.approx(holm(within["p"].to_list()))
    between = pairs.filter((pl.col("than_perturbation") != pl.col("perturbation")) & (pl.col("metric") == "accuracy"))
    assert between["comparisons"].to_list() == [3 * mixes] * len(between)
    assert between["p_holm"].to_list() == pytest.approx(holm(between["p"].to_list()))
    caption = next(table.caption for table in tables_of(significance(data)).values())
    assert caption == f"64/none: AUROC; p adjusted for {3 * mixes} comparisons"


def test_a_change_by_compression_is_marked_where_it_is_more_than_chance(data: ReportData) -> None:
    table = tables_of(significance(data))["64: AUROC minus that of uncompressed pictures"]
    assert [column.title for column in table.columns] == ["mix", "detector", "q20"]
    changes = {(row[0].text, row[1].text): row[2] for row in table.rows}
    assert {cell.tag for (_, name), cell in changes.items() if name == "good"} == {DIFFERS}
    assert {(cell.text, cell.tag) for (_, name), cell in changes.items() if name != "good"} == {("0.000", "")}


def test_decisions_and_compressed_cells_open_on_a_click(data: ReportData) -> None:
    titles = [block.title for block in significance(data) if isinstance(block, Fold)]
    assert titles == ["Decisions at 64/none", "Detectors at 64/q20", "Decisions at 64"]
    decisions = tables_of(significance(data))["64/none: accuracy, at the threshold chosen on val"]
    assert "rank" not in [column.title for column in decisions.columns]


def test_pages_show_the_section(data: ReportData) -> None:
    for page in (render_html(data), render_markdown(data)):
        assert "Which differences are more than chance" in page
        assert "64/none: AUROC" in page


def test_few_groups_leave_marks_and_intervals_out_and_say_why() -> None:
    blocks = significance(make_data(NOISES, parents=12))
    table = tables_of(blocks)["64/none: AUROC"]
    assert {row[1].tag for row in table.rows} == {BEST, ""}
    assert {row[3].sub for row in table.rows} == {""}
    assert "p, adjusted" not in [column.title for column in table.columns]
    assert "p adjusted for 0 comparisons" in table.caption
    assert "photographs of only 6 groups, ten are needed" in said(blocks)


def test_one_detector_is_compared_with_itself_alone() -> None:
    blocks = significance(make_data({"good": 1.0}))
    assert "No cell has two detectors" in said(blocks)
    assert list(tables_of(blocks)) == [
        "64: AUROC minus that of uncompressed pictures", "64: accuracy minus that of uncompressed pictures",
    ]  # fmt: skip


def test_with_many_detectors_it_is_said_that_the_best_was_found_on_the_same_pictures() -> None:
    many = make_data({f"detector-{number}": 1.0 + number for number in range(7)}, parents=24)
    assert "its lead is somewhat flattered" in said(significance(many))
    assert "pairs.csv" not in said(significance(many))


def test_a_run_without_comparisons_says_so(data: ReportData) -> None:
    empty = dataclasses.replace(data, pairs=data.pairs.clear(), ranks=data.ranks.clear())
    assert said(significance(empty)) == "No detectors were compared in this run."
    assert {name: report_tables(empty)[name].height for name in ("significance", "pairs")} == {
        "significance": 0, "pairs": 0,
    }  # fmt: skip
