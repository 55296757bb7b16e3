"""Steps: one recipe, one object; what is finished is found, what is missing is made."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from storage.errors import DamagedObject, MissingInput, SpecError, StoreError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, read_manifest, read_table
from tasks.recipe import Output, Pool, Step, StepRun, _may_pass, chosen_device, planned_by, step
from tasks.spec.views import View

CALLS: list[object] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def doubled(run: StepRun, *, value: int, folder: str = "", more: int = 0) -> Output:
    CALLS.append(value)
    return Output({ROWS: pa.table({"x": [2 * value + more]})})


def each_square(run: StepRun, *, values: tuple[int, ...], base: Ref | None = None) -> dict[int, Output]:
    CALLS.append(values)
    return {value: Output({ROWS: pa.table({"x": [value**2]})}) for value in values}


double = step("double", version=1, label=lambda value, **_: str(value), unkeyed=("folder",))(doubled)
square = step("square", version=1, label=lambda values, **_: str(values), each="values")(each_square)


def test_a_step_runs_once(store: LocalStore) -> None:
    first, cached = double.compute(store, value=4)
    assert not cached
    second, cached = double.compute(store, value=4)
    assert cached
    assert first == second
    assert CALLS == [4]
    assert read_table(store, first)["x"].to_pylist() == [8]


def test_naming_a_default_does_not_change_the_recipe(store: LocalStore) -> None:
    double.compute(store, value=4)
    assert double.compute(store, value=4, more=0)[1]
    assert not double.compute(store, value=4, more=1)[1]


def read_text(run: StepRun, *, value: int, path: str | None, name: str) -> Output:
    CALLS.append((path, name))
    return Output({ROWS: pa.table({"x": [value]})})


located_double = step(
    "read", version=1, label=lambda value, **_: str(value), unkeyed=("path", "name"), paths=("path",)
)(read_text)


@pytest.mark.parametrize(
    ("written", "path"), [("${HERE}/a", "/data/a"), ("~/a", "/home/me/a"), ("${NOWHERE:-}", None), (None, None)]
)
def test_a_path_is_located_where_a_step_runs_and_is_part_of_no_recipe(
    written: str | None, path: str | None, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("HERE", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    ref, _ = located_double.compute(store, value=1, path=written, name="${HERE}")
    assert [(path, "${HERE}")] == CALLS
    assert located_double.compute(store, value=1, path="elsewhere", name="") == (ref, True)
    assert read_manifest(store, ref.uri).recipe["arguments"] == {"value": 1}


def test_a_variable_that_is_not_set_where_a_step_runs_is_named(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(MissingInput, match="environment variable NOWHERE, which the experiment needs: export it"):
        located_double.compute(store, value=1, path="${NOWHERE}/a", name="")


def test_an_unkeyed_argument_does_not_change_the_recipe(store: LocalStore) -> None:
    double.compute(store, value=4, folder="here")
    assert double.compute(store, value=4, folder="there")[1]


def test_another_version_is_another_object(store: LocalStore) -> None:
    newer = step("double", version=2, label=lambda value, **_: str(value), unkeyed=("folder",))(doubled)
    double.compute(store, value=4)
    assert not newer.compute(store, value=4)[1]


def test_a_step_with_many_objects_makes_only_the_missing_ones(store: LocalStore) -> None:
    square.compute(store, values=(1, 2))
    refs, cached = square.compute(store, values=(1, 2, 3))
    assert not cached
    assert CALLS == [(1, 2), (3,)]
    assert [read_table(store, ref)["x"].to_pylist() for ref in refs] == [[1], [4], [9]]


def test_what_is_made_one_by_one_counts_for_its_own_object(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tasks.recipe.time.monotonic", lambda: clock[0])

    class Lazily(Mapping[int, Output]):
        def __getitem__(self, value: int) -> Output:
            clock[0] += value
            return Output({})

        def __iter__(self) -> Iterator[int]:
            return iter((2, 3))

        def __len__(self) -> int:
            return 2

    def work(run: StepRun, *, values: tuple[int, ...]) -> Mapping[int, Output]:
        clock[0] += 10
        return Lazily()

    refs, _ = step("work", version=1, label=lambda values, **_: str(values), each="values")(work).compute(
        store, values=(2, 3)
    )
    assert [read_manifest(store, ref.uri).seconds for ref in refs] == [5 + 2, 5 + 3]


def test_the_order_and_company_of_elements_do_not_change_their_digests(store: LocalStore) -> None:
    one = square.compute(store, values=(1, 2))[0]
    two = square.compute(store, values=(3, 2, 1))[0]
    assert one == (two[2], two[1])


def test_an_input_changes_the_digest_by_its_recipe_not_by_its_place(store: LocalStore) -> None:
    ref = double.compute(store, value=1)[0]
    moved = ref.model_copy(update={"uri": "elsewhere"})
    other = double.compute(store, value=2)[0]
    assert square.uri(values=1, base=ref) == square.uri(values=1, base=moved)
    assert square.uri(values=1, base=ref) != square.uri(values=1, base=other)


def test_a_deleted_part_makes_exactly_its_step_run_again(store: LocalStore) -> None:
    double.compute(store, value=1)
    ref = double.compute(store, value=2)[0]
    for key in store.list(ref.uri):
        if key.endswith(".parquet"):
            store.delete(key)
    CALLS.clear()
    assert double.compute(store, value=1)[1]
    assert not double.compute(store, value=2)[1]
    assert CALLS == [2]


class Noting:
    """A planner that takes note of calls and knows of no object."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []

    def call(self, step: Step, arguments: dict[str, Any]) -> str:
        self.called.append((step.name, arguments))
        return "ref"

    def find(self, step: Step, place: str) -> Ref | None:
        return None

    def library_version(self, library: str, pool: Pool) -> str | None:
        return f"that of {pool}"

    def device(self) -> str:
        return "cuda"


