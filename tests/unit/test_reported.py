"""The reported table is read as printed, and its flags are exactly the known contradictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from tasks.report import reported
from tasks.report.reported import (
    FIRST_PROJECT,
    ReportedRow,
    ReportedTableError,
    arithmetic_flags,
    implied_precision,
    implied_recall,
    read_reported,
    recall_from_precision,
    rounding_range,
)

HEADER = ",".join(reported.COLUMNS) + "\n"


@pytest.fixture(scope="module")
def rows() -> dict[str, ReportedRow]:
    return {row.name: row for row in read_reported(FIRST_PROJECT)}


@pytest.fixture(scope="module")
def flags() -> dict[str, list[str]]:
    return arithmetic_flags(read_reported(FIRST_PROJECT))


def test_the_ten_rows_are_read_as_printed(rows: dict[str, ReportedRow]) -> None:
    assert len(rows) == 10
    assert rows["Gan 256x256"] == ReportedRow("Gan 256x256", "gan", "256", 0, None, 0.8040, 0.7565, 0.8206, 0.8206)
    assert rows["Combined 64x64 Compression 80%"].jpeg_quality == 20
    assert rows["Gan"].metrics == (None, None, None, None)


def test_compression_is_100_minus_the_jpeg_quality(rows: dict[str, ReportedRow]) -> None:
    for row in rows.values():
        assert row.compression_percent == (0 if row.jpeg_quality is None else 100 - row.jpeg_quality)


def test_the_flags_are_exactly_the_known_contradictions(flags: dict[str, list[str]]) -> None:
    assert flags == {
        "Gan 256x256": [
            "F1 is printed as 0.8206, but precision and recall give 0.7872",
            "recall equals F1 (0.8206)",
            "accuracy and F1 at 1:1 imply a recall of 0.8965 (0.8960 to 0.8971 with rounding), printed is 0.8206; "
            "accuracy and precision imply 0.8966",
        ],
        "Stable 256x256": [
            "F1 is printed as 0.8987, but precision and recall give 0.8998",
            "recall equals F1 (0.8987)",
            "accuracy and F1 at 1:1 imply a recall of 0.8960 (0.8951 to 0.8970 with rounding), printed is 0.8987; "
            "accuracy and precision imply 0.8965",
        ],
        "Gan 64x64": ["all four values equal those of Stable 64x64"],
        "Stable 64x64": ["all four values equal those of Gan 64x64"],
        "Combined 64x64 Compression 80%": ["accuracy rises with compression: 0.7348 at 80 %, 0.7145 at 60 %"],
        "Combined 64x64 Compression 60%": ["accuracy rises with compression: 0.7145 at 60 %, 0.6993 at 40 %"],
        "Combined 64x64 Compression 40%": ["accuracy rises with compression: 0.6993 at 40 %, 0.6583 at 0 %"],
        "Combined 64x64": [],
        "Gan": ["no value was reported"],
        "Stable": ["no value was reported"],
    }


@pytest.mark.parametrize(("name", "recall"), [("Gan 256x256", 0.8966), ("Stable 256x256", 0.8965)])
def test_the_recall_of_the_256_rows_follows_from_the_other_columns(
    rows: dict[str, ReportedRow], name: str, recall: float
) -> None:
    row = rows[name]
    assert row.accuracy is not None
    assert row.f1 is not None
    assert row.precision is not None
    low, high = rounding_range(implied_recall, row.accuracy, row.f1)
    assert low < recall < high
    assert round(recall_from_precision(row.accuracy, row.precision), 4) == recall


@pytest.mark.parametrize("seed", range(5))
def test_implied_recall_and_precision_agree_with_scikit_learn_at_one_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], 200)
    decision = (rng.random(400) < 0.3 + 0.3 * label).astype(int)
    accuracy, f1 = accuracy_score(label, decision), f1_score(label, decision)
    precision, recall = precision_score(label, decision), recall_score(label, decision)
    assert implied_recall(accuracy, f1) == pytest.approx(recall, abs=1e-12)
    assert implied_precision(accuracy, f1) == pytest.approx(precision, abs=1e-12)
    assert recall_from_precision(accuracy, precision) == pytest.approx(recall, abs=1e-12)


def test_rounding_alone_raises_no_flag() -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        true_positives, false_positives = rng.integers(1, 1999, size=2) / 2000
        values = (
            (true_positives + 1 - false_positives) / 2,
            true_positives / (true_positives + false_positives),
            true_positives,
            2 * true_positives / (true_positives + false_positives + 1),
        )
        row = ReportedRow(f"row {number}", "gan", "64", 0, None, *(round(float(value), 4) for value in values))
        found = [flag for flag in arithmetic_flags([row])[row.name] if not flag.startswith("recall equals F1")]
        assert found == []


def test_a_wrong_precision_is_flagged() -> None:
    row = ReportedRow("wrong", "gan", "64", 0, None, 0.8040, 0.7000, 0.8966, 0.8206)
    assert any("imply a precision of 0.7565" in flag for flag in arithmetic_flags([row])["wrong"])


def test_a_partly_empty_row_names_what_is_missing() -> None:
    row = ReportedRow("partly", "gan", "64", 0, None, 0.8, None, 0.7, None)
    assert arithmetic_flags([row]) == {"partly": ["not reported: precision, f1"]}


@pytest.mark.parametrize("f1", [0.0, 1.0])
def test_extreme_f1_values_are_no_division_by_zero(f1: float) -> None:
    row = ReportedRow("extreme", "gan", "64", 0, None, 0.5 + f1 / 2, None, None, f1)
    assert arithmetic_flags([row]) == {"extreme": ["not reported: precision, recall"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,mix\nGan,gan\n", "missing"),
        (HEADER + "Gan,gan,64,0,,high,,,\n", "expected a number"),
        (HEADER + "Gan,gan,64,0,,1.5,,,\n", r"must lie in \[0, 1\]"),
        (HEADER + "Gan,gan,64,0,,nan,,,\n", r"must lie in \[0, 1\]"),
        (HEADER + "Gan,gan,64,0,,,,,\nGan,gan,64,0,,,,,\n", "unique"),
    ],
)
def test_a_malformed_table_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ReportedTableError, match=message):
        read_reported(path)


def test_a_missing_table_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReportedTableError, match="cannot be read"):
        read_reported(tmp_path / "none.csv")
