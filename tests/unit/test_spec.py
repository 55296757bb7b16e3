"""Experiments: broken ones are refused before any work, in sentences that say what was expected."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.errors import MissingInput, SpecError
from tasks.presets import load_experiment, parse_experiment
from tasks.spec import Cell, Folds


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "sources": [
            {"kind": "coco", "name": "coco", "directory": "somewhere"},
            {"kind": "folder", "name": "fakes", "path": "elsewhere", "label": "fake"},
            {"kind": "gan", "name": "gan", "trained_on": "coco", "count": 10},
        ],
    } | changes


def test_a_minimal_experiment_has_the_designs_grid() -> None:
    experiment = parse_experiment(document())
    assert len(experiment.cells) == 12
    assert [mix.name for mix in experiment.all_mixes] == ["fakes", "gan", "combined"]
    assert experiment.real_names == ("coco",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qualities": [None, 0]}, "qualities.*greater than or equal to 1"),
        ({"qualities": [None, 101]}, "qualities.*less than or equal to 100"),
        ({"qualities": [60, 40]}, "qualities must contain null"),
        ({"qualities": [None, 60, 60]}, "listed twice"),
        ({"resolution": [64]}, "resolution: there is no such field, did you mean resolutions"),
        ({"mixes": [{"name": "m", "real": ["coco"], "fakes": ["dalle"]}]}, "unknown fake source 'dalle'"),
        ({"mixes": [{"name": "m", "real": ["photos"], "fakes": ["gan"]}]}, "unknown real source 'photos'"),
        ({"seed_protocol": {"real": "coco", "gan": "gan", "stable": "sd"}}, "unknown fake source 'sd'"),
        ({"splits": {"kind": "fixed", "train": 0.8, "val": 0.2}}, "leave a share for test"),
        ({"splits": {"kind": "folds", "count": 2}}, "greater than or equal to 3"),
        ({"splits": {"kind": "folds", "count": 5}}, "evaluated: false"),
        ({"sources": [{"kind": "coco", "name": "coco", "directory": "d"}]}, "needs real and fake sources"),
        ({"sources": [{"kind": "video", "name": "v"}]}, "does not match any of the expected tags"),
        ({"name": "../up"}, "name: String should match pattern"),
        (
            {"extractor": {"kind": "vgg16", "precision": "int8"}},
            "extractor.*precision.*Input should be 'float32', 'float16' or 'bfloat16'",
        ),
    ],
)
def test_a_broken_experiment_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(**changes))


def test_an_unknown_generator_origin_is_refused() -> None:
    broken = document()
    broken["sources"][2]["trained_on"] = "nothing"
    with pytest.raises(SpecError, match="unknown source 'nothing'"):
        parse_experiment(broken)


def test_two_sources_of_one_name_are_refused() -> None:
    broken = document()
    broken["sources"].append(broken["sources"][0])
    with pytest.raises(SpecError, match="same name"):
        parse_experiment(broken)


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_overrides_reach_into_nested_fields_and_named_sources(tmp_path: Path) -> None:
    preset = write(tmp_path / "small.yaml", document())
    experiment = load_experiment(preset, {"sources.gan.count": 7, "extractor.side": 64, "resolutions": [64]}, seed=3)
    assert experiment.sources[2].count == 7  # type: ignore[union-attr]
    assert (experiment.extractor.side, experiment.resolutions, experiment.seed) == (64, (64,), 3)


def test_an_override_of_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    preset = write(tmp_path / "small.yaml", document())
    with pytest.raises(SpecError, match=r"expected one of \['coco', 'fakes', 'gan'\]"):
        load_experiment(preset, {"sources.dalle.count": 7})


def test_environment_variables_are_filled_in_and_missing_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = document()
    content["sources"][0]["directory"] = "${TELLTALE_TEST_A}"
    content["sources"][1]["path"] = "${TELLTALE_TEST_B:-default}"
    preset = write(tmp_path / "small.yaml", content)
    monkeypatch.delenv("TELLTALE_TEST_A", raising=False)
    with pytest.raises(MissingInput, match="TELLTALE_TEST_A"):
        load_experiment(preset)
    monkeypatch.setenv("TELLTALE_TEST_A", "photos")
    experiment = load_experiment(preset)
    assert (experiment.sources[0].directory, experiment.sources[1].path) == ("photos", "default")  # type: ignore[union-attr]


def test_an_optional_variable_that_is_not_set_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = document()
    content["sources"][1]["metadata"] = "${TELLTALE_TEST_C:-}"
    monkeypatch.delenv("TELLTALE_TEST_C", raising=False)
    experiment = load_experiment(write(tmp_path / "small.yaml", content))
    assert experiment.sources[1].metadata is None  # type: ignore[union-attr]


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match="sample"):
        load_experiment("nonsense")


def test_unreadable_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(SpecError, match="not readable as YAML"):
        load_experiment(str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize("name", ["64/q20", "native/none", "256/q60"])
def test_a_cells_name_is_read_back(name: str) -> None:
    assert Cell.parse(name).name == name


@pytest.mark.parametrize("name", ["64", "64/20", "small/none", "64/q", ""])
def test_what_is_no_cells_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="a cell is named like"):
        Cell.parse(name)


def test_folds_have_one_rotation_each() -> None:
    assert Folds(count=5).rotations == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"seed": 2**32}, "seed: .*less than or equal to 4294967295"),
        ({"seed": True}, "seed: expected no truth value, got true"),
        ({"seed": 1.5}, "seed: .*fractional part"),
        ({"seed": float("inf")}, "seed: .*finite number"),
        ({"seed": float("nan")}, "seed: .*finite number"),
        ({"shard_size": 10**30}, "shard_size: expected a number of at most 2147483647"),
        ({"shard_size": 0}, "shard_size: .*greater than or equal to 1"),
        ({"shard_size": "yes"}, "shard_size: .*'yes'"),
        ({"qualities": [None, True]}, "qualities: expected no truth value, got true"),
        ({"resolutions": [True]}, "resolutions: expected no truth value, got true"),
        ({"splits": {"kind": "fixed", "train": float("nan")}}, "splits.train: .*finite number"),
        ({"splits": {"kind": "fixed", "train": False}}, "splits: train: expected no truth value, got false"),
        ({"splits": {"kind": "fixed", "ranges": {"train": [True, 3]}}}, "ranges: expected no truth value"),
        ({"splits": {"kind": "fixed", "ranges": {"train": [0, 10**30]}}}, "ranges: expected a number of at most"),
        ({"svm": {"c_values": [float("inf")]}}, "svm.c_values.0: .*finite number"),
        ({"svm": {"c_values": [True]}}, "svm: c_values: expected no truth value"),
        ({"svm": {"calibrate": 2}}, "svm.calibrate: .*boolean"),
        ({"name": 10}, "name: .*quote it to make it a text"),
        ({"name": 1e300}, "name: .*quote it to make it a text"),
        ({"extractor": {"batch": 1e30}}, "extractor.batch: .*exceeded maximum size"),
        ({"splits": {"count": 5}}, "splits: it needs a kind"),
        ({"training_seed": 5}, "training_seed: there is no such field, did you mean training_seeds"),
    ],
)
def test_a_number_that_is_none_or_fits_nowhere_is_refused_with_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(**changes))


@pytest.mark.parametrize(("written", "read"), [("12", 12), (12.0, 12), ("0", 0), (2**32 - 1, 2**32 - 1)])
def test_a_number_may_come_as_text_from_a_variable(written: Any, read: int) -> None:
    assert parse_experiment(document(seed=written)).seed == read