def test_while_it_is_planned_a_step_computes_nothing_and_asks_its_own_machine_nothing(store: LocalStore) -> None:
    planner = Noting()
    here = double.uri(value=5)
    with planned_by(planner):
        assert double(value=5) == "ref"
        assert double.submit(value=6).result() == "ref"
        assert double.lookup(store, value=5) is None
        assert chosen_device() == "cuda"
        assert set(double.recipe(value=5)["libraries"].values()) <= {"that of cpu"}
    assert [arguments["value"] for _, arguments in planner.called] == [5, 6]
    assert store.list("objects") == []
    assert double.uri(value=5) == here


def test_a_spec_is_part_of_the_recipe(store: LocalStore) -> None:
    taking_view = Step(
        lambda run, view: Output({}), "view", 1, label=lambda **_: "v", each=None, unkeyed=(), libraries=("numpy",)
    )
    fair = taking_view.recipe(view=View(path="fair", resolution=64))
    assert fair["arguments"]["view"] == {"path": "fair", "resolution": 64, "jpeg_quality": None}
    assert set(fair["libraries"]) == {"numpy"}


def test_what_has_no_canonical_form_is_refused(store: LocalStore) -> None:
    with pytest.raises(SpecError, match="cannot be part of a recipe"):
        double.recipe(value=object())


def test_unknown_and_missing_arguments_are_refused(store: LocalStore) -> None:
    with pytest.raises(TypeError, match="unexpected"):
        double.compute(store, value=1, other=2)
    with pytest.raises(TypeError, match="missing"):
        double.compute(store)


def test_a_failed_step_leaves_no_object(store: LocalStore) -> None:
    def failing(run: StepRun, *, value: int) -> Output:
        raise OSError("disk on fire")

    broken = step("broken", version=1, label=lambda value, **_: str(value))(failing)
    with pytest.raises(OSError, match="disk on fire"):
        broken.compute(store, value=1)
    assert broken.lookup(store, value=1) is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("slow"), True),
        (OSError("disk"), True),
        (StoreError("throttled"), True),
        (SpecError("broken"), False),
        (MissingInput("COCO"), False),
        (DamagedObject("altered"), False),
        (ValueError("a program's mistake"), False),
    ],
)
def test_only_what_can_pass_is_tried_again(error: Exception, again: bool) -> None:
    state = SimpleNamespace(result=lambda: (_ for _ in ()).throw(error))
    assert _may_pass(None, None, state) is again
