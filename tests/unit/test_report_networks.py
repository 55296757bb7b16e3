"""The report's sections on networks: the stage table, rejection, the second project's rows; none without networks."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deployments.tables import markdown, short_tables
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.tables import COMPARISON_SCHEMA, LATENCY_SCHEMA, NETWORK_SCHEMA
from tasks.evaluation.rejection import CONFUSION_SCHEMA, DIFFERENCE_SCHEMA, REJECTION_SCHEMA
from tasks.report.blocks import Heats, Section, Table, Text, file_size, millions, milliseconds, points, times
from tasks.report.data import NetworkData, ReportData
from tasks.report.network_tables import (
    headline_resolution,
    loses_at_most_a_point,
    network_tables,
    scenario_parts,
)
from tasks.report.networks import stage_blocks
from tasks.report.page import escape_markdown, render_html, render_markdown
from tasks.report.plots import HeatScale, signed_points
from tasks.report.rejection import rejection_blocks
from tasks.report.reported import ReportedTableError
from tasks.report.reported_networks import SECOND_PROJECT, ReportedNetwork, read_second_project
from tasks.report.run import _durations, _network_data
from tasks.report.second_project import second_project_blocks
from tasks.report.sections import report_tables
from tasks.spec.experiment import Experiment
from tests.unit.network_reports import frame, make_networks, with_networks

NASTY = '<script>alert("x")</script>|`*_'
EMPTY = {
    "comparison": COMPARISON_SCHEMA,
    "networks": NETWORK_SCHEMA,
    "latency": LATENCY_SCHEMA,
    "rejection": REJECTION_SCHEMA,
    "confusion": CONFUSION_SCHEMA,
    "differences": DIFFERENCE_SCHEMA,
}


def report_data(experiment: Experiment, networks: NetworkData | None) -> ReportData:
    """A run of which nothing is known but its networks."""
    nothing = pl.DataFrame()
    names = ("protocol", "resolution", "mix", "detector", "metric", "threshold_rule")
    results = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return ReportData(
        experiment=experiment,
        run_name="run",
        created="2026-01-31 12:00 UTC",
        results=results,
        reported=(),
        flags={},
        ablation_stages=(),
        roc=nothing,
        examples=nothing,
        quality=nothing,
        quarantine=nothing,
        counts=nothing,
        provenance={},
        networks=networks,
    )


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return with_networks()


@pytest.fixture(scope="module")
def tables(experiment: Experiment) -> dict[str, pl.DataFrame]:
    return network_tables(experiment, make_networks(experiment))


@pytest.fixture(scope="module")
def html(experiment: Experiment) -> str:
    return render_html(report_data(experiment, make_networks(experiment)))


@pytest.fixture(scope="module")
def text(html: str) -> str:
    return words(html)


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html[html.index("<main>") :])).split())


def sections(experiment: Experiment, data: NetworkData) -> dict[str, Section]:
    tables = network_tables(experiment, data)
    blocks = {
        "networks": stage_blocks(experiment, tables),
        "rejection": rejection_blocks(tables),
        "second-project": second_project_blocks(report_data(experiment, data), tables),
    }
    return {anchor: Section(anchor, anchor, found) for anchor, found in blocks.items()}


def said(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def changed(frame_: pl.DataFrame, where: pl.Expr, **values: Any) -> pl.DataFrame:
    """The frame with some columns set where a condition holds."""
    return frame_.with_columns(
        pl.when(where).then(pl.lit(value, frame_.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


# ---- an experiment without networks


def test_an_experiment_without_networks_has_no_such_section_and_no_such_table() -> None:
    data = report_data(with_networks(unseen=False, mobile=None), None)
    assert stage_blocks(data.experiment, {}) == rejection_blocks({}) == second_project_blocks(data, {}) == ()
    assert "stages" not in report_tables(data)
    for document in (render_html(data), render_markdown(data)):
        assert "Networks for a phone" not in document
        assert "unknown source" not in document
        assert "second project" not in document


# ---- the stage table


def test_networks_stand_in_the_experiments_order_with_a_student_alone_after_its_kin(
    tables: dict[str, pl.DataFrame],
) -> None:
    assert tables["stages"]["network"].to_list() == [
        "dense", "v1", "v2", "v3", "sparse-40", "pruned-50", "distilled-30", "distilled-30-alone", "narrow",
        "narrow-alone", "dense-int8", "distilled-30-int8",
    ]  # fmt: skip


def test_shares_and_speeds_are_of_the_first_network(tables: dict[str, pl.DataFrame]) -> None:
    row = tables["stages"].row(by_predicate=pl.col("network") == "pruned-50", named=True)
    assert row["macs_share"] == pytest.approx(0.5)
    assert row["bytes_share"] == pytest.approx(4.51 / 9.02)
    assert row["ms"] == pytest.approx(12.8 * 1.09)  # at 512 pixels, not at 224
    assert row["faster"] == pytest.approx(21.4 / 12.8)
    assert row["faster_than_eager"] == pytest.approx(46.2 / 12.8)
    assert row["latency_reason"] is None


def test_the_first_network_has_no_change(tables: dict[str, pl.DataFrame]) -> None:
    first = tables["stages"].row(0, named=True)
    assert (first["change"], first["loses_at_most_a_point"], first["macs_share"]) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("change", "low", "holds"),
    [
        (-0.01, -0.029, True),
        (0.99 - 1.0, -0.02, True),  # a float's noise is no loss
        (-0.0101, -0.02, False),
        (-0.005, -0.03, False),
        (0.02, -0.01, True),
        (None, -0.02, None),
        (-0.005, None, None),
    ],
)
def test_at_most_a_point_is_lost_by_the_estimate_and_fewer_than_three_by_the_interval(
    change: float | None, low: float | None, holds: bool | None
) -> None:
    assert loses_at_most_a_point(change, low) is holds


def test_the_lead_names_the_smallest_network_that_loses_at_most_a_point(text: str) -> None:
    assert "The smallest network that loses at most one point is distilled-30-int8: −0.9 points [−2.0, +0.1]." in text
    assert "Its file has 810 kB (9 % of dense's 9.02 MB), it takes 30 % of the multiply-accumulates" in text
    assert "4.3 times faster than the first network in ONNX Runtime and 9.2 times faster" in text
    assert "5 of 11 compared networks do" in text


def test_a_small_network_whose_interval_reaches_three_points_is_not_the_smallest(experiment: Experiment) -> None:
    data = make_networks(experiment)
    comparison = changed(data.comparison, pl.col("network") == "distilled-30-int8", change_low=-0.031)
    lead = said(sections(experiment, dataclasses.replace(data, comparison=comparison))["networks"])
    assert "The smallest network that loses at most one point is dense-int8" in lead


def test_that_no_network_loses_so_little_is_said_plainly(experiment: Experiment) -> None:
    data = make_networks(experiment)
    comparison = data.comparison.with_columns(pl.col("change") - 0.05, pl.col("change_low") - 0.05)
    lead = said(sections(experiment, dataclasses.replace(data, comparison=comparison))["networks"])
    assert "None of the 11 networks that were compared does. Nearest is sparse-40: −5.3 points" in lead
    assert "The smallest network" not in lead


def test_without_intervals_nothing_is_said_to_hold_and_the_reason_is_shown(experiment: Experiment) -> None:
    data = make_networks(experiment)
    reason = "n/a: fewer than ten groups"
    nothing = dict.fromkeys(("low", "high", "change_low", "change_high"))
    comparison = changed(data.comparison, pl.lit(True), reason=reason, **nothing)
    html = render_html(report_data(experiment, dataclasses.replace(data, comparison=comparison)))
    shown = words(html)
    assert "No network has such an interval here (fewer than ten groups), so none can be said to do that." in shown
    assert "−0.9" in shown
    assert "[n/a]" not in shown
    assert "Without an interval this is not judged." in shown


def test_zeros_that_stay_in_the_file_are_said_to_save_nothing(text: str) -> None:
    assert (
        "sparse-40 has 40 % zeros among its weights. Zeros that stay in the file save nothing: 9.02 MB against " in text
    )
    assert "compressed 5.87 MB against 8.31 MB" in text


def test_missing_times_show_their_reason(experiment: Experiment) -> None:
    data = make_networks(experiment, latency=frame([], LATENCY_SCHEMA))
    section = sections(experiment, data)["networks"]
    assert "no time was measured in ONNX Runtime at 512 pixels (dense, v1, " in said(section)
    assert "its time is n/a (no time was measured" in said(section)


def test_what_is_not_a_number_is_missing(experiment: Experiment) -> None:
    data = make_networks(experiment)
    networks = data.networks.with_columns(loss=pl.lit(float("nan")))
    table = network_tables(experiment, dataclasses.replace(data, networks=networks))["second_project"]
    assert table["here_loss"].is_null().all()


def test_random_weights_are_said_to_mean_nothing() -> None:
    experiment = with_networks(weights="random:3")
    shown = said(sections(experiment, make_networks(experiment))["networks"])
    assert "dense began with random weights (random:3)" in shown
    assert "not how well a phone can tell generated images" in shown


def test_the_headline_cell_is_native_or_else_the_largest_resolution() -> None:
    assert headline_resolution(with_networks()) == "native"
    assert headline_resolution(with_networks(canonical_side=96, resolutions=["native", 256, 64])) == "native"
    assert headline_resolution(with_networks(resolutions=[64, 256])) == "256"


# ---- cells, students, bits


def test_heat_maps_show_the_first_networks_accuracy_and_the_others_change(experiment: Experiment) -> None:
    section = sections(experiment, make_networks(experiment))["networks"]
    (heats,) = (block for block in section.blocks if isinstance(block, Heats))
    first, second = heats.maps
    assert (first.title, second.title) == ("Class accuracy", "Change from dense")
    assert first.rows == ("dense",)
    assert (len(second.rows), second.rows[0]) == (11, "v1")
    assert first.columns[:5] == ("native/none", "native/q60", "native/q40", "native/q20", "256/none")
    assert first.scale.share(1 / 3) == 0.0
    assert second.scale.share(-0.05) == pytest.approx(-0.5)
    assert second.scale.text(-0.041) == "−4.1"


def test_bounds_of_changes_are_short_enough_for_a_field() -> None:
    scale = HeatScale(neutral=0.0, reach=0.1, points=True)
    assert scale.bounds(-0.012, 0.003) == "−1.2, +0.3"
    assert scale.bounds(-0.167, -0.0951) == "−17, −10"
    assert scale.bounds(None, 0.1) == ""
    assert HeatScale().bounds(0.5, 0.61) == "0.50–0.61"


@pytest.mark.parametrize(("value", "words_"), [(-0.0001, "0.0"), (0.0, "0.0"), (0.012, "+1.2"), (-0.1, "−10.0")])
def test_a_change_of_nothing_has_no_sign(value: float, words_: str) -> None:
    assert signed_points(value) == words_


def test_every_cell_of_every_network_is_in_its_table(tables: dict[str, pl.DataFrame]) -> None:
    cells = tables["network_cells"]
    assert len(cells) == 12 * 12
    assert cells["cell"][:2].to_list() == ["native/none", "native/q60"]
    assert cells.filter(pl.col("network") == "dense")["change"].is_null().all()


def test_a_student_is_shown_with_a_teacher_and_without_for_every_seed_and_their_mean(
    tables: dict[str, pl.DataFrame], text: str
) -> None:
    table = tables["distillation"].filter(pl.col("student") == "narrow")
    assert table["seed"].to_list() == [0, 1, 2, None]
    assert table["difference"][:3].to_list() == pytest.approx((table["with_teacher"] - table["alone"])[:3].to_list())
    # Only the mean has a paired interval against the student alone.
    assert table["difference_low"][:3].is_null().all()
    assert table["difference_low"][3] == pytest.approx(0.012)
    assert "with a teacher +2.3 points [+1.2, +3.3] in the mean of 3 seeds; better in 3 of them" in text
    assert "No effect of the teacher is shown that holds over pictures and seeds." in text


def test_narrow_students_are_said_to_have_no_pretrained_weights(text: str) -> None:
    assert "Narrow students (narrow) have no pretrained weights here, whether taught or alone" in text
    assert "narrow and narrow-alone: no pretrained weights exist here, so they began at random" in text


def test_bits_are_compared_with_their_own_origin_in_each_class(tables: dict[str, pl.DataFrame], text: str) -> None:
    classes = tables["network_classes"]
    assert classes.select("network", "class").rows() == [
        (network, name) for network in ("dense-int8", "distilled-30-int8") for name in ("real", "gan", "sd14")
    ]
    assert classes["change"][:3].to_list() == pytest.approx([-0.004, -0.001, 0.002])
    assert "in float stay features.18.0, classifier.1. Paired change from dense: −0.4 points" in text
    assert "no layer stays in float. Paired change from distilled-30" in text


# ---- rejection


def test_scenarios_are_read_from_their_names(experiment: Experiment) -> None:
    assert scenario_parts(experiment, "leave-one-out gan") == ("leave-one-out", "gan")
    assert scenario_parts(experiment, "unseen dalle") == ("unseen", "dalle")
    assert scenario_parts(experiment, "shifted sd-other") == ("shifted", "sd-other")
    assert scenario_parts(experiment, "leave-one-out dalle") == ("other", "leave-one-out dalle")


def test_rejection_has_a_row_per_score_and_rule_and_its_difference_from_the_maximum_probability(
    tables: dict[str, pl.DataFrame],
) -> None:
    table = tables["rejection"]
    assert table["kind"].unique(maintain_order=True).to_list() == ["leave-one-out", "unseen", "shifted"]
    gan = table.filter(pl.col("scenario") == "leave-one-out gan")
    assert gan.select("score", "rule", "chosen").rows() == [
        ("max-probability", "kept-0.95", False),
        ("max-probability", "bound-0.6", False),
        ("max-probability", "bound-0.7", False),
        ("energy", "kept-0.95", False),
        ("distance", "kept-0.95", True),
    ]
    assert gan["auroc_difference"].to_list() == [None, None, None, 0.033, 0.149]
    assert gan["rejected_known"].to_list() == pytest.approx([0.052, 0.062, 0.072, 0.052, 0.052])


def test_a_better_score_is_called_better_only_where_the_interval_says_so(text: str) -> None:
    assert "The difference is +0.149 [+0.109, +0.189]: distance is better." in text
    assert "The difference is +0.020 [−0.020, +0.060]: distance is not shown to be better." in text


def test_a_shifted_family_is_apart_and_never_called_unknown(experiment: Experiment) -> None:
    section = sections(experiment, make_networks(experiment))["rejection"]
    titles = [block.caption for block in section.blocks if isinstance(block, Table)]
    order = ["Left out of training", "Generators that no network was trained on", "A known family, shifted"]
    assert [title for title in titles if not title.startswith("Confusion")] == order
    (shifted,) = (block for block in section.blocks if getattr(block, "caption", "") == order[-1])
    assert isinstance(shifted, Table)
    assert "known / shifted" in [column.title for column in shifted.columns]
    assert not any("unknown" in column.title for column in shifted.columns)
    (confusion,) = (table for table in section.blocks if getattr(table, "caption", "").startswith("Confusion, shifted"))
    assert isinstance(confusion, Table)
    assert [row[0].tag for row in confusion.rows] == ["", "", "", "shifted"]


def test_the_confusion_matrix_has_a_column_unknown_and_the_source_left_out(experiment: Experiment) -> None:
    section = sections(experiment, make_networks(experiment))["rejection"]
    (matrix,) = (block for block in section.blocks if getattr(block, "caption", "").startswith("Confusion, gan left"))
    assert isinstance(matrix, Table)
    assert [column.title for column in matrix.columns] == ["truth", "real", "sd14", "unknown"]
    assert [(row[0].text, row[0].tag, row[-1].text) for row in matrix.rows] == [
        ("real", "", "17"),
        ("sd14", "", "17"),
        ("gan", "unknown", "250"),
    ]
    assert not matrix.folded


def test_rejection_without_unknown_pictures_is_na_with_its_reason(experiment: Experiment) -> None:
    data = make_networks(experiment)
    nothing: dict[str, Any] = {"value": None, "low": None, "high": None, "reason": "no unknown pictures"}
    rejection = changed(data.rejection, pl.lit(True), **nothing)
    differences = changed(data.differences, pl.lit(True), **nothing)
    empty = dataclasses.replace(
        data, rejection=rejection, differences=differences, confusion=frame([], CONFUSION_SCHEMA)
    )
    html = render_html(report_data(experiment, empty))
    assert "gan left out (dense@without-gan) n/a: no unknown pictures." in words(html)
    assert "nan" not in words(html).lower().split()


# ---- the second project


def test_the_second_projects_table_is_read_as_printed() -> None:
    rows = read_second_project(SECOND_PROJECT)
    assert [row.model for row in rows] == ["v1", "v2", "v3"]
    assert rows[0] == ReportedNetwork("v1", 8, 32, 5, 0.3722, 0.8256, 0.6674, 0.7626)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v1,8,32,5,0.3,0.8,0.6,high", "expected a number"),
        ("v1,8,32,5,0.3,0.8,0.6,1.2", r"\[0, 1\]"),
        ("v1,8,32,5,-0.3,0.8,0.6,0.7", "at least 0"),
        ("v1,8,32,5,0.3,0.8,nan,0.7", "at least 0"),
        ("v1,8,32,5,0.3,0.8,0.6,0.7\nv1,8,32,5,0.3,0.8,0.6,0.7", "unique"),
    ],
)
def test_a_malformed_table_of_the_second_project_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "table.csv"
    header = SECOND_PROJECT.read_text().splitlines()[0]
    path.write_text(f"{header}\n{line}\n")
    with pytest.raises(ReportedTableError, match=message):
        read_second_project(path)
    path.write_text("model,epochs\nv1,8\n")
    with pytest.raises(ReportedTableError, match="missing"):
        read_second_project(path)
    with pytest.raises(ReportedTableError, match="cannot be read"):
        read_second_project(tmp_path / "none.csv")


def test_printed_rows_stand_beside_the_network_of_the_same_head(tables: dict[str, pl.DataFrame], text: str) -> None:
    table = tables["second_project"]
    # dense has the head v3 as well, but other layers unlocked than the printed row.
    assert table["network"].to_list() == ["v1", "v2", "v3"]
    assert table["printed_validation_accuracy"].to_list() == [0.7626, 0.7282, 0.7125]
    assert table["here_layers_unlocked"].to_list() == ["5", "5", "8"]
    assert table["test_accuracy"].to_list() == pytest.approx([0.875, 0.872, 0.865])
    assert "Known images could never be rejected" in text
    assert "never given" in text


def test_a_head_that_no_network_has_is_na_with_its_reason(experiment: Experiment) -> None:
    data = make_networks(experiment)
    without = data.networks.filter(~pl.col("network").is_in(["v1", "v2", "v3"]))
    section = sections(experiment, dataclasses.replace(data, networks=without))["second-project"]
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.rows[1][1].sub == "no network here has the head v1"
    assert table.rows[5][1].sub == "dense"  # the same head, with all layers unlocked


# ---- documents


def test_both_documents_show_all_three_sections_once(html: str, experiment: Experiment) -> None:
    document = render_markdown(report_data(experiment, make_networks(experiment)))
    for title in ("Networks for a phone", "When a network should say “unknown source”", "The second project's table"):
        assert html.count(f"<h2>{title.replace(chr(39), '&#39;')}</h2>") == 1
        assert document.count(f"## {title}") == 1
    assert len(document.encode()) < 1_000_000


def test_names_from_outside_are_shown_as_text(experiment: Experiment) -> None:
    data = make_networks(experiment)
    networks = changed(data.networks, pl.col("network") == "dense-int8", in_float=NASTY)
    given = report_data(experiment, dataclasses.replace(data, networks=networks))
    assert render_html(given).count("<script>") == 1
    assert escape_markdown(NASTY) in render_markdown(given)


def test_an_experiment_whose_networks_left_nothing_still_has_a_report(experiment: Experiment) -> None:
    data = make_networks(experiment, reported=(), **{name: frame([], schema) for name, schema in EMPTY.items()})
    html = render_html(report_data(experiment, data))
    assert "No network was described in this run." in html
    assert "No rejection was evaluated in this run." in html
    assert "No table of the second project was given." in html


@pytest.mark.parametrize("name", EMPTY)
def test_a_missing_table_leaves_the_report_standing(experiment: Experiment, name: str) -> None:
    data = make_networks(experiment, **{name: frame([], EMPTY[name])})
    for document in (render_html, render_markdown):
        assert "Networks for a phone" in document(report_data(experiment, data))


def test_all_tables_can_be_written_as_csv(tables: dict[str, pl.DataFrame]) -> None:
    for table in tables.values():
        assert pl.read_csv(table.write_csv().encode(), infer_schema_length=None).height == table.height


def test_tables_of_networks_are_printed_as_markdown(tmp_path: Path, experiment: Experiment) -> None:
    store = LocalStore(tmp_path)
    data = report_data(experiment, make_networks(experiment))
    for name, table in (report_tables(data) | _plain_tables()).items():
        path = store.path(f"run/tables/{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(path)
    short = short_tables(store, "run")
    stages = short["Networks: what each stage costs and saves"]
    assert stages.row(1, named=True)["change, points"] == "−4.1 [−5.2, −3.1]"
    assert stages.row(0, named=True)["file"] == "9.02 MB (100 %)"
    second = short["The second project's table: as printed, and here"]
    assert second.rows()[:2] == [
        ("v1", "printed", "8", "32", "5", "0.3722", "0.8256", "0.6674", "0.7626", "never given"),
        ("v1", "here: v1", "4.6", "32", "5", "0.2314", "0.9010", "0.3127", "0.8810", "0.875 [0.857, 0.892]"),
    ]
    titles = list(short)
    assert "Rejection, one generator left out" in titles
    assert "A known family, shifted (no unknown source)" in titles
    assert "Confusion with gan left out: distance, kept-0.95" in titles
    for title, table in short.items():
        lines = markdown(title, table).splitlines()
        assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def _plain_tables() -> dict[str, pl.DataFrame]:
    """Tables that a run without results lacks."""
    quality = {"source": "", "cell": "", "metric": "", "n_real": 0, "n_fake": 0, "value": 0.0, "low": 0.0}
    counts = ("source", "label", "split_or_fold", "images", "groups", "left_out", "quarantined")
    return {
        "quality": pl.DataFrame([quality | {"high": 0.0}]).clear(),
        "counts": pl.DataFrame([dict.fromkeys(counts, "") | {"collapse_rate": 0.0}]).clear(),
    }


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (file_size(9_024_113), "9.02 MB"),
        (file_size(812_345), "812 kB"),
        (file_size(None), "n/a"),
        (millions(2_230_277), "2.23 M"),
        (millions(300_774_272), "301 M"),
        (milliseconds(9.7), "9.70"),
        (milliseconds(None), "n/a"),
        (times(4.28), "4.3 ×"),
        (points(None), "n/a"),
    ],
)
def test_numbers_have_the_unit_and_the_digits_of_their_size(shown: str, expected: str) -> None:
    assert shown == expected


# ---- from the store


def test_a_runs_networks_are_read_from_its_objects(tmp_path: Path, experiment: Experiment) -> None:
    store = LocalStore(tmp_path)
    made = make_networks(experiment)

    def kept(name: str, seconds: float = 0.0, **parts: pl.DataFrame) -> Ref:
        contents = {ROWS if part == "rows" else f"{part}.parquet": table.to_arrow() for part, table in parts.items()}
        return commit(store, name, step=name, digest="0" * 64, recipe={}, parts=contents, seconds=seconds)

    half = len(made.comparison) // 2
    comparisons = (
        kept("compare-a", 2.0, rows=made.comparison[:half]),
        kept("compare-b", rows=made.comparison[half:]),
    )
    described = kept("describe", rows=made.networks)
    rejections = (kept("reject", rows=made.rejection, confusion=made.confusion, differences=made.differences),)
    read = _network_data(store, comparisons, described, None, rejections)
    assert read is not None
    assert read.comparison.equals(made.comparison)
    assert read.confusion.equals(made.confusion)
    assert read.latency.is_empty()
    assert [row.model for row in read.reported] == ["v1", "v2", "v3"]
    assert _network_data(store, comparisons, None, None, ()) is None
    assert _durations(store, (*comparisons, comparisons[0])) == {"compare-a": 2.0, "compare-b": 0.0}
