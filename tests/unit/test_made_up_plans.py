"""Plans over made-up inputs: no digest changes unnoticed, and names that are put together quickly are the same ones."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.made_up import digest_lines, needs, planned, preset
from storage.digest import canonical_json, digest_of
from storage.errors import NotFinished, SpecError
from storage.local import LocalStore
from storage.objects import LazyRef, Ref
from tasks.elements import Element, element_of, import_steps
from tasks.features.vgg16 import Vgg16Spec
from tasks.planning import Finished, Plan
from tasks.presets import PRESETS
from tasks.recipe import STEPS, Output, StepRun, planned_by, step
from tasks.spec.detectors import MagnitudePruned
from tasks.spec.generators import DiffusionSpec
from tasks.spec.splits import FixedSplits
from tasks.spec.views import Canonical, Cell, View
from tasks.variables import FilledIn

DIGESTS = Path(__file__).with_name("plan_digests.txt")
# Steps that no preset has, and why.
IN_NO_PRESET = {
    "weights/inception": "no preset has FID, which wants weights that must be named",
    "score/pictures": "no preset has a detector that reads pictures and is not fitted",
    "score/calibrated": "the same",
    "score/table": "the same",
    "files": "the same",
    "weights/torchvision": "the same",
    "tables": "asked by `telltale check`, of an experiment with matched histories",
    "deliver": "made by a flow of its own, `publish/network`",
    "publish/score": "the same",
    "publish/network": "the same",
    "weights/diffusion": "made by a flow of its own, for workers that lack the model",
}
SHA256 = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return digest_lines()


def test_no_object_of_a_preset_has_another_digest_than_before(lines: list[str]) -> None:
    before = DIGESTS.read_text(encoding="utf-8").splitlines()
    gone, new = set(before) - set(lines), set(lines) - set(before)
    changed = sorted({" ".join(line.split(" ")[:2]) for line in gone | new if not line.startswith("objects/")})
    assert not gone | new, (
        f"digests changed of {', '.join(changed)}: what people have computed of these is computed again. Where that is "
        "meant, the list is renewed by: python -m benchmarks.made_up > tests/unit/plan_digests.txt"
    )
    assert lines == before


def test_every_step_is_part_of_a_plan_of_which_the_digests_are_listed(lines: list[str]) -> None:
    import_steps()
    ours = {name for name, one in STEPS.items() if one.function.__module__.startswith("tasks.")}
    listed = {line.split(" ")[1] for line in lines if not line.startswith("objects/")}
    assert ours - listed == set(IN_NO_PRESET)


def test_the_plan_of_the_sample_has_the_objects_that_are_counted_by_step(lines: list[str]) -> None:
    of_sample = [line.split(" ") for line in lines if line.startswith("sample ")]
    counted = {step: int(count) for _, step, count, _ in of_sample}
    places = [line for line in lines if line.startswith("objects/")]
    assert len(places) == len(set(places)) == sum(counted.values())
    assert all(sum(place.startswith(f"objects/{step}/") for place in places) >= counted[step] for step in counted)


def elements() -> Iterator[Element]:
    return itertools.chain.from_iterable(planned(preset("sample"), 99))


def test_the_names_of_all_objects_of_the_sample_are_the_digests_of_their_recipes(tmp_path: Path) -> None:
    with planned_by(Plan(Finished(LocalStore(tmp_path)), needs)):
        for element in elements():
            arguments = element.step.bound(element.arguments)
            recipes = [element.step.recipe(**single) for single in element.step.singles(arguments)]
            assert [place.rpartition("/")[2] for place in element.places] == [digest_of(each) for each in recipes]


def test_every_element_of_the_sample_is_built_again_from_its_document(tmp_path: Path) -> None:
    with planned_by(Plan(Finished(LocalStore(tmp_path)), needs)):
        for wave in planned(preset("sample"), 99):
            for element in wave:
                document = element.document()
                assert element_of(document).document() == document
                assert canonical_json(document)


@step("test/of-anything", version=3, label=lambda *, item, **_: "any", each="item", unkeyed=("aside",))
def of_anything(run: StepRun, *, item: tuple[Any, ...], value: Any, other: Any = None, aside: Any = 0) -> Output:
    """Takes whatever a recipe can hold."""
    raise NotImplementedError


refs = st.builds(lambda digest: Ref(uri=f"objects/x/{digest}", digest=digest, rows=1, bytes=2), st.text(max_size=5))
specs = st.one_of(
    st.builds(View, path=st.just("fair"), resolution=st.sampled_from(["native", 64]), jpeg_quality=st.just(20)),
    st.builds(Cell, resolution=st.sampled_from(["native", 128])),
    st.builds(Vgg16Spec, precision=st.sampled_from(["float32", "bfloat16"]), compile=st.booleans()),
    st.builds(FixedSplits, groups=st.dictionaries(st.text(min_size=1, max_size=3), st.just("train"), max_size=2)),
    st.builds(Canonical, side=st.just(64), qualities=st.just(((90, 1),)), kernel=st.sampled_from(["exact", "scaled"])),
    st.builds(DiffusionSpec, model=st.text(min_size=1, max_size=4).map(FilledIn), guidance=st.sampled_from([0.0, 2.5])),
    st.just(MagnitudePruned(name="sparse", of="dense")),
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.text(max_size=6).map(FilledIn),
)
anything = st.recursive(
    st.one_of(plain, refs, specs),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=6,
)


@given(st.lists(anything, min_size=1, max_size=3).map(tuple), anything, anything)
def test_a_name_put_together_of_its_arguments_is_the_digest_of_the_recipe(
    items: tuple[Any, ...], value: Any, other: Any
) -> None:
    arguments = of_anything.bound({"item": items, "value": value, "other": other, "aside": object()})
    found = [place.rpartition("/")[2] for place in of_anything.places(arguments)]
    assert found == [digest_of(of_anything.recipe(**single)) for single in of_anything.singles(arguments)]


def test_equal_arguments_that_are_written_otherwise_have_names_of_their_own() -> None:
    values = (1, 1.0, True, 0.0, -0.0, "1")
    assert len({of_anything.uri(item="", value=value) for value in values}) == len(values)
    guided = [DiffusionSpec(model="tiny", guidance=zero) for zero in (0.0, -0.0)]
    assert len({of_anything.uri(item="", value=spec) for spec in guided}) == 2


@pytest.mark.parametrize("value", [float("nan"), (1, float("inf")), {1, 2}, {"a": object()}])
def test_what_no_recipe_can_say_has_no_name(value: Any) -> None:
    with pytest.raises(SpecError):
        of_anything.uri(item="", value=value)


def test_a_ref_that_is_only_planned_has_no_rows_and_all_else() -> None:
    known = Ref(uri=f"objects/x/{SHA256}", digest=SHA256, rows=3, bytes=4)
    finished: dict[str, Ref] = {}

    def asked(uri: str) -> Ref:
        if uri not in finished:
            raise NotFinished(uri)
        return finished[uri]

    ref, again = (LazyRef.of(known.uri, asked) for _ in range(2))
    assert (ref.uri, ref.digest, ref, hash(ref)) == (known.uri, known.digest, again, hash(again))
    assert of_anything.uri(item="", value=ref) == of_anything.uri(item="", value=known)
    for name in ("rows", "bytes"):
        with pytest.raises(NotFinished):
            getattr(ref, name)
    with pytest.raises(AttributeError):
        ref.columns  # type: ignore[attr-defined]  # noqa: B018
    finished[known.uri] = known
    assert (ref.rows, ref.bytes, ref.model_dump()) == (3, 4, known.model_dump())


def test_more_photographs_make_more_of_the_same() -> None:
    waves = [len(list(planned(preset("coco", {"mobile": None}), pictures))) for pictures in (1_000, 3_000)]
    assert waves[0] == waves[1]


def test_presets_are_planned_without_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_COCO", "/somewhere")
    assert PRESETS.is_dir()
    assert preset("coco") == preset("coco", {})
