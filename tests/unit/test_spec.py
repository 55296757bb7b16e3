"""Experiments: broken ones are refused before any work, in sentences that say what was expected."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.errors import MissingInput, SpecError
from tasks.artifacts import artifact_key
from tasks.data.sources.coco import CocoSource
from tasks.data.sources.folder import FolderSource
from tasks.data.sources.gan import GanSource
from tasks.presets import load_experiment, parse_experiment
from tasks.spec.base import on_this_machine
from tasks.spec.splits import Folds
from tasks.spec.views import Cell
from tasks.variables import FilledIn


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
        ({"sources": [{"kind": "video", "name": "v"}]}, "sources.v: unknown kind of source 'video', expected one of"),
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
    gan = experiment.sources[2]
    assert isinstance(gan, GanSource)
    assert gan.count == 7
    assert (experiment.extractor.side, experiment.resolutions, experiment.seed) == (64, (64,), 3)


def test_an_override_of_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    preset = write(tmp_path / "small.yaml", document())
    with pytest.raises(SpecError, match=r"expected one of \['coco', 'fakes', 'gan'\]"):
        load_experiment(preset, {"sources.dalle.count": 7})


def test_paths_stay_as_they_are_written_until_a_disk_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = document()
    content["sources"][0]["directory"] = "${TELLTALE_TEST_A}"
    content["sources"][1]["path"] = "${TELLTALE_TEST_B:-default}"
    monkeypatch.delenv("TELLTALE_TEST_A", raising=False)
    experiment = load_experiment(write(tmp_path / "small.yaml", content))
    photographs, fakes = experiment.sources[:2]
    assert isinstance(photographs, CocoSource)
    assert isinstance(fakes, FolderSource)
    assert (photographs.directory, fakes.path) == ("${TELLTALE_TEST_A}", "${TELLTALE_TEST_B:-default}")
    with pytest.raises(MissingInput, match="environment variable TELLTALE_TEST_A, which the experiment needs"):
        on_this_machine(photographs)
    monkeypatch.setenv("TELLTALE_TEST_A", "photos")
    assert (on_this_machine(photographs).directory, on_this_machine(fakes).path) == ("photos", "default")


def test_a_path_of_which_a_variable_leaves_nothing_is_refused_where_one_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TELLTALE_TEST_B", raising=False)
    with pytest.raises(SpecError, match=r"nothing is left of '\$\{TELLTALE_TEST_B:-\}', expected a path"):
        on_this_machine(FolderSource(name="f", path="${TELLTALE_TEST_B:-}", label="fake"))


def test_an_optional_variable_that_is_not_set_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = document()
    content["sources"][1]["metadata"] = "${TELLTALE_TEST_C:-}"
    monkeypatch.delenv("TELLTALE_TEST_C", raising=False)
    experiment = load_experiment(write(tmp_path / "small.yaml", content))
    fakes = experiment.sources[1]
    assert isinstance(fakes, FolderSource)
    assert on_this_machine(fakes).metadata is None


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


@pytest.mark.parametrize(
    "name", ["64", "64/20", "small/none", "64/q", "", "064/none", "64/q020", "64/q0", "64/q101", "\u0666\u0664/none"]
)
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


@pytest.mark.parametrize(("written", "read"), [(12, 12), (12.0, 12), (FilledIn("12"), 12), (FilledIn(" 0 "), 0)])
def test_a_number_may_come_as_text_from_a_variable(written: Any, read: int) -> None:
    assert parse_experiment(document(seed=written)).seed == read


# Each would be read as a number by pydantic or by Python, if not by both.
TEXTS = ["12", "010", "1_0", " 10", "1e3", "+5", "1.0", "0x10", "\u0661\u0660", "NaN", "Infinity", "null", "true", ""]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "field",
    [
        {"seed": 0}, {"resolutions": [0]}, {"qualities": [None, 0]}, {"augmented_qualities": [0]},
        {"svm": {"c_values": [0]}}, {"svm": {"calibrate": 0}}, {"allow_overlap": 0},
        {"splits": {"kind": "folds", "count": 0}},
        {"splits": {"kind": "fixed", "ranges": {"train": [0, 0]}}}, {"extractor": {"side": 0}},
        {"mobile": {"networks": [{"kind": "fine-tuned", "name": "n", "unlocked": 0}]}},
        {"mobile": {"networks": [{"kind": "fine-tuned", "name": "n", "training": {"balanced": 0}}]}},
        {"sources": [{"kind": "gan", "name": "g", "trained_on": "c", "count": 1, "gan": {"side": 0}}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_text_stands_for_no_number_and_no_truth_value(field: dict[str, Any], text: str) -> None:
    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item) for item in value]
        return text if value == 0 else value

    with pytest.raises(SpecError, match=r"expected (a number|true or false).*, got the text"):
        parse_experiment(document(**put(field)))


@pytest.mark.parametrize("text", ["yes", "off", "1"])
def test_a_truth_value_is_true_or_false_alone(text: str) -> None:
    with pytest.raises(SpecError, match="calibrate: expected true or false, got the text"):
        parse_experiment(document(svm={"calibrate": text}))
    with pytest.raises(SpecError, match=r"svm\.calibrate: .*valid boolean"):
        parse_experiment(document(svm={"calibrate": 1}))


def test_a_text_that_a_field_takes_beside_numbers_stays() -> None:
    assert parse_experiment(document(resolutions=["native", 64])).resolutions == ("native", 64)
    filled = [FilledIn("native"), FilledIn("64")]
    assert parse_experiment(document(resolutions=filled)).resolutions == ("native", 64)
    networks = [{"kind": "fine-tuned", "name": "n", "unlocked": "all"}]
    assert parse_experiment(document(mobile={"networks": networks})).mobile.networks[0].unlocked == "all"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolutions": []}, "resolutions: .*at least 1 item"),
        ({"qualities": []}, "qualities must contain null"),
        ({"augmented_qualities": []}, "augmented_qualities: .*at least 1 item"),
        ({"svm": {"c_values": []}}, r"svm\.c_values: .*at least 1 item"),
        ({"sources": []}, "needs real and fake sources"),
        ({"mixes": [{"name": "m", "real": [], "fakes": ["gan"]}]}, r"mixes\.m\.real: .*at least 1 item"),
        ({"mixes": [{"name": "m", "real": ["coco"], "fakes": []}]}, r"mixes\.m\.fakes: .*at least 1 item"),
        ({"mobile": {"networks": []}}, r"mobile\.networks: .*at least 1 item"),
    ],
)
def test_a_list_that_something_is_taken_from_is_not_empty(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(**changes))


def mix(name: str, fakes: list[str], real: list[str] | None = None) -> dict[str, Any]:
    return {"name": name, "real": real or ["coco"], "fakes": fakes}


def tuned(name: str) -> dict[str, Any]:
    return {"kind": "fine-tuned", "name": name}


def with_rejection(**rejection: Any) -> dict[str, Any]:
    unseen = {"kind": "folder", "name": "dalle", "path": "d", "label": "fake", "evaluated": False}
    return {
        "sources": [*document()["sources"], unseen],
        "mobile": {"networks": [tuned("dense")], "rejection": rejection},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolutions": [64, 64]}, "resolutions: 64 is listed twice"),
        ({"resolutions": [64, "native", 64.0]}, "resolutions: 64 is listed twice"),
        ({"qualities": [None, 60, None]}, "qualities: null is listed twice"),
        ({"augmented_qualities": [None, None]}, "augmented_qualities: null is listed twice"),
        ({"svm": {"c_values": [1, 0.1, 1.0]}}, r"svm\.c_values: 1.0 is listed twice"),
        ({"mixes": [mix("m", ["gan", "gan"])]}, r"mixes\.m\.fakes: gan is listed twice"),
        ({"mixes": [mix("m", ["gan"], ["coco", "coco"])]}, r"mixes\.m\.real: coco is listed twice"),
        ({"mixes": [mix("m", ["gan"]), mix("m", ["fakes"])]}, "mixes: two mixes have the same name, 'm'"),
        ({"mixes": [mix("m", ["gan", "fakes"]), mix("n", ["fakes", "gan"])]}, "mix n: it has the sources of mix m"),
        (
            {"seed_protocol": {"real": "coco", "gan": "gan", "stable": "fakes", "qualities": [20, 20]}},
            r"seed_protocol\.qualities: 20 is listed twice",
        ),
        ({"seed_protocol": {"real": "coco", "gan": "gan", "stable": "gan"}}, "gan and stable are both 'gan'"),
        ({"mobile": {"networks": [tuned("a"), tuned("a")]}}, "two networks have the same name, 'a'"),
        (
            {
                "mobile": {
                    "networks": [tuned("a"), {"kind": "distilled", "name": "d", "of": "a", "teachers": ["a", "a"]}]
                }
            },
            r"teachers: a is listed twice",
        ),
        (with_rejection(bounds=[0.6, 0.6]), r"bounds: 0.6 is listed twice"),
        (with_rejection(unknown=["dalle", "dalle"]), r"unknown: dalle is listed twice"),
        (with_rejection(shifted=["dalle", "dalle"]), r"shifted: dalle is listed twice"),
        (with_rejection(unknown=["dalle"], shifted=["dalle"]), "dalle is unknown or shifted, not both"),
        (
            {
                "sources": [
                    document()["sources"][0],
                    {"kind": "prompt-set", "path": "p", "columns": {"one": "image", "two": "image"}},
                ]
            },
            "two sources are the column 'image' of",
        ),
    ],
)
def test_nothing_is_listed_twice(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(**changes))


def test_a_list_of_bounds_may_be_empty() -> None:
    mobile = parse_experiment(document(**with_rejection(bounds=[], unknown=["dalle"]))).mobile
    assert mobile is not None
    assert mobile.rejection.bounds == ()


@pytest.mark.parametrize("name", ["svm", "svm-aug", "probe", "small-alone"])
def test_no_network_can_be_named_as_a_detector_of_the_experiment(name: str) -> None:
    with pytest.raises(SpecError, match=name):
        parse_experiment(document(mobile={"networks": [tuned(name)]}))


def test_an_experiment_names_its_detectors_or_has_todays() -> None:
    assert [one.name for one in parse_experiment(document()).all_detectors] == ["svm", "svm-aug", "probe"]
    named = parse_experiment(document(detectors=[{"kind": "linear", "name": "plain", "fitted_in": "augmented"}]))
    assert [(one.name, one.title) for one in named.all_detectors] == [("plain", "SVM, fitted over all qualities")]
    again = parse_experiment(named.model_dump(mode="json"))
    assert again == named


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        ([{"kind": "linaer", "name": "a"}], "unknown kind of detector 'linaer', expected one of"),
        ([{"kind": "linear", "name": "a"}, {"kind": "linear", "name": "a", "seeds": 2}], "two detectors have the same"),
        ([{"kind": "linear", "name": "a", "role": "probe"}], "expected one whose role is detector"),
        ([{"kind": "linear", "name": "a", "extractor": {"kind": "vgg61"}}], "extractor"),
        ([{"kind": "linear", "name": "a-1"}, {"kind": "linear", "name": "a.1"}], "differ in dots and dashes alone"),
    ],
)
def test_detectors_that_cannot_be_are_refused(detectors: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(detectors=detectors))


def test_svm_is_the_experiments_own_and_no_other_detector() -> None:
    assert parse_experiment(document(detectors=[{"kind": "linear", "name": "svm", "seeds": 2, "crossed": True}]))
    for changes in ({"fitted_in": "augmented"}, {"svm": {"standardise": False}}, {"extractor": {"kind": "probe"}}):
        with pytest.raises(SpecError, match="svm is the experiment's own SVM"):
            parse_experiment(document(detectors=[{"kind": "linear", "name": "svm"} | changes]))


@pytest.mark.parametrize("name", ["small-alone", "small.alone"])
def test_no_detector_is_called_as_a_student_without_its_teacher(name: str) -> None:
    student = {"kind": "distilled", "name": "small", "of": "dense", "teachers": ["dense"]}
    detectors = [{"kind": "linear", "name": "plain"}, {"kind": "linear", "name": name}]
    with pytest.raises(SpecError, match=r"both called 'small-alone'|differ in dots and dashes"):
        parse_experiment(document(detectors=detectors, mobile={"networks": [tuned("dense"), student]}))


def test_perturbations_are_cells_beside_the_qualities() -> None:
    experiment = parse_experiment(document(resolutions=[64], qualities=[None, 40], perturbations=["q35"]))
    assert [cell.name for cell in experiment.cells] == ["64/none", "64/q40", "64/q35"]
    with pytest.raises(SpecError, match="q40 is among the qualities already"):
        parse_experiment(document(qualities=[None, 40], perturbations=[{"kind": "jpeg", "quality": 40}]))
    with pytest.raises(SpecError, match="no perturbation is called 'web-50'"):
        parse_experiment(document(perturbations=["web-50"]))


@pytest.mark.parametrize("name", ["real", "unknown", "combined", "shuffled"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_a_fake_source_has_no_name_that_tables_give_to_something_else(name: str, evaluated: bool) -> None:
    given = document()
    given["sources"].append({"kind": "folder", "name": name, "path": "p", "label": "fake", "evaluated": evaluated})
    with pytest.raises(SpecError, match=f"{name}: tables mean something else"):
        parse_experiment(given)


def test_photographs_may_be_named_real_but_not_those_that_no_network_knows() -> None:
    given = document(**with_rejection(unknown=["dalle"]))
    given["sources"][0]["name"] = given["sources"][2]["trained_on"] = "real"
    assert parse_experiment(given).class_names == ("real", "fakes", "gan")
    given = document(**with_rejection(unknown=["real"]))
    given["sources"][3] |= {"name": "real", "label": "real"}
    with pytest.raises(SpecError, match="real: tables mean something else"):
        parse_experiment(given)


@pytest.mark.parametrize(
    ("mixes", "message"),
    [
        ([mix("gan", ["fakes"])], "mix gan: it has the name of a source, and other fakes: .'fakes'.$"),
        ([mix("gan", ["fakes", "gan"])], "mix gan: it has the name of a source, and other fakes"),
        ([mix("combined", ["gan"])], "mix combined: expected several fakes"),
        ([mix("shuffled", ["gan"])], "mix shuffled: tables call the control"),
    ],
)
def test_a_mix_that_is_named_as_another_would_be_is_refused(mixes: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_experiment(document(mixes=mixes))


def test_a_mix_may_be_named_as_what_it_is() -> None:
    mixes = [mix("gan", ["gan"]), mix("combined", ["gan", "fakes"]), mix("others", ["fakes"])]
    assert [each.name for each in parse_experiment(document(mixes=mixes)).all_mixes] == ["gan", "combined", "others"]


def test_names_that_are_one_in_the_key_of_an_artifact_are_refused() -> None:
    sources = [
        {"kind": "coco", "name": "coco", "directory": "d"},
        {"kind": "folder", "name": "sd-1.4", "path": "p", "label": "fake"},
        {"kind": "folder", "name": "sd-1-4", "path": "q", "label": "fake"},
    ]
    assert artifact_key("sd-1.4") == artifact_key("sd-1-4")
    for changes in (
        {"sources": sources},
        {"mobile": {"networks": [tuned("a.b"), tuned("a-b")]}},
        {"mixes": [mix("a.b", ["gan"]), mix("a-b", ["fakes"])]},
    ):
        with pytest.raises(SpecError, match="differ in dots and dashes alone"):
            parse_experiment(document(**changes))
