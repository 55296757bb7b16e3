"""The overview of an evaluation: what it says, how often it is written, and that it always ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Cancelling
from prefect.testing.utilities import prefect_test_harness

from flows import overview as overview_module
from flows.overview import Lane, Line, Overview, Problem, Shown, duration, overview_markdown, progress_of, watched
from tasks.progress import Progress, tally


def rows(markdown: str) -> list[list[str]]:
    """The cells of all lines of tables, without the rulers below the heads."""
    lines = [line for line in markdown.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_a_line_says_how_much_is_done_how_fast_and_when_it_ends() -> None:
    line = Line("embed", "gpu", 3_000, 12_000, seconds=7_200.0, failed=0, at_work=4, elapsed=600.0, found=1_200)
    head, embed, total = rows(overview_markdown("t", [line], [], "Running", [], gpu_price=2.5))
    assert head == ["step", "pool", "done", "", "rate", "left", "at work", "cost"]
    # 1,800 in ten minutes, those that were found not counted: 9,000 more take 3,000 s. Two hours at 2.50.
    assert embed == ["embed", "gpu", "3,000 of 12,000", "███░░░░░░░░░", "3.0 per second", "50 min", "4", "5.00"]
    assert total == ["**all**", "", "3,000 of 12,000", "███░░░░░░░░░", "", "at least 50 min", "4", "5.00"]


def test_a_finished_line_says_how_long_it_took_or_that_all_was_found() -> None:
    took = Line("embed", "", 2, 2, seconds=60.0, failed=0, at_work=0, elapsed=36.0)
    many = Line("train", "", 20, 20, seconds=60.0, failed=0, at_work=0, elapsed=10.0)
    found = Line("shard", "", 5, 5, seconds=0.0, failed=0, at_work=0, elapsed=0.1, found=5)
    _, *lines, total = rows(overview_markdown("t", [took, many, found], [], "Running", []))
    # A rate of two is none.
    assert [line[3:5] for line in lines] == [["", "done in 36 s"], ["2.0 per second", "done in 10 s"], ["", "found"]]
    assert total[3:5] == ["", ""]


def test_columns_that_say_nothing_are_left_out() -> None:
    line = Line("embed", "", 0, 12, seconds=0.0, failed=0, at_work=0)
    head, embed, _ = rows(overview_markdown("t", [line], [], "Running", [], gpu_price=2.5))
    assert head == ["step", "done", "", "rate", "left", "at work"]
    assert embed == ["embed", "0 of 12", "░" * 12, "", "", ""]
    failed = Line("embed", "", 0, 12, seconds=0.0, failed=2, at_work=0)
    assert rows(overview_markdown("t", [failed], [], "Running", []))[0][-1] == "failed"


@pytest.mark.parametrize(
    ("done", "elapsed", "rate"),
    [
        (30, 10.0, "3.0 per second"),
        (3, 60.0, "3.0 per minute"),
        (1, 1800.0, "2.0 per hour"),
        (1, 7200.0, "0.5 per hour"),
    ],
)
def test_a_rate_is_given_in_the_unit_that_reads_well(done: int, elapsed: float, rate: str) -> None:
    line = Line("train", "", done, 100, seconds=1.0, failed=0, at_work=1, elapsed=elapsed)
    assert rate in rows(overview_markdown("t", [line], [], "Running", []))[1]


def test_a_bar_is_full_when_all_is_done_and_not_before() -> None:
    def bar(done: int) -> str:
        line = Line("embed", "", done, 10_000, seconds=0.0, failed=0, at_work=0)
        return rows(overview_markdown("t", [line], [], "Running", []))[1][2]

    assert bar(9_999) == "█" * 11 + "░"
    assert bar(10_000) == "█" * 12


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7_000, "117 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lanes_say_who_they_are_what_they_are_at_and_how_long_they_were_silent() -> None:
    lane = Lane("lane 3 of 8", "gpu-local-0", "host", "cuda", "at work", "embed gan 3", 40, 1000, 12.4)
    head, row = rows(overview_markdown("t", [], [lane], "Running", []))
    assert head == ["lane", "worker", "host", "device", "state", "at", "", "silent for"]
    assert row == ["lane 3 of 8", "gpu-local-0", "host", "cuda", "at work", "embed gan 3", "40 of 1,000", "12 s"]
    refused = Lane("lane 4 of 8", "w", "h", "cpu", "put back", refusal="no weights of VGG16")
    assert rows(overview_markdown("t", [], [lane, refused], "Running", []))[2][-1] == "no weights of VGG16"


def test_of_many_lanes_some_are_shown_and_the_others_counted() -> None:
    lanes = [Lane(f"lane {number}", "w", "h", "cpu", "waits") for number in range(200)]
    shown = overview_markdown("t", [], lanes, "Running", [])
    assert len(rows(shown)) == 1 + overview_module.SHOWN_LANES
    assert f"and {200 - overview_module.SHOWN_LANES} lanes" in shown


def test_names_and_texts_stay_texts() -> None:
    odd = "<img src=x onerror=alert(1)> | `a` [b](javascript:c) www.evil.example https://evil.example a@evil.example"
    lane = Lane(odd, odd, odd, odd, odd, odd, refusal=odd)
    line = Line(odd, odd, 1, 2, 0.0, 1, 1)
    shown = overview_markdown(odd, [line], [lane], f"Failed: {odd}", [Problem(odd, "e")], [odd])
    assert "\\<img" in shown
    assert "<img" not in shown.replace("\\<img", "")
    assert not re.search(r"www\.|[^\\](://|@)", shown)
    assert len(rows(shown)[1]) == len(rows(shown)[0])


def test_who_has_only_the_text_reads_steps_and_sentences_back() -> None:
    lines = [
        Line("evaluate-cell", "cpu", 1_200, 2_400, seconds=1.0, failed=1, at_work=1, elapsed=9.0),
        Line("embed", "cpu", 0, 3, seconds=0.0, failed=0, at_work=0),
        Line("embed", "gpu", 2, 5, seconds=0.0, failed=0, at_work=0),
    ]
    lane = Lane("cpu lane 1", "cpu-local", "host", "cpu", "working", at="embed [a]", done=1, total=9)
    problem = Problem("embed", "* one\n| embed | 7 of 7 |\n### At work\n* two")
    written = overview_markdown("t", lines, [lane], "Running", [problem], tasks=["a_b (http://c) waits"], gpu_price=2.0)
    steps = {"evaluate-cell": (1_200, 2_400), "embed": (2, 8)}
    assert progress_of(written) == (steps, ["a_b (http://c) waits"])
    here = overview_markdown("t", [Line("shard", "", 1, 2, 0.0, 0, 0)], [], "Running", [])
    assert progress_of(here) == ({"shard": (1, 2)}, [])
    assert progress_of("") == ({}, [])


def test_an_error_cannot_leave_its_fence() -> None:
    # A control character within backticks hides how many they are.
    error = "first\n```\n# a heading\n``\x1b``\n<script>\x1b[31m"
    shown = overview_markdown("t", [], [], "Running", [Problem("embed gan", error, 2, "lane 1")])
    before, inside, after = shown.split("`````")
    assert before.endswith("embed gan, attempt 2 on lane 1:\n\n")
    assert inside == "text\nfirst\n```\n# a heading\n````\n<script>[31m\n"
    assert after == "\n"


def test_of_many_problems_the_newest_are_shown_first_and_long_ones_are_cut() -> None:
    problems = [Problem(f"embed {number}", f"error {number} " + "x" * 10_000) for number in range(12)]
    shown = overview_markdown("t", [], [], "Running", problems)
    assert shown.index("error 11") < shown.index("error 2 ")
    assert "error 1 " not in shown
    assert "and 2 earlier ones" in shown
    assert len(shown) < 10 * 2_200


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness():
        yield


def artifacts(key: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))


def state_of(artifact: Any) -> str:
    return str(artifact.data).split("**")[1]


def opened(experiment: str, clock: Clock, shown: Callable[[], Shown] = Shown) -> Overview:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Overview(experiment, f"evaluate {experiment}", shown, clock, lambda: now, period=5.0)


def test_one_artifact_is_written_at_the_start_once_a_period_and_at_the_end() -> None:
    clock = Clock()
    seen: list[str] = []

    def shown() -> Shown:
        return Shown([Line("embed", "", round(clock.now / 2), 10, 0.0, 0, 1)])

    @flow
    def body() -> None:
        with opened("one", clock, shown) as overview:
            for _ in range(10):
                clock.now += 2.0
                overview.refresh()
                (artifact,) = artifacts("overview-one")
                seen.append(rows(artifact.data)[1][1].split(" ")[0])

    body()
    # Every third of two seconds each is the first after five.
    assert seen == ["0", "0", "3", "3", "3", "6", "6", "6", "9", "9"]
    (artifact,) = artifacts("overview-one")
    assert state_of(artifact) == "Completed in 20 s, 02 January 2026, 03:04:05 UTC"
    assert rows(artifact.data)[1][1] == "10 of 10"
    assert artifact.description == "evaluate one"


def test_at_the_end_no_lane_is_at_work_any_more() -> None:
    lanes = [Lane(state, "w", "h", "cpu", state, at="embed 3") for state in ("working", "silent", "refused")]
    shown = Shown([Line("embed", "gpu", 1, 2, 0.0, 0, at_work=3)], lanes)

    @flow
    def body() -> None:
        with opened("over", Clock(), lambda: shown):
            pass

    body()
    (artifact,) = artifacts("overview-over")
    found = rows(artifact.data)
    assert [row[4:6] for row in found[-3:]] == [["ended", ""], ["silent", "embed 3"], ["refused", "embed 3"]]
    assert found[1][found[0].index("at work")] == ""


def test_a_failure_is_named_and_goes_on() -> None:
    @flow
    def body() -> None:
        with opened("fails", Clock()):
            raise ValueError("no `weights` of\n*VGG16*")

    with pytest.raises(ValueError, match="VGG16"):
        body()
    (artifact,) = artifacts("overview-fails")
    assert state_of(artifact).startswith(r"Failed after 0 s: ValueError: no \`weights\` of \*VGG16")


def test_a_cancelled_run_says_so_and_one_whose_process_was_ended_says_that() -> None:
    @flow
    def body(experiment: str, cancelled: bool) -> None:
        from prefect.runtime import flow_run

        with opened(experiment, Clock()):
            if cancelled:
                with get_client(sync_client=True) as client:
                    client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
            raise SystemExit(143)

    for experiment, cancelled in (("cancelled", True), ("ended", False)):
        with pytest.raises(SystemExit):
            body(experiment, cancelled)
    assert state_of(artifacts("overview-cancelled")[0]).startswith("Cancelled after 0 s, ")
    assert state_of(artifacts("overview-ended")[0]).startswith("Stopped after 0 s: its process was told to end")


def test_what_goes_on_after_the_end_changes_nothing() -> None:
    clock = Clock()

    @flow
    def body() -> None:
        with opened("after", clock) as overview:
            pass
        clock.now = 100.0
        overview.refresh()

    body()
    assert state_of(artifacts("overview-after")[0]).startswith("Completed in 0 s")


def test_another_attempt_of_a_run_goes_on_with_its_artifact() -> None:
    @flow
    def body() -> None:
        for _ in range(2):
            with opened("again", Clock()):
                pass

    body()
    body()
    # One for each of the two runs.
    assert len(artifacts("overview-again")) == 2


def test_an_attempt_that_another_one_has_taken_over_leaves_the_overview_to_it() -> None:
    @flow
    def body() -> None:
        with opened("taken", Clock()) as overview:
            overview._run.run_count = 0
            raise ValueError("slots are gone")

    with pytest.raises(ValueError, match="slots"):
        body()
    assert state_of(artifacts("overview-taken")[0]).startswith("Running for")


def test_a_server_that_does_not_answer_harms_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def fail(*arguments: object) -> None:
        raise OSError("nobody answers")

    @flow
    def body() -> int:
        with opened("silent", clock) as overview:
            monkeypatch.setattr(overview_module, "rewrite_markdown", fail)
            clock.now = 10.0
            overview.refresh()
            return 3

    assert body() == 3
    monkeypatch.setattr(Overview, "_begin", fail)
    assert body() == 3


def test_outside_of_a_flow_run_nothing_is_written() -> None:
    with opened("nobody", Clock()) as overview:
        overview.refresh()
    assert artifacts("overview-nobody") == []


def test_what_runs_in_one_process_is_counted_by_its_steps() -> None:
    during: list[str] = []

    @task
    def work(number: int, counts: Any) -> None:
        with counts.at_work("embed", f"embed {number}") as at_work:
            if number == 0:
                at_work.found = True
                return
            if number == 1:
                raise ValueError("broken <b>")
            progress = Progress(f"embed {number}", 10)
            progress.advance(4)
            during.append(str(artifacts("overview-inline")[0].data))
            progress.advance(6)

    @flow
    def body() -> None:
        with watched("inline", "evaluate inline", period=0.0):
            counts = tally()
            futures = []
            for number in range(3):
                counts.submitted("embed")
                futures.append(work.submit(number, counts))
            for future in futures:
                future.wait()

    body()
    assert "* embed 2: 4 of 10 pictures" in during[0]
    (artifact,) = artifacts("overview-inline")
    _, embed, _ = rows(artifact.data)
    assert (embed[0], embed[1], embed[-1]) == ("embed", "2 of 3", "1")
    assert "```text\nValueError: broken <b>\n```" in artifact.data
    assert "At work" not in artifact.data
