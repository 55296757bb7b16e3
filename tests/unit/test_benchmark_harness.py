"""The harness of the benchmarks: what is compared, in which order, and what the table says of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as command_line
from benchmarks.harness import (
    Breaks,
    Case,
    Measured,
    Plan,
    Row,
    RowResult,
    Unequal,
    exponent,
    measure_case,
    measure_row,
    quantity,
    reported,
)
from benchmarks.rows import ROWS
from benchmarks.table import commit_name, machine_facts, markdown

FACTS = {"machine": "a machine", "versions": "Python", "date": "today", "commit": "abc"}


class Ways:
    """Two ways with given costs, which note when they ran."""

    def __init__(self, plain: float = 6.0, ours: float = 2.0) -> None:
        self.ran: list[str] = []
        self.costs = {"plain": plain, "ours": ours}

    def run(self, way: str) -> tuple[float, str]:
        self.ran.append(way)
        return self.costs[way], way

    def case(self) -> Case:
        return Case(lambda: self.run("plain"), lambda: self.run("ours"), self.compare)

    def compare(self, plain: Any, ours: Any) -> str:
        self.ran.append(f"compare {plain} {ours}")
        return "equal"


def row(case: Any, **changes: Any) -> Row:
    plain_row = Row("it", "what", "plainly", "things", (1, 2, 4, 8), case, (16,), reach=2, meter=reported)
    return replace(plain_row, **changes)


@contextmanager
def linear(size: int, threads: int) -> Iterator[Case]:
    yield Ways(plain=3.0 * size**2, ours=1.0 * size).case()


def test_both_results_are_compared_before_anything_counts_and_pairs_swap_their_order() -> None:
    ways = Ways()
    measured = measure_case(ways.case(), 8, reported, pairs=3)
    assert ways.ran[:3] == ["plain", "ours", "compare plain ours"]
    assert ways.ran[3:] == ["plain", "ours", "ours", "plain", "plain", "ours"]
    assert (measured.plain, measured.ours) == ((6.0,) * 3, (2.0,) * 3)
    assert measured.ratios == (3.0, 3.0, 3.0)


def test_a_single_plain_run_stands_against_every_run_of_ours() -> None:
    ways = Ways()
    measured = measure_case(ways.case(), 8, reported, pairs=3, plain_once=True)
    assert ways.ran.count("plain") == 1
    assert measured.ratios == (3.0, 3.0, 3.0)


def test_without_pairs_the_runs_that_are_compared_count() -> None:
    ways = Ways()
    measured = measure_case(ways.case(), 8, reported, pairs=0)
    assert ways.ran == ["plain", "ours", "compare plain ours"]
    assert measured.ratios == (3.0,)
    result = measure_row(row(linear, pairs=0), 1, Plan(pairs=5))
    assert [len(one.ours) for one in result.measured] == [1, 1, 1, 1]


def test_without_a_plain_way_there_is_no_ratio() -> None:
    ways = Ways()
    measured = measure_case(replace(ways.case(), plain=None), 8, reported, pairs=2)
    assert ways.ran == ["ours", "compare None ours", "ours"]
    assert (measured.ratios, measured.ours) == ((), (2.0, 2.0))


def test_unequal_results_are_an_error_of_the_row() -> None:
    def refuse(plain: Any, ours: Any) -> str:
        raise Unequal("they differ")

    @contextmanager
    def case(size: int, threads: int) -> Iterator[Case]:
        yield replace(Ways().case(), equality=refuse)

    with pytest.raises(Unequal, match="they differ"):
        measure_row(row(case), 1, Plan())


def test_all_sizes_are_measured_and_the_largest_in_pairs() -> None:
    said: list[str] = []
    result = measure_row(row(linear), 2, Plan(pairs=5), said.append)
    assert [one.size for one in result.measured] == [1, 2, 4, 8]
    assert [len(one.ours) for one in result.measured] == [1, 1, 1, 5]
    assert result.compared.ratios == (24.0,) * 5
    assert len(said) == 4
    assert result.load_before is not None
    assert result.load_after is not None


def test_a_size_that_breaks_ends_the_row_and_keeps_what_was_measured() -> None:
    @contextmanager
    def case(size: int, threads: int) -> Iterator[Case]:
        if size > 2:
            raise Breaks(f"{size} things: no room")
        yield Ways().case()

    result = measure_row(row(case), 1, Plan(pairs=1))
    assert [one.size for one in result.measured] == [1, 2]
    assert (result.error, result.breaks) == (None, "4 things: no room")
    assert "breaks at 4 things: no room" in markdown({"it": row(case)}, [result], FACTS, "command", "some")


def test_a_row_whose_first_size_breaks_is_an_error() -> None:
    @contextmanager
    def case(size: int, threads: int) -> Iterator[Case]:
        raise Breaks("nothing fits")
        yield

    assert measure_row(row(case), 1, Plan()).error == "nothing fits"


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_one_size_has_no_exponent() -> None:
    assert exponent([5], [1.0]) is None


def test_a_result_survives_its_way_through_json() -> None:
    result = measure_row(row(linear), 1, Plan(pairs=2))
    assert command_line.RESULT.validate_json(json.dumps(asdict(result))) == result


def test_the_table_says_ratio_spread_aim_growth_and_equality() -> None:
    result = RowResult(
        "it",
        2,
        (Measured(4, (8.0,), (1.0,), "nearly"), Measured(8, (16.0, 18.0, 20.0), (2.0, 2.0, 2.0), "equal to 1e-9")),
        (0.5, 0.4, 0.3),
        (1.5, 1.0, 0.5),
    )
    text = markdown({"it": row(linear)}, [result], FACTS, "python -m benchmarks", "three pictures")
    assert "| what | 8 things | 2 | plainly | 18 s | 2 s | 9 (8 to 10) | >= 2: reached |" in text
    assert "0.5 to 1.5" in text
    assert "e = 1.17" in text
    assert "equal to 1e-9" in text
    assert "nearly" not in text
    assert "three pictures" in text


def test_the_table_says_by_how_much_an_aim_is_missed() -> None:
    result = measure_row(row(linear, reach=48), 1, Plan(pairs=1))
    assert ">= 48: short by 50%" in markdown({"it": row(linear, reach=48)}, [result], FACTS, "c", "p")


@pytest.mark.parametrize(("at_most", "verdict"), [(10.0, "<= 10 s: reached"), (5.0, "<= 5 s: over by 60%")])
def test_the_table_says_whether_a_cost_stays_below_its_aim(at_most: float, verdict: str) -> None:
    costs = row(linear, reach=None, at_most=at_most)
    assert f"| {verdict} |" in markdown({"it": costs}, [measure_row(costs, 1, Plan(pairs=1))], FACTS, "c", "p")


def test_a_failed_row_stands_in_the_table_with_its_reason() -> None:
    text = markdown({"it": row(linear)}, [RowResult("it", 1, error="they differ")], FACTS, "c", "p")
    assert "ERROR: they differ" in text


@pytest.mark.parametrize(
    ("cost", "unit", "words"),
    [(0.01234, "s", "12.3 ms"), (1.234, "s", "1.23 s"), (4321.0, "s", "4,321 s"), (8.1e8, "bytes", "810 MB")],
)
def test_quantities_have_three_digits(cost: float, unit: str, words: str) -> None:
    assert quantity(cost, unit) == words


def test_the_machine_and_the_commit_are_named(tmp_path: Path) -> None:
    facts = machine_facts(["numpy"])
    assert "cores" in facts["machine"]
    assert "numpy" in facts["versions"]
    assert commit_name(tmp_path) == "unknown"


def test_a_row_runs_in_a_process_of_its_own_with_its_number_of_threads(tmp_path: Path) -> None:
    written = tmp_path / "deep" / "table.md"
    status = command_line.main(
        ["--row", "feature-store-read", "--threads", "2", "--pairs", "1", "--markdown", str(written)]
    )
    assert status == 0
    text = written.read_text(encoding="utf-8")
    assert "| 2 | pyarrow's defaults for a list column |" in text
    assert "bit for bit" in text


def test_a_folder_without_pictures_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_BENCH_PICTURES", "/nowhere")
    with pytest.raises(SystemExit):
        command_line.main(["--row", "views", "--threads", "1"])
    assert "TELLTALE_BENCH_PICTURES" in capsys.readouterr().err


def test_a_row_that_fails_fails_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = RowResult("svm", 1, error="they differ")
    monkeypatch.setattr(command_line, "_measured_apart", lambda *_: failed)
    assert command_line.main(["--row", "svm", "--threads", "1"]) == 1
    assert "FAILED: svm, 1 thread(s): they differ" in capsys.readouterr().err


def test_every_row_is_measured_with_each_number_of_threads_in_the_order_of_the_question(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def measured(name: str, threads: int, *_: object) -> RowResult:
        asked.append((name, threads))
        return RowResult(name, threads, error="not measured")

    monkeypatch.setattr(command_line, "_measured_apart", measured)
    command_line.main([word for name in ("svm", "orchestration", "views") for word in ("--row", name)])
    counts = {name: ROWS[name].threads for name in ("svm", "orchestration", "views")}
    assert asked == [(name, count) for name in counts for count in counts[name]]
    failures = [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines() if "FAILED" in line]
    assert [line.split(",")[0] for line in failures] == [name for name, _ in asked]


def test_every_row_has_four_sizes_each_way() -> None:
    for name, one in ROWS.items():
        assert name == one.name
        assert list(one.sizes) == sorted(set(one.sizes))
        assert list(one.full_sizes) == sorted(set(one.full_sizes))
        assert (len(one.sizes), len(one.full_sizes or one.sizes)) == (4, 4)
