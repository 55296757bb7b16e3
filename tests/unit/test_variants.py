"""Which networks an experiment trains, and which of them are scored where."""

from typing import Any

import pytest

from storage.errors import SpecError
from tasks.networks.variants import origin, rejection_scenarios, teachers, variants
from tasks.presets import parse_experiment
from tasks.spec.experiment import Experiment

TUNED = {"kind": "fine-tuned", "name": "dense"}
PRUNED = {"kind": "structure-pruned", "name": "pruned", "of": "dense", "seeds": 2}
DISTILLED = {"kind": "distilled", "name": "student", "of": "pruned", "teachers": ["dense", "svm"], "seeds": 3}
QUANTIZED = {"kind": "quantized", "name": "int8", "of": "student", "seeds": 4}


def folder(name: str, label: str, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "name": name, "path": "/x", "label": label, **more}


def experiment(*networks: dict[str, Any], rejection: dict[str, Any] | None = None) -> Experiment:
    return parse_experiment(
        {
            "name": "small",
            "sources": [
                folder("photographs", "real"),
                folder("gan", "fake"),
                folder("diffusion", "fake"),
                folder("dalle", "fake", evaluated=False),
            ],
            "mobile": {"networks": list(networks), "rejection": rejection or {}},
        }
    )


def test_parents_come_first_and_each_seed_starts_from_its_own() -> None:
    made = variants(experiment(TUNED, PRUNED, DISTILLED))
    names = [variant.fit.label for variant in made]
    assert names == [
        *("dense", "pruned", "pruned-1"),
        *("student", "student-alone", "student-1", "student-alone-1", "student-2", "student-alone-2"),
        *("dense-without-gan", "dense-without-diffusion"),
    ]
    by_name = dict(zip(names, made, strict=True))
    assert origin(by_name["dense"], made) is None
    starts = {name: start.fit.label for name in names if (start := origin(by_name[name], made)) is not None}
    # The pruned network has two seeds: the student's third starts from the first.
    assert starts == {
        "pruned": "dense",
        "pruned-1": "dense",
        "student": "pruned",
        "student-alone": "pruned",
        "student-1": "pruned-1",
        "student-alone-1": "pruned-1",
        "student-2": "pruned",
        "student-alone-2": "pruned",
    }


def test_only_aided_students_have_teachers_and_the_svm_is_no_network() -> None:
    made = variants(experiment(TUNED, PRUNED, DISTILLED))
    taught = {variant.fit.label: [one.fit.label for one in teachers(variant, made)] for variant in made}
    assert {name for name, by in taught.items() if by} == {"student", "student-1", "student-2"}
    assert taught["student-2"] == ["dense"]


def test_a_quantized_network_has_no_more_seeds_than_its_origin() -> None:
    made = variants(experiment(TUNED, PRUNED, DISTILLED, QUANTIZED))
    assert [one.fit.label for one in made if one.kind == "quantized"] == ["int8", "int8-1", "int8-2"]


def test_each_generator_is_left_out_once_and_other_seeds_are_no_whole_networks() -> None:
    made = variants(experiment(TUNED, DISTILLED | {"of": None, "width": 0.35}))
    assert [(one.absent, one.classes) for one in made if one.absent] == [
        ("gan", ("real", "diffusion")),
        ("diffusion", ("real", "gan")),
    ]
    assert [one.fit.label for one in made if one.fit.is_whole] == ["dense", "student", "student-alone"]


def test_rejection_is_tested_on_what_is_left_out_and_on_what_nobody_knows() -> None:
    assert rejection_scenarios(experiment(TUNED, rejection={"unknown": ["dalle"]})) == (
        ("leave-one-out", "gan"),
        ("leave-one-out", "diffusion"),
        ("unseen", "dalle"),
    )


@pytest.mark.parametrize(
    ("networks", "problem"),
    [
        ([PRUNED], "unknown network 'dense', expected one before it"),
        ([TUNED, TUNED], "two networks have the same name, 'dense'"),
        ([TUNED | {"name": "x-alone"}], "does not end in -alone"),
        ([TUNED, QUANTIZED | {"of": "dense"}, PRUNED | {"of": "int8"}], "'int8' is quantized"),
        ([TUNED, DISTILLED | {"width": 0.5}], "a student is either another network"),
        ([TUNED, {"kind": "magnitude-pruned", "name": "m", "of": "dense", "first_sparsity": 0.9}], "sparsity falls"),
    ],
)
def test_a_broken_chain_is_refused(networks: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        experiment(*networks)


def test_an_evaluated_source_cannot_be_unknown() -> None:
    with pytest.raises(SpecError, match=r"'gan' must be a .*evaluated: false"):
        experiment(TUNED, rejection={"unknown": ["gan"]})
