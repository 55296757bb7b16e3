"""Whatever number a perturbation has, its name says all of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.errors import SpecError
from tasks.data.perturbations.base import KINDS, PerturbationBase
from tasks.data.perturbations.kinds import perturbation_named
from tasks.data.perturbations.one_number import OneNumber

SPANS = {
    "webp": (1, 100), "avif": (1, 100), "limit": (16, 16384), "blur": (0.3, 50), "noise": (0.3, 100),
    "crop": (0.05, 0.99), "resize": (0.05, 0.99), "scale": (0.05, 0.99),
}  # fmt: skip


def numbers(kind: str) -> st.SearchStrategy[float]:
    least, most = SPANS[kind]
    if isinstance(least, int):
        return st.integers(least, int(most))
    return st.integers(round(least * 100), round(most * 100)).map(lambda hundredths: hundredths / 100)


def of_number(kind: str, number: float) -> PerturbationBase:
    (field,) = (field for field in KINDS[kind].model_fields if field != "kind")
    return KINDS[kind].model_validate({"kind": kind, field: number})


ONE = st.sampled_from(sorted(SPANS)).flatmap(lambda kind: st.tuples(st.just(kind), numbers(kind)))
JPEGS = st.lists(st.integers(1, 100), min_size=1, max_size=2)


def test_all_kinds_of_one_number_are_tried() -> None:
    assert {name for name, kind in KINDS.items() if issubclass(kind, OneNumber)} == set(SPANS)


@given(ONE)
def test_a_name_is_read_back(drawn: tuple[str, float]) -> None:
    found = of_number(*drawn)
    assert perturbation_named(found.name) == found
    assert perturbation_named(f"{found.name}{'' if '.' in found.name else '.0'}0") == found


@given(ONE, ONE)
def test_two_have_one_name_where_they_are_equal_and_nowhere_else(
    one: tuple[str, float], other: tuple[str, float]
) -> None:
    assert (of_number(*one).name == of_number(*other).name) == (of_number(*one) == of_number(*other))


@given(JPEGS)
def test_one_jpeg_or_two_are_read_back(qualities: list[int]) -> None:
    name = "-".join(f"q{quality}" for quality in qualities)
    found = perturbation_named(name)
    assert found is not None
    assert found.name == name
    assert found.model_dump()["kind"] == ("jpeg", "jpegs")[len(qualities) - 1]


@given(st.text("qwebplurcosina-.0123456789", max_size=14))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        found = perturbation_named(text)
    except SpecError:
        return
    assert found is None or perturbation_named(found.name) == found


@given(st.sampled_from(sorted(SPANS)), st.floats())
def test_any_number_is_taken_or_refused(kind: str, number: float) -> None:
    try:
        found = of_number(kind, number)
    except ValidationError:
        return
    assert perturbation_named(found.name) == found


@given(ONE, st.integers(8, 40), st.integers(8, 40))
def test_a_picture_of_any_size_becomes_what_is_said_or_is_refused(
    drawn: tuple[str, float], height: int, width: int
) -> None:
    kind, _ = drawn
    if kind == "avif":  # slow
        return
    pixels = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8)
    perturbation = of_number(*drawn)
    size = perturbation.size(height, width)
    if kind == "crop" and min(size) < 8:
        return
    found = perturbation.apply(pixels).pixels
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8
