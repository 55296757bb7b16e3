"""The model of cost: its counts are exact, its fits hold on a size that they have not seen, and nothing is made up."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.cost import __main__ as cost
from benchmarks.cost.counting import CountingStore, Tally, counted
from benchmarks.cost.limits import TASKS_PER_FLOW_RUN, Limit, largest_part, limits, reached_at, shard_size_for
from benchmarks.cost.model import (
    FLOW,
    LIST_PAGE,
    REF_BYTES,
    VGG16_PARAMETERS,
    Work,
    evaluation_work,
    fit_line,
    fit_power,
    keys_of,
    of_step,
    s3_puts,
    sweep_requests,
    tasks_by_flow_run,
    total_requests,
    total_tasks,
)
from benchmarks.cost.prediction import (
    PAPER_LIMITS,
    POINTS,
    Assumptions,
    fit,
    holdout,
    measured_work,
    points_as_text,
    predict,
    preset,
    read_points,
)
from storage.digest import canonical_json
from storage.objects import ROWS, Ref, read_table
from storage.s3 import PART_BYTES
from storage.store import LocalStore, open_store
from tasks.recipe import Output, StepRun, step
from tasks.spec import GanSpec

VERBS = ("GET", "PUT", "HEAD", "LIST", "DELETE")
KNOWN = read_points()
EVALUATIONS = KNOWN["evaluations"]


def of_verbs(counts: dict[str, int]) -> Counter[str]:
    return +Counter({verb: counts.get(verb, 0) for verb in VERBS})


def size_of(point: dict[str, Any]) -> str:
    return f"{point['pictures']} in shards of {point['shard_size']}"


@pytest.fixture(params=EVALUATIONS, ids=size_of)
def point(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_requests_of_every_step_are_those_that_a_real_evaluation_made(point: dict[str, Any]) -> None:
    measured = {name: of_verbs(counts) for name, counts in point["cold"]["requests"].items()}
    modelled = {work.step: work.requests() for work in measured_work(point)}
    assert modelled == {("index" if name.startswith("index/") else name): counts for name, counts in measured.items()}


def test_a_run_that_finds_everything_asks_as_often_as_a_real_one_and_lists_nothing(point: dict[str, Any]) -> None:
    measured: Counter[str] = sum((of_verbs(counts) for counts in point["warm"]["requests"].values()), Counter())
    assert total_requests(measured_work(point), warm=True) == measured
    assert measured["LIST"] == 0


def test_task_runs_are_those_in_prefects_database(point: dict[str, Any]) -> None:
    works = measured_work(point)
    assert total_tasks(works) == point["cold"]["database_rows"]["task_run"]
    assert total_tasks(works, warm=True) == point["warm"]["database_rows"]["task_run"]


def test_objects_and_parts_are_those_in_the_store(point: dict[str, Any]) -> None:
    for work in measured_work(point):
        if work.step != FLOW:
            found = of_step(point["steps"], work.step)
            assert (work.objects, work.objects * work.parts) == (found["objects"], found["parts"]), work.step


def test_a_sweep_reads_every_manifest_and_asks_the_age_of_checkpoints(point: dict[str, Any]) -> None:
    works = measured_work(point)
    # Two checkpoints are kept, and the sheet of the second epoch.
    modelled = sweep_requests(works, other_keys=3)
    # The measured store answers with all keys at once: three folders, three requests.
    further_pages = math.ceil(keys_of(works) / LIST_PAGE) - 1
    assert modelled == of_verbs(point["sweep"]) + Counter(LIST=further_pages)


def test_the_largest_evaluation_is_predicted_by_the_smaller_ones() -> None:
    found = holdout(KNOWN)
    for name, (predicted, measured) in found.items():
        if name.endswith("requests") or name in ("objects", "task runs"):
            assert predicted == measured, name
        elif name.startswith("bytes"):
            assert predicted == pytest.approx(measured, rel=0.10), name
    rows, written = found["rows in Prefect's database, nothing to compute"]
    assert rows == pytest.approx(written, rel=0.10)


def test_the_points_name_no_place_of_the_machine_that_they_were_measured_on() -> None:
    text = POINTS.read_text(encoding="utf-8")
    assert not [word for word in ("/work", "/root", "/home", "/tmp", "http") if word in text]


def test_points_are_written_as_they_were_read() -> None:
    assert points_as_text(KNOWN) == POINTS.read_text(encoding="utf-8")


@step("joined", version=1, label=lambda name, **_: name)
def joined(run: StepRun, *, name: str, inputs: tuple[Ref, ...]) -> Output:
    """Two parts of the rows of some objects, for the test of the formulas."""
    rows = sum(read_table(run.store, ref).num_rows for ref in inputs)
    return Output({ROWS: pa.table({"n": list(range(rows + 3))}), "side.json": b"{}"})


def test_the_formula_of_a_step_is_what_the_store_is_asked(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    inputs = tuple(joined.compute(store, name=f"input-{number}", inputs=())[0] for number in range(4))
    work = Work("joined", 1, 1, 2, reads={"joined": 4})
    cold, warm = Tally(), Tally()
    joined.compute(CountingStore(store, cold, "joined"), name="all", inputs=inputs)
    joined.compute(CountingStore(store, warm, "joined"), name="all", inputs=inputs)
    assert of_verbs(cold.document()["joined"]) == work.requests()
    assert of_verbs(warm.document()["joined"]) == work.warm_requests()


def test_only_within_its_block_a_store_counts(tmp_path: Path) -> None:
    tally = Tally()
    with counted(tally):
        open_store(str(tmp_path)).write("a/b", b"abc")
        assert open_store(str(tmp_path)).read("a/b") == b"abc"
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert tally.document() == {FLOW: {"GET": 1, "PUT": 1, "read_bytes": 3}}


def test_an_input_adds_so_many_bytes_to_a_manifest() -> None:
    arguments = joined.recipe(name="all", inputs=(Ref(uri="a", digest="0" * 64, rows=1, bytes=1),) * 5)["arguments"]
    longer = joined.recipe(name="all", inputs=(Ref(uri="a", digest="0" * 64, rows=1, bytes=1),) * 6)["arguments"]
    assert len(canonical_json(longer)) - len(canonical_json(arguments)) == REF_BYTES


def test_the_networks_weights_have_so_many_numbers() -> None:
    from tasks.detectors.vgg16 import tensor_shapes

    for layer, count in VGG16_PARAMETERS.items():
        assert sum(math.prod(shape) for shape in tensor_shapes(layer).values()) == count


def test_a_gans_generator_has_so_many_numbers() -> None:
    from tasks.generators.gan import build_generator

    tensors = build_generator(GanSpec()).state_dict().values()
    (trained,) = [work for work in evaluation_work(preset(1_000), 1_000) if work.step == "train-gan"]
    assert trained.values == 4 * sum(tensor.numel() for tensor in tensors if tensor.ndim)


def test_a_large_object_is_written_in_parts() -> None:
    assert s3_puts(PART_BYTES) == 1
    assert s3_puts(PART_BYTES + 1) == 2 + 2


def test_an_experiment_that_the_model_does_not_count_is_refused() -> None:
    with pytest.raises(ValueError, match="no networks"):
        evaluation_work(preset(100).model_copy(update={"sources": preset(100).sources[:2]}), 100)


def test_a_line_and_a_power_are_found_again() -> None:
    line = fit_line([(objects, rows, 3.0 * objects + 0.5 * rows) for objects, rows in ((1, 10), (4, 8), (2, 64))])
    assert (line.per_object, line.per_row) == pytest.approx((3.0, 0.5))
    assert fit_power([(x, 2.0 * x**1.5) for x in (10.0, 100.0, 1000.0)])(400.0) == pytest.approx(16_000.0)


def test_the_shard_size_is_the_smallest_that_keeps_the_task_runs() -> None:
    least = shard_size_for(118_000)
    runs = [total_tasks(evaluation_work(preset(118_000, size), 118_000)) for size in (least - 1, least)]
    assert runs[1] <= TASKS_PER_FLOW_RUN < runs[0]
    part = largest_part(1_000)
    runs = [total_tasks(evaluation_work(preset(count, 1_000), count)) for count in (part, part + 1)]
    assert runs[0] <= TASKS_PER_FLOW_RUN < runs[1]


def test_a_limit_is_reached_where_its_value_passes_the_bound() -> None:
    assert reached_at(Limit("memory", lambda n: 3.0 * n, 10.0, "exact", "more")) == 4
    assert reached_at(Limit("nothing", lambda n: 0.0, 1.0, "exact", "more")) is None


def test_limits_move_with_the_memory() -> None:
    fitted = fit(KNOWN)
    of = {
        gb: {limit.name: reached_at(limit) for limit in limits(fitted, Assumptions(memory=gb * 1e9))} for gb in (8, 64)
    }
    tasks = "task runs of one flow run (evaluate/all)"
    assert of[8][tasks] == of[64][tasks]
    assert all(of[8][name] < of[64][name] for name in of[8] if name.startswith("memory"))


def test_the_parent_on_pools_has_the_task_runs_of_a_run_without_pools() -> None:
    works = evaluation_work(preset(5_000), 5_000)
    runs = tasks_by_flow_run(works, cells=12)
    assert runs.pop("evaluate/all") == total_tasks(works)
    assert max(runs.values()) < total_tasks(works)


def test_what_needs_a_gpu_has_no_time_until_a_rate_is_given() -> None:
    fitted = fit(KNOWN)
    without = predict(preset(5_000), 5_000, fitted, Assumptions())
    given = predict(preset(5_000), 5_000, fitted, Assumptions(gpu_rates={"sd768": 5.0}))
    assert without.gpu_seconds is None
    assert given.gpu_seconds == pytest.approx(1_000.0)
    assert [step.work.step for step in without.steps if step.cpu is None] == ["generate/diffusion"]


def test_workers_share_what_has_many_tasks_and_nothing_else() -> None:
    prediction = predict(preset(118_000), 118_000, fit(KNOWN), Assumptions())
    alone = sum(step.cpu or 0.0 for step in prediction.steps if step.work.tasks == 1) + prediction.orchestration
    shared = prediction.wall(1) - alone
    # With fewer workers than any shared step has tasks (quality has six) they halve and halve again.
    assert prediction.wall(2) == pytest.approx(alone + shared / 2)
    assert prediction.wall(4) == pytest.approx(alone + shared / 4)


def test_the_command_prints_three_sizes_and_no_dollars(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main([])
    printed = capsys.readouterr().out
    assert "5,000" in printed
    assert "118,000" in printed
    assert "100,000,000" in printed
    assert "dollars" not in printed
    assert "No rates were given" in printed


def test_the_command_prints_dollars_of_the_rates_given(capsys: pytest.CaptureFixture[str]) -> None:
    rates = [f"--gpu-pictures-per-second={part}={rate / 2}" for part, rate in PAPER_LIMITS.items()]
    cost.main(["--photographs", "118000", "--gpu-hour-price", "2.5", "--workers", "8", "--markdown", *rates])
    printed = capsys.readouterr().out
    assert "| GPU dollars at 2.5 an hour | " in printed
    assert "No rates were given" not in printed


@pytest.mark.parametrize("rate", ["sd768=25", "vgg19=1", "sd768=0", "sd768"])
def test_a_rate_beyond_the_arithmetic_or_of_no_part_is_refused(rate: str) -> None:
    with pytest.raises(SystemExit, match=r"sd768|vgg19"):
        cost.main(["--gpu-pictures-per-second", rate])


def test_other_points_are_read_from_their_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "points.json"
    other.write_text(json.dumps(KNOWN | {"pictures": "pictures of another machine"}), encoding="utf-8")
    cost.main(["--points", str(other), "--photographs", "5000"])
    assert "pictures of another machine" in capsys.readouterr().out
