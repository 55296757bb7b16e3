"""The report's section on audits: a line for each detector and generator, with every stage and what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from storage.tables import RESULT_SCHEMA
from tasks.evaluation.audit import AUDIT_STAGES, CHANGE
from tasks.presets import parse_experiment
from tasks.report.audit import NO_PAIRS, audit_blocks, audit_table
from tasks.report.blocks import Table, Text
from tasks.report.data import ResultIndex
from tasks.spec.detectors import Fit
from tests.unit.test_report_detectors import RESULTS

FOLDERS = {"city": "real", "a": "fake", "b": "fake"}
DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "path": "crop",
    "sources": [{"kind": "folder", "name": name, "path": name, "label": label} for name, label in FOLDERS.items()],
    "resolutions": [64],
    "qualities": [None],
    "detectors": [
        {"kind": "linear", "name": "traces", "extractor": {"kind": "spectrum"}},
        {"kind": "linear", "name": "probe", "role": "probe", "extractor": {"kind": "probe"}},
    ],
    "audited": ["a"],
}
PAIRS = {"kind": "reconstruction", "name": "pairs", "of": "city", "weights": "somewhere"}
TRACES, PROBE = Fit(detector="traces"), Fit(detector="probe", role="probe")
# Value, photographs and fakes, by stage.
TOLD: dict[Fit, list[tuple[float | None, int]]] = {
    TRACES: [(0.99, 20), (0.97, 20), (0.9, 12), (0.6, 12)],
    PROBE: [(1.0, 20), (0.95, 20), (None, 0), (0.52, 12)],
}


def row(protocol: str, mix: str, fit: Fit, metric: str, value: float | None, count: int) -> dict[str, Any]:
    place = {"protocol": protocol, "resolution": "64", "perturbation": "none", "mix": mix, "metric": metric}
    bounds = {} if value is None else {"low": value - 0.01, "high": value + 0.01}
    reason = "no windows" if value is None else None
    counts = {"value": value, "n_real": count, "n_fake": count, "n_groups": count, "reason": reason}
    return dict.fromkeys(RESULT_SCHEMA.names) | fit.model_dump() | place | bounds | counts


def rows(pairs: bool) -> Iterator[dict[str, Any]]:
    for fit, told in TOLD.items():
        before: tuple[float | None, int] = (None, 0)
        for stage, (value, count) in zip(AUDIT_STAGES, told, strict=True):
            yield row(stage, "a", fit, "auroc", value, count)
            if value is not None and before[0] is not None:
                yield row(stage, "a", fit, CHANGE, value - before[0], min(count, before[1]))
            before = value, count
        yield row("fair", "a", fit, "auroc", 0.61, 12)
        if pairs:
            yield row("fair", "pairs", fit, "auroc", 0.55, 15)
            yield row("fair", "pairs", fit, "pairs_in_order", 0.58, 15)


class Data:
    """As much of the report's data as the section reads."""

    def __init__(self, *, pairs: bool = False, audited: bool = True) -> None:
        sources = [*DOCUMENT["sources"], *([PAIRS] if pairs else [])]
        changes = {"sources": sources, "audited": ["a"] if audited else []}
        self.experiment = parse_experiment(DOCUMENT | changes)
        self.index = ResultIndex(self.experiment, pl.DataFrame(list(rows(pairs)), schema=RESULTS))


def table(data: Any) -> pl.DataFrame:
    return audit_table(data, data.index)


def shown(data: Any) -> list[Table]:
    return [block for block in audit_blocks({"audit": table(data)}) if isinstance(block, Table)]


def said(data: Any) -> str:
    return " ".join(block.text for block in audit_blocks({"audit": table(data)}) if isinstance(block, Text))


def test_every_stage_has_its_number_and_the_change_from_the_one_before() -> None:
    found = table(Data()).filter(detector="traces")
    assert found["stage"].to_list() == [
        "as-shipped",
        "same-container",
        "same-size",
        "same-history",
        "matched-content",
    ]
    assert found["auroc"].to_list() == [0.99, 0.97, 0.9, 0.6, None]
    assert found["change"].to_list() == [None, *(pytest.approx(one) for one in (-0.02, -0.07, -0.3)), None]
    assert found["same_pictures"].to_list() == [None, True, False, True, None]
    assert found["reason"].to_list()[-1] == NO_PAIRS


def test_the_audit_takes_no_numbers_of_the_run_itself_but_those_of_matched_pairs() -> None:
    found = table(Data(pairs=True)).filter(detector="traces", stage="matched-content")
    assert found.select("cell", "auroc", "n_real").row(0) == ("64/none", 0.55, 15)
    assert found.select("change", "change_low", "same_pictures").row(0) == (None, None, None), "other fakes"


def test_a_line_shows_all_stages_of_a_detector_and_marks_changes_of_other_pictures() -> None:
    of_detectors, of_probes = shown(Data())
    (line,) = of_detectors.rows
    texts = ["traces", "a", "0.990", "0.970", "−0.020", "0.900", "−0.070 *", "0.600", "−0.300"]
    assert [cell.text for cell in line] == texts
    stages = ["as shipped", "same container", "same size", "same history"]
    assert [name for name, _ in of_detectors.groups] == ["", *stages]
    (line,) = of_probes.rows
    assert [cell.text for cell in line] == ["probe", "a", "1.000", "0.950", "−0.050", "n/a", "–", "0.520", "–"]
    assert "* The stages do not show the same pictures" in said(Data())
    assert "no windows (1 number)" in said(Data())
    assert f"Matched content: {NO_PAIRS}" in said(Data())


def test_matched_pairs_are_the_last_stage_where_there_are_any() -> None:
    of_detectors, _ = shown(Data(pairs=True))
    assert [cell.text for cell in of_detectors.rows[0]][-2:] == ["−0.300", "0.550"]
    assert "These are other fakes than the generator's" in said(Data(pairs=True))
    assert NO_PAIRS not in said(Data(pairs=True))


def test_without_an_audit_there_is_no_section() -> None:
    assert audit_blocks({"audit": table(Data(audited=False))}) == ()
