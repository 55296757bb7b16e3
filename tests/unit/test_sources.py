"""A source is one file: its kind is read, checked, planned, indexed and generated without being named elsewhere."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.made_up import planned
from flows.generate import generated
from flows.preflight import missing_photographs, missing_weights, wanted_facts
from flows.shard import image_shards
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import read_table
from tasks.data.sources.kinds import KINDS
from tasks.presets import load_experiment, parse_experiment
from tasks.recipe import Step
from tasks.spec.experiment import Experiment
from tests.unit.toy_generator import NoiseSource, generate_noise
from tests.unit.toy_source import StripesSource, index_stripes, stripes_content


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "stripes", StripesSource)
    monkeypatch.setitem(KINDS, "noise", NoiseSource)


def document(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "toys",
        "sources": [
            {"kind": "sample", "name": "photographs", "crops_per_photograph": 2, "limit": 12},
            {"kind": "stripes", "name": "stripes", "album": path, **changes},
            {"kind": "noise", "name": "noise", "count": 10},
        ],
    }


def stripes(album: Path) -> Path:
    """Seven pictures of stripes, and a file that is none."""
    album.mkdir()
    for width in range(2, 9):
        columns = np.arange(64) // width % 2 * 255
        Image.fromarray(np.broadcast_to(columns, (64, 64)).astype(np.uint8)).save(album / f"{width}.png")
    (album / "notes.txt").write_text("stripes")
    return album


def written(folder: Path, given: dict[str, Any]) -> str:
    path = folder / "toys.yaml"
    path.write_text(yaml.safe_dump(given))
    return str(path)


def test_a_toy_is_read_from_a_document_and_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_TOYS", str(tmp_path))
    experiment = load_experiment(written(tmp_path, document("${TELLTALE_TOYS}/album")), {"sources.noise.count": 11})
    assert experiment.sources[1:] == (
        StripesSource(name="stripes", album="${TELLTALE_TOYS}/album"),
        NoiseSource(name="noise", count=11),
    )
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    assert experiment.fake_names == ("stripes", "noise")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"albun": "x"}, "sources.stripes.albun: there is no such field, did you mean album"),
        ({"album": ""}, "sources.stripes.album: a path is empty"),
        ({"label": "real"}, "sources.stripes.label: Input should be 'fake'"),
        ({"kind": "dots"}, "sources.stripes: unknown kind of source 'dots', expected one of .*'stripes'"),
        ({"kind": ["stripes"]}, r"sources.stripes: unknown kind of source \['stripes'\]"),
    ],
)
def test_what_is_wrong_with_a_toy_is_said_at_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document("here", **changes))


def test_a_source_without_a_kind_or_that_is_none_is_refused() -> None:
    for source, message in (
        ({"name": "x"}, "sources.x: it needs a kind, one of"),
        ("x", "sources.0: expected a mapping with a kind, one of"),
    ):
        with pytest.raises(SpecError, match=message):
            parse_experiment({"name": "toys", "sources": [source]})


def test_what_is_wrong_deep_in_a_source_is_said_at_its_place() -> None:
    gan = {"kind": "gan", "name": "gan", "trained_on": "photographs", "count": 5, "gan": {"epohs": 3}}
    with pytest.raises(SpecError, match=r"sources\.gan\.gan\.epohs: there is no such field, did you mean epochs"):
        parse_experiment({"name": "toys", "sources": [gan]})


def test_preflight_asks_a_toy_what_is_missing_and_planning_what_it_holds(tmp_path: Path) -> None:
    album = tmp_path / "album"
    experiment = parse_experiment(document(str(album)))
    assert missing_photographs(experiment) == (f"stripes in {album}: put PNG files there, or name another folder",)
    assert not [line for line in missing_weights(experiment) if "stripes" in line]
    assert (stripes_content, (str(album),)) in wanted_facts(experiment)
    stripes(album)
    assert missing_photographs(experiment) == ()
    unset = parse_experiment(document("${TELLTALE_TEST_ALBUM}"))
    assert "TELLTALE_TEST_ALBUM" in missing_photographs(unset)[0]


def test_an_evaluation_with_toys_is_planned_to_its_report() -> None:
    experiment = parse_experiment(document("an album"))
    elements = [element for wave in planned(experiment, 12) for element in wave]
    counted = {step: sum(element.step is step for element in elements) for step in (index_stripes, generate_noise)}
    assert counted == {index_stripes: 1, generate_noise: 1}
    embedded = {element.arguments["source"] for element in elements if element.step.name == "embed"}
    assert embedded == {"photographs", "stripes", "noise"}
    assert {element.step.name for element in elements[-2:]} == {"explorer", "report"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The store of steps that run here, without Prefect."""
    kept = LocalStore(tmp_path / "store")

    def submit(step: Step, **arguments: Any) -> SimpleNamespace:
        ref, _ = step.compute(kept, **arguments)
        return SimpleNamespace(result=lambda: ref)

    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Step, "submit", submit)
    return kept


def test_a_toy_is_indexed_split_and_packed(tmp_path: Path, store: LocalStore) -> None:
    album = stripes(tmp_path / "album")
    images = image_shards(parse_experiment(document(str(album))))
    assert set(images.shards) == {"photographs", "stripes"}
    rows = [row for ref in images.shards["stripes"] for row in read_table(store, ref).to_pylist()]
    assert {row["image_id"]: row["image"]["bytes"] for row in rows} == {
        f"stripes:{path.name}": path.read_bytes() for path in album.glob("*.png")
    }
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {Image.open(io.BytesIO(row["image"]["bytes"])).size for row in rows} == {(64, 64)}


def test_a_deployment_writes_only_the_shards_of_its_kinds(tmp_path: Path, store: LocalStore) -> None:
    experiment = parse_experiment(document(str(stripes(tmp_path / "album"))))
    assert set(image_shards(experiment, made_by="shard/folder").shards) == {"stripes"}
    images = image_shards(experiment, made_by="shard/coco")
    assert set(images.shards) == {"photographs"}
    assert generated(experiment, images, made_by="generate/gan").shards == {}


def test_a_toy_generator_makes_its_pictures(tmp_path: Path, store: LocalStore) -> None:
    experiment = parse_experiment(document(str(stripes(tmp_path / "album"))))
    made = generated(experiment, image_shards(experiment))
    assert made.weights == {}
    [ref] = made.shards["noise"]
    table = read_table(store, ref)
    assert table.num_rows == 10
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
