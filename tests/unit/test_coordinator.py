"""A plan that lanes make: every worker works, nothing is made twice, and what fails says so."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.coordinator import Coordinator
from storage.errors import MissingInput, PlanFailed, SpecError
from storage.local import LocalStore
from storage.objects import Ref, finished_objects, read_part
from storage.plans import PlanFolder
from tasks.lanes import Offer
from tasks.recipe import Output, Pool, StepRun, chosen_device, step
from tests.unit.pool_lanes import (
    Threads,
    add_up,
    count_of_things,
    make_source,
    measure_time,
    scale,
    sleep_a_while,
)

GPU = Offer("with-gpu", "cuda", {}, "1")
CPU = Offer("without", "cpu", {}, "1")


def workers(pool: Pool, count: int, device: str = "cpu") -> list[Offer]:
    return [Offer(f"{pool}-{number}", device, {}, "1") for number in range(count)]


def evaluation(sources: int = 6) -> dict[str, Any]:
    """A little evaluation: sources, several objects of each on the gpu pool, one sum, and a measurement."""
    made = [make_source.submit(number=1 + number) for number in range(count_of_things(sources - 3))]
    refs = [future.result() for future in made]
    rows = [ref.rows for ref in refs]
    scaled = [scale.submit(source=ref, factor=(1, 2, 3), device=chosen_device()) for ref in refs]
    parts = tuple(ref for future in scaled for ref in future.result())
    timed = measure_time(parts=parts)
    return {"rows": rows, "sum": add_up(parts=parts, aside=timed), "timed": timed, "parts": parts}


def finished(
    folder: PlanFolder,
    threads: Threads,
    compute: Callable[[], Any] = evaluation,
    pools: tuple[Pool, ...] = ("cpu", "gpu"),
) -> Any:
    try:
        result = Coordinator(folder, compute, pools, threads, tend_s=0.2).run()
    except BaseException:
        folder.end("failed")
        raise
    folder.end("completed")
    return result


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(store: LocalStore) -> PlanFolder:
    made = PlanFolder(store, "plan")
    made.begin({"title": "test"})
    return made


def test_every_worker_works_and_nothing_is_made_twice(folder: PlanFolder) -> None:
    threads = Threads(folder, {"cpu": workers("cpu", 2), "gpu": workers("gpu", 2)})

    def many() -> Any:
        slow = [sleep_a_while.submit(number=number, seconds=0.1) for number in range(12)]
        return [future.result() for future in slow], evaluation(12)

    _, result = finished(folder, threads, many)
    threads.join()
    assert result["rows"] == list(range(1, 13))
    assert set(threads.made_by.values()) == {"cpu-0", "cpu-1", "gpu-0", "gpu-1"}
    assert max(Counter(threads.computed).values()) == 1
    assert sorted(threads.computed) == finished_objects(folder.store)


def test_the_device_and_the_digests_are_those_of_the_workers_not_of_the_coordinator(folder: PlanFolder) -> None:
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": [GPU]})
    result = finished(folder, threads)
    threads.join()
    assert {read_part(folder.store, ref, "data.txt").split()[2] for ref in result["parts"]} == {b"cuda"}
    assert max(Counter(threads.computed).values()) == 1


def test_a_worker_without_the_plans_device_refuses_and_another_one_works(folder: PlanFolder) -> None:
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": [CPU, GPU]})
    finished(folder, threads)
    threads.join()
    on_gpu = {worker for place, worker in threads.made_by.items() if "/test/scaled/" in place}
    assert on_gpu == {"with-gpu"}
    (refused,) = [lane for lane in threads.lanes if (folder.status(lane.name) or {})["state"] == "refused"]
    assert "it has no usable GPU" in (folder.status(refused.name) or {})["reason"]


def test_what_no_worker_can_offer_fails_and_says_why(folder: PlanFolder) -> None:
    folder.decide("gpu", {"device": "cuda", "versions": {}, "telltale": "1"})
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": [CPU]})
    with pytest.raises(PlanFailed, match="no usable GPU"):
        Coordinator(folder, evaluation, ("cpu", "gpu"), threads, tend_s=0.2).run()
    folder.end("failed")
    threads.join()


def test_workers_of_another_version_refuse(folder: PlanFolder) -> None:
    folder.decide("cpu", {"device": "cpu", "versions": {"torch": "2.13.0"}, "telltale": "1"})
    threads = Threads(folder, {"cpu": [Offer("old", "cpu", {"torch": "2.12.0"}, "1")], "gpu": [GPU]})
    with pytest.raises(PlanFailed, match=r"torch 2\.12\.0, the plan needs 2\.13\.0"):
        Coordinator(folder, evaluation, ("cpu", "gpu"), threads, tend_s=0.2).run()
    folder.end("failed")
    threads.join()


def test_a_pool_without_workers_is_said_at_once_and_given_up_after_an_hour(
    folder: PlanFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flows.coordinator.NOBODY_S", 0.5)
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": []})
    with pytest.raises(PlanFailed, match="nobody is on gpu"):
        finished(folder, threads)
    threads.join()
    assert caplog.text.count("nobody is on gpu") == 1


def test_what_is_finished_is_not_made_again(folder: PlanFolder, store: LocalStore) -> None:
    first = finished(folder, Threads(folder, {"cpu": workers("cpu", 1), "gpu": [GPU]}))
    again = PlanFolder(store, "again")
    again.begin({"title": "again"})
    threads = Threads(again, {"cpu": workers("cpu", 1), "gpu": [GPU]})
    second = finished(again, threads)
    threads.join()
    assert threads.computed == []
    assert second["sum"].uri == first["sum"].uri
    assert second["sum"].model_dump() == first["sum"].model_dump()


def test_a_segment_is_closed_only_when_all_of_it_has_been_said_in_case_the_lane_dies(
    folder: PlanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = PlanFolder.close_segment
    unsaid: set[str] = set()

    def closed(plan: PlanFolder, pool: str, number: int) -> None:
        said = {note[0] for lane, _ in plan.statuses() for note in noted(plan, lane)}
        (segment,) = [each for each in plan.segments(pool)[0] if each.number == number]
        places = {place for element in plan.segment(pool, segment) for place in element["places"]}
        unsaid.update(place for place in places - said if not place.startswith("facts/"))
        close(plan, pool, number)

    monkeypatch.setattr(PlanFolder, "close_segment", closed)
    threads = Threads(folder, {"cpu": workers("cpu", 2), "gpu": workers("gpu", 2)})
    finished(folder, threads)
    threads.join()
    assert unsaid == set()


def noted(plan: PlanFolder, lane: str) -> list[Any]:
    """Everything that a lane has said that it finished."""
    status = plan.status(lane)
    assert status is not None
    notes: list[Any] = status["notes"]
    return notes + [note for number in range(status["sealed"]) for note in plan.notes(lane, number)]


def test_two_plans_at_once_make_what_they_share_once(store: LocalStore) -> None:
    folders = [PlanFolder(store, name) for name in ("one", "two")]
    several = []
    for folder in folders:
        folder.begin({"title": "test"})
        several.append(Threads(folder, {"cpu": workers("cpu", 2), "gpu": [GPU]}))
    coordinators = [
        threading.Thread(target=finished, args=(folder, threads), daemon=True)
        for folder, threads in zip(folders, several, strict=True)
    ]
    for each in coordinators:
        each.start()
    for each in coordinators:
        each.join(120)
        assert not each.is_alive()
    computed = [place for threads in several for place in threads.computed]
    assert sorted(computed) == finished_objects(store)


@step("test/failing", version=1, label=lambda *, kind, **_: kind)
def fail(run: StepRun, *, kind: str) -> Output:
    """Fails in a certain way."""
    raise {"spec": SpecError, "value": ValueError, "missing": MissingInput}[kind](f"a {kind} is wrong")


@pytest.mark.parametrize(
    ("kind", "attempts", "error"), [("spec", 1, PlanFailed), ("value", 4, PlanFailed), ("missing", 1, MissingInput)]
)
def test_what_fails_for_good_ends_the_plan_and_says_what_and_where(
    folder: PlanFolder, kind: str, attempts: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.lanes.PAUSE_AFTER_FAILURE_S", 0.1)
    threads = Threads(folder, {"cpu": workers("cpu", 2), "gpu": []})
    with pytest.raises(error, match=f"a {kind} is wrong") as caught:
        finished(folder, threads, lambda: fail(kind=kind), ("cpu",))
    assert "cpu-" in str(caught.value)
    threads.join()
    (tried,) = folder.failures().values()
    assert len(tried) >= attempts


def test_a_segment_that_cannot_be_read_ends_the_plan_and_is_named(
    folder: PlanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = PlanFolder.add_segment

    def added(plan: PlanFolder, pool: str, segment: Any, elements: Any) -> None:
        add(plan, pool, segment, elements)
        path = Path(plan.store.path(f"{plan.place}/segments/{pool}/{segment.number:06d}-{segment.lane:04d}.json"))  # type: ignore[attr-defined]
        path.write_bytes(path.read_bytes()[:40])

    monkeypatch.setattr(PlanFolder, "add_segment", added)
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": [GPU]})
    with pytest.raises(PlanFailed, match=r"segments/cpu/000000-0000\.json is damaged"):
        finished(folder, threads)
    threads.join()


def test_a_status_that_cannot_be_read_is_that_of_a_lane_that_says_nothing(folder: PlanFolder) -> None:
    folder.store.write(folder.status_key("odd"), b"{")
    threads = Threads(folder, {"cpu": workers("cpu", 1), "gpu": [GPU]})
    finished(folder, threads)
    threads.join()
    assert max(Counter(threads.computed).values()) == 1


def test_a_damaged_object_is_made_again_and_the_plan_goes_on(
    folder: PlanFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.lanes.PAUSE_AFTER_FAILURE_S", 0.1)
    store = folder.store
    source = make_source.compute(store, number=5)[0]
    manifest_part = next(key for key in store.list(source.uri) if "part-0" in key)
    store.write(manifest_part, b"altered")

    def compute() -> Ref:
        found: Ref = read_it(source=make_source(number=5))
        return found

    threads = Threads(folder, {"cpu": workers("cpu", 2), "gpu": []})
    result = finished(folder, threads, compute, ("cpu",))
    threads.join()
    assert read_part(store, result, "data.txt") == b"5"
    assert Counter(threads.computed)[source.uri] == 1


@step("test/read", version=1, label=lambda **_: "it")
def read_it(run: StepRun, *, source: Ref) -> Output:
    """Reads what it is made of."""
    from storage.objects import read_table

    return Output({"data.txt": str(read_table(run.store, source).num_rows).encode()})


def test_a_restarted_coordinator_goes_on_with_its_plan_and_its_lanes(folder: PlanFolder) -> None:
    threads = Threads(folder, {"cpu": workers("cpu", 2), "gpu": [GPU]})

    class Killed(BaseException):
        pass

    def killed(coordinator: Coordinator[Any]) -> None:
        if len(threads.computed) >= 5:
            raise Killed

    watching = Coordinator(folder, evaluation, ("cpu", "gpu"), threads, watch=killed, tend_s=0.0)
    with pytest.raises(Killed):
        watching.run()
    result = finished(folder, threads)
    threads.join()
    assert result["rows"] == list(range(1, 7))
    assert max(Counter(threads.computed).values()) == 1
    assert sorted(threads.computed) == finished_objects(folder.store)
