"""What the script for a machine with a GPU concludes from what a plan left, and what it brings along."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_evidence import Evidence, LaneRecord, checks, devices_in
from benchmarks.gpu_wheels import CONSTRAINTS, constraints, missing, parts_of

PROJECT = Path(CONSTRAINTS).parents[1]
EMBED, GAN, TABLE = "objects/embed/one/aa", "objects/train-gan/one/bb", "objects/evaluate/one/cc"


def lane(pool: str, device: str, *made: str, found: tuple[str, ...] = ()) -> LaneRecord:
    notes = [[place, 1, 10, 0.5] for place in made] + [[place, 1, 10, 0.0] for place in found]
    return LaneRecord({"pool": pool, "device": device, "computed": len(made)}, notes)


def evidence(lanes: list[LaneRecord], gan_device: str = "cuda", **given: Any) -> Evidence:
    recipes: dict[str, dict[str, Any]] = {
        EMBED: {"arguments": {"device": "cuda"}},
        GAN: {"arguments": {"gan": {"epochs": 3}, "device": gan_device}},
        TABLE: {"arguments": {"rows": []}},
    }
    return Evidence(recipes, {EMBED: "gpu", GAN: "gpu", TABLE: "cpu"}, lanes, **given)


def failed(found: Evidence, device: str = "cuda") -> list[str]:
    return [check.name for check in checks(found, device) if not check.holds]


GOOD = [lane("gpu", "cuda", EMBED, GAN), lane("cpu", "cpu", TABLE, found=(EMBED,))]


def test_a_plan_as_it_should_be_passes_every_check() -> None:
    assert failed(evidence(GOOD)) == []


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (evidence(GOOD, gan_device="cpu"), ["the gpu pool's steps ran on cuda"]),
        (
            evidence([*GOOD, lane("gpu", "cuda", GAN)]),
            ["nothing was made twice"],
        ),
        (
            evidence([lane("gpu", "cuda", EMBED), lane("cpu", "cpu", TABLE, GAN)]),
            ["no lane made another pool's objects"],
        ),
        (
            evidence([lane("gpu", "cpu", EMBED, GAN), lane("cpu", "cpu", TABLE)]),
            ["lanes have their pool's device"],
        ),
        (evidence(GOOD, failures=["out of memory"]), ["nothing failed"]),
        (evidence(GOOD, claims=["claims/aa/000000.json"]), ["no claim is left"]),
        (
            Evidence({}, {}, []),
            [
                "the gpu pool's steps ran on cuda",
                "every element's object is finished",
                "lanes have their pool's device",
            ],
        ),
    ],
)
def test_what_is_wrong_fails_its_own_check(found: Evidence, names: list[str]) -> None:
    # Of an empty plan nothing was made, and that not twice.
    assert failed(found) == names


def test_a_device_is_found_however_deep_in_a_recipe() -> None:
    recipe = {"arguments": {"setting": {"device": "cuda"}, "of": [{"device": "cpu"}], "spec": {"device": 3}}}
    assert list(devices_in(recipe)) == ["cuda", "cpu"]


def test_wheels_are_put_into_parts_that_are_not_too_large() -> None:
    assert parts_of({"a": 5, "b": 3, "c": 2, "d": 4}, 7) == [["a", "c"], ["d", "b"]]
    with pytest.raises(ValueError, match="a has"):
        parts_of({"a": 8}, 7)


def test_what_is_brought_along_are_the_versions_of_the_project() -> None:
    brought, there = constraints(CONSTRAINTS.read_text(encoding="utf-8"))
    pinned = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in pinned.items()}
    assert {name: pinned[name] for name in brought} == brought
    # A CUDA build of torch, and what belongs to it, is never replaced.
    assert {"torch", "torchvision", "numpy"} <= set(there)
    assert not [name for name in brought if name.startswith("nvidia") or name == "triton"]


def test_what_an_environment_lacks_is_said_by_name() -> None:
    versions = {"one": "1.0", "two": "2.5", "three": "2.9.1"}

    def version_of(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    def importing(module: str) -> None:
        if module == "torchvision":
            raise ImportError("no such operator")

    text = "# four is new\none==1.0\ntwo==2.4\nthree>=2.10\nfour==4.0\nfive>=5\n"
    assert missing(text, version_of, importing) == [
        "two 2.5 is installed: 2.4 is needed",
        "four is not installed: 4.0 is needed",
        "three 2.9.1 is installed: 2.10 or later is needed",
        "five is not installed: at least 5 is needed",
        "torchvision cannot be imported: ImportError: no such operator",
    ]
