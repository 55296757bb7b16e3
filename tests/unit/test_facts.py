"""Facts: found out once per run, or asked of a worker, and read back as what they were."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from storage.errors import NotFinished
from tasks import facts
from tasks.data.sources.folder import FolderSource
from tasks.facts import FACTS, Fact, Facts, fact, facts_known, library_version
from tasks.recipe import Output, StepRun, step
from tasks.spec.generators import DiffusionSpec


class Asked(BaseModel):
    folder: str
    hidden: bool = Field(default=False, exclude=True)


calls: list[Asked] = []


def counted(asked: Asked, more: int = 1) -> tuple[Asked, str | None]:
    calls.append(asked)
    return asked, None if asked.hidden else f"{asked.folder}+{more}"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Fact[..., Any]:
    monkeypatch.setattr(facts, "FACTS", {})
    calls.clear()
    return fact(pool="cpu")(counted)


def test_without_a_run_a_fact_is_its_function(counting: Fact[..., Any]) -> None:
    assert [counting(Asked(folder="a")), counting(Asked(folder="a"))] == [(Asked(folder="a"), "a+1")] * 2
    assert len(calls) == 2


def test_within_a_run_a_fact_is_found_out_once_for_each_question(counting: Fact[..., Any]) -> None:
    with facts_known(Facts()):
        found = [counting(Asked(folder="a")), counting(Asked(folder="a"), 1), counting(Asked(folder="a"), more=2)]
    assert found == [(Asked(folder="a"), "a+1"), (Asked(folder="a"), "a+1"), (Asked(folder="a"), "a+2")]
    assert len(calls) == 2


def test_a_field_that_no_recipe_holds_is_part_of_the_question_and_of_the_answer(counting: Fact[..., Any]) -> None:
    seen = Asked(folder="a")
    hidden = Asked(folder="a", hidden=True)
    assert counting.digest(seen) != counting.digest(hidden)
    with facts_known(Facts()):
        assert counting(hidden)[0] == hidden


def test_what_is_not_known_is_asked_of_a_worker_and_taken_from_its_answer(counting: Fact[..., Any]) -> None:
    asked: list[tuple[Fact[..., Any], tuple[Any, ...]]] = []
    known = Facts(ask=lambda one, arguments: asked.append((one, arguments)))
    with facts_known(known):
        with pytest.raises(NotFinished, match="counted"):
            counting(Asked(folder="a", hidden=True))
        assert asked == [(counting, (Asked(folder="a", hidden=True), 1))]
        assert not calls
        question = counting.question(Asked(folder="a", hidden=True))
        # As the worker does it, with JSON alone.
        answer = counting.answer_json(counting.function(*counting.arguments(question)))
        known.answers[counting.digest(Asked(folder="a", hidden=True))] = answer
        assert counting(Asked(folder="a", hidden=True)) == (Asked(folder="a", hidden=True), None)


def test_two_facts_of_one_name_are_refused(counting: Fact[..., Any]) -> None:
    with pytest.raises(ValueError, match="two facts are called counted"):
        fact(pool="gpu")(counted)


def test_what_a_run_knows_does_not_outlive_it(counting: Fact[..., Any]) -> None:
    for _ in range(2):
        with facts_known(Facts()):
            counting(Asked(folder="a"))
    assert len(calls) == 2


def test_every_fact_reads_its_own_question_back() -> None:
    import flows.evaluate  # noqa: F401

    samples: dict[str, Any] = {
        "str": "a",
        "float": 1.0,
        "FolderSource": FolderSource(name="f", path="${X:-}/y", label="fake", metadata="~/m.csv"),
        "DiffusionSpec": DiffusionSpec(model="${M:-tiny}", compile=True),
    }
    for one in FACTS.values():
        hints = [hint for name, hint in one.function.__annotations__.items() if name != "return"]
        if all(getattr(hint, "__name__", hint) in samples for hint in hints):
            arguments = tuple(samples[getattr(hint, "__name__", hint)] for hint in hints)
            assert one.arguments(one.question(*arguments)) == arguments, one.name


def install(folder: Path, version: str) -> str:
    """A distribution that consists of its name and version."""
    found = folder / version / f"made_up_library-{version}.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-library\nVersion: {version}\n")
    return str(found.parent)


def test_two_builds_of_one_library_give_equal_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @step("made", version=1, label=lambda **_: "x", libraries=("made-up-library",))
    def made(run: StepRun, *, size: int) -> Output:
        raise AssertionError

    recipes = []
    for version in ("2.13.0+cpu", "2.13.0+cu128", "2.13.1+cpu"):
        library_version.cache_clear()
        with monkeypatch.context() as patched:
            patched.syspath_prepend(install(tmp_path, version))
            recipes.append(made.recipe(size=1))
    library_version.cache_clear()
    assert recipes[0] == recipes[1]
    assert recipes[0]["libraries"] == {"made-up-library": "2.13.0"}
    assert recipes[2]["libraries"] == {"made-up-library": "2.13.1"}
