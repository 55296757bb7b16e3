"""Regenerating a source: what is missing after new captions, or everything for another seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.generate import generated
from flows.shard import Images
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, read_table
from storage.tables import IMAGE_SCHEMA
from tasks.data.sources.diffusion import DiffusionSource
from tasks.generators import shards
from tasks.presets import load_experiment
from tasks.spec.experiment import Experiment
from tasks.spec.generators import DiffusionSpec
from tasks.spec.views import Canonical


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def made(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> list[Ref]:
    """The shards that were computed, not found; the step runs at once, without Prefect."""
    computed: list[Ref] = []
    compute = shards.generate_diffusion.compute

    class Done:
        def __init__(self, **arguments: Any) -> None:
            self.ref: Ref
            self.ref, found = compute(store, **arguments)
            if not found:
                computed.append(self.ref)

        def result(self) -> Ref:
            return self.ref

    monkeypatch.setattr(shards.generate_diffusion, "submit", Done)
    return computed


def experiment(seed: int = 0) -> Experiment:
    """The sample with a text-to-image source that takes a moment."""
    whole = load_experiment("sample")
    tiny = DiffusionSpec(model="tiny", steps=1, side=64, batch=2)
    source = DiffusionSource(name="stable", prompted_by="photographs", diffusion=tiny)
    return whole.model_copy(update={"sources": (source,), "seed": seed})


def photographs(store: LocalStore, captions: list[str], name: str) -> Ref:
    rows = [
        {"image_id": f"{name}:{number}", "group_id": f"{name}:{number}", "source": "photographs", "caption": caption}
        for number, caption in enumerate(captions)
    ]
    parts = {ROWS: pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)}
    return commit(store, f"objects/shard/{name}", step="shard", digest=name, recipe={}, parts=parts)


@pytest.fixture
def regenerate(store: LocalStore, made: list[Ref]) -> Callable[..., tuple[int, tuple[Ref, ...]]]:
    """Runs the flow's stage, and says how many shards it computed, and which it returned."""

    def run(*images: Ref, seed: int = 0) -> tuple[int, tuple[Ref, ...]]:
        before = len(made)
        all_images = Images({"photographs": images}, {}, images[0], Canonical(side=64, qualities=((90, 1),)))
        found = generated(experiment(seed), all_images).shards["stable"]
        return len(made) - before, found

    return run


def test_a_second_run_makes_nothing_and_a_new_shard_of_captions_only_its_own(
    store: LocalStore, regenerate: Callable[..., tuple[int, tuple[Ref, ...]]]
) -> None:
    first, second = photographs(store, ["a cat", "a cup"], "a"), photographs(store, ["a rocket"], "b")
    count, before = regenerate(first)
    assert count == 1
    assert regenerate(first) == (0, before)
    count, after = regenerate(first, second)
    assert (count, after[0]) == (1, before[0])


def test_another_seed_makes_every_picture_anew_and_once(
    store: LocalStore, regenerate: Callable[..., tuple[int, tuple[Ref, ...]]]
) -> None:
    images = (photographs(store, ["a cat"], "a"), photographs(store, ["a rocket"], "b"))
    _, before = regenerate(*images)
    count, anew = regenerate(*images, seed=1)
    assert count == 2
    assert regenerate(*images, seed=1) == (0, anew)
    for one, other in zip(before, anew, strict=True):
        assert not set(read_table(store, one)["seed"].to_pylist()) & set(read_table(store, other)["seed"].to_pylist())
