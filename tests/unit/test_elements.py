"""Elements as JSON: the very same call elsewhere, and nothing else, whoever wrote the document."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.here import computed_here
from storage.digest import canonical_json
from storage.errors import OtherVersion, StoreError
from storage.local import LocalStore
from storage.objects import LazyRef, Ref
from storage.plans import PlanFolder
from tasks.elements import Element, element_of, refs_in
from tests.unit.pool_lanes import add_up, make_source, scale

REF = Ref(uri="objects/test/source/000001/abc", digest="abc", rows=7, bytes=9)


def document(element: Element) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(canonical_json(element.document()))
    return found


def scaled(*factors: int) -> Element:
    arguments = scale.bound({"source": REF, "factor": factors, "device": "cpu"})
    return Element(scale, arguments, tuple(scale.places(arguments)))


def test_an_element_is_the_same_call_after_it_was_json() -> None:
    element = scaled(1, 2)
    again = element_of(document(element))
    assert again.step is scale
    assert again.arguments == element.arguments
    assert again.places == element.places


def test_only_the_objects_that_are_named_are_made() -> None:
    element = scaled(1, 2, 3)
    part = {**document(element), "places": [element.places[2]]}
    assert element_of(part).arguments["factor"] == (3,)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("arguments", "device"), "cuda"),
        (("arguments", "factor"), [1, 4]),
        (("arguments", "source", "digest"), "other"),
        (("places",), ["objects/test/scaled/x1/0123"]),
    ],
)
def test_an_altered_element_is_refused_as_its_places_are_others(path: tuple[str, ...], value: Any) -> None:
    altered = copy.deepcopy(document(scaled(1, 2)))
    inner = altered
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(OtherVersion, match="an altered plan"):
        element_of(altered)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "test/unknown"},
        {"step": "os.system"},
        {"arguments": {"number": "many"}},
        {"arguments": {}},
        {"arguments": {"number": 1, "more": 2}},
    ],
)
def test_what_this_version_does_not_know_is_refused(changes: dict[str, Any]) -> None:
    arguments = make_source.bound({"number": 3})
    known = document(Element(make_source, arguments, tuple(make_source.places(arguments))))
    with pytest.raises(OtherVersion):
        element_of({**known, **changes})


def test_a_plan_of_a_newer_format_is_refused_with_both_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("plans/newer/plan.json", b'{"format": 2, "title": "x"}')
    with pytest.raises(OtherVersion, match="format 2, this version knows 1"):
        PlanFolder(store, "newer").header()


def test_a_coordinator_knows_every_step_without_a_heavy_library() -> None:
    code = (
        "import sys; from tasks.elements import import_steps; from tasks.recipe import STEPS; import_steps(); "
        "assert 'train/mobilenet' in STEPS; "
        "print(*{'torch', 'diffusers', 'torchvision', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_refs_are_found_however_deep_and_unkeyed_ones_too() -> None:
    lazy = LazyRef.of("objects/test/source/000002/def", lambda place: REF)
    arguments = add_up.bound({"parts": (REF, lazy), "aside": REF})
    assert [ref.uri for value in arguments.values() for ref in refs_in(value)] == [REF.uri, lazy.uri, REF.uri]
    element = Element(add_up, arguments, tuple(add_up.places(arguments)))
    assert document(element)["arguments"]["parts"] == [REF.model_dump(), REF.model_dump()]


def test_what_waits_for_an_object_of_another_plan_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ask for them together"):
        computed_here(lambda: scale(source=REF, factor=(1,), device="cpu"), LocalStore(tmp_path))
