"""The cost of an evaluation of any size: counts are those of its plan, and larger ones are on the line through two."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import cost
from benchmarks.cost import (
    FEW,
    MORE,
    ROWS_OF_A_RUN,
    ROWS_OF_A_TASK_RUN,
    counted,
    duration,
    experiment_of,
    measured_rates,
    prefect_rows,
    processor_seconds,
    read_rates,
    requests_of_a_lane,
    store_requests,
)
from benchmarks.made_up import planned
from flows.coordinator import SHOWN
from storage.local import LocalStore
from storage.objects import commit

SMALL = {"shard_size": 500}


def test_counts_are_on_the_line_that_two_smaller_plans_give() -> None:
    shards = MORE + FEW
    line, plan = counted(shards * 1_000), cost._planned(shards * 1_000, "null")
    assert line.longest == plan.longest
    assert line.counts.keys() == plan.counts.keys()
    for name, counts in plan.counts.items():
        for what in ("elements", "objects", "inputs"):
            assert line.counts[name][what] == counts[what], (name, what)
        assert line.counts[name]["bytes"] == pytest.approx(counts["bytes"], rel=0.01), name
        assert line.largest[name] == pytest.approx(plan.largest[name], rel=0.01), name


def test_a_shard_that_is_begun_counts_as_a_whole_one() -> None:
    whole, begun = counted(118_000), counted(117_001)
    assert {name: counts["elements"] for name, counts in whole.counts.items()} == {
        name: counts["elements"] for name, counts in begun.counts.items()
    }


def test_a_small_evaluation_is_counted_element_by_element() -> None:
    found = counted(1_500, SMALL)
    elements = list(itertools.chain.from_iterable(planned(experiment_of(1_500, SMALL), 1_500)))
    assert found.total("elements") == len(elements)
    assert found.total("objects") == sum(len(element.places) for element in elements)
    assert found.counts["shard"]["elements"] == found.counts["generate/gan"]["elements"] == 3
    # Entries, scan and assignment; the pictures of a GAN have no other input than its weights.
    assert found.counts["shard"]["inputs"] == 3 * 3
    assert found.counts["generate/gan"]["inputs"] == 3


def test_a_lane_claims_an_object_writes_part_and_manifest_and_lets_go() -> None:
    requests = requests_of_a_lane()
    assert (requests["objects"]["PUT"], requests["objects"]["DELETE"]) == (3, 1)
    assert requests["parts"]["PUT"] == 1
    # An input is a manifest and a part.
    assert +requests["inputs"] == Counter(GET=2)
    assert not +requests["elements"]


def test_requests_are_those_of_all_objects_parts_and_inputs() -> None:
    plans, rates = counted(1_000), read_rates()
    puts = 3 * plans.total("objects") + sum(
        round(counts["objects"] * (rates.parts.get(name, 1.0) - 1)) for name, counts in plans.counts.items()
    )
    assert store_requests(plans, rates)["PUT"] == puts


def test_elements_have_rows_in_the_database_only_while_they_are_shown() -> None:
    assert prefect_rows(SHOWN, 8) == 9 * ROWS_OF_A_RUN + SHOWN * ROWS_OF_A_TASK_RUN
    assert prefect_rows(SHOWN + 1, 8) == prefect_rows(10**9, 8) == 9 * ROWS_OF_A_RUN


def test_time_grows_with_the_shards() -> None:
    rates = read_rates()
    assert processor_seconds(32_000, rates) == pytest.approx(2 * processor_seconds(16_000, rates))
    assert [duration(seconds) for seconds in (90, 7_200, 1e5, 1e6)] == ["90 s", "2 h", "27.8 h", "11.6 days"]


def test_rates_are_those_of_the_manifests(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number, seconds in enumerate((1.0, 2.0)):
        parts = {"a.txt": b"", "b.txt": b""}
        commit(store, f"objects/x/{number}", step="x", digest="0", recipe={}, parts=parts, seconds=seconds)
    found = measured_rates(store)
    assert found["parts"] == {"x": 2.0}
    # Nothing is said of what has no rows.
    assert found["seconds"] == {}
    assert found["said"].startswith("2 objects of `sample`, 3 s")


def test_the_command_prints_sizes_lanes_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(["--photographs", "3000", "--photographs", "100000000", "--lanes", "8", "--steps", "--markdown"])
    printed = capsys.readouterr().out
    assert "| photographs | 3,000 | 100,000,000 |" in printed
    assert "| 8 | 9 | " in printed
    assert "| score/network | " in printed


def test_the_command_prints_the_rates_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(LocalStore(tmp_path), "objects/x/0", step="x", digest="0", recipe={}, parts={"a.txt": b""})
    cost.main(["--rates", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)["parts"] == {"x": 1.0}
