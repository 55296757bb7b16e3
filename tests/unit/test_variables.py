"""Environment variables in an experiment: resolved, or refused at once; never left in a path."""

from pathlib import Path
from typing import Any

import pytest

from storage.errors import MissingInput, SpecError
from tasks.data.sources.folder import FolderSource
from tasks.presets import load_experiment, load_unfilled
from tasks.spec.base import on_this_machine
from tasks.variables import fill_in, literal, located, needed


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"A": "a", "lower_case": "/low", "Mixed1": "m", "EMPTY": "", "NESTED": "${A}"}.items():
        monkeypatch.setenv(name, value)
    for name in ("UNSET", "unset", "OTHER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${lower_case}/x", "/low/x"),
        ("${Mixed1}", "m"),
        ("${A}${A}", "aa"),
        ("${UNSET:-${A}}", "a"),
        ("${UNSET:-x${A}y}", "xay"),
        ("${UNSET:-${OTHER:-b}}", "b"),
        ("${UNSET:-${OTHER:-${A}}}/c", "a/c"),
        ("${A:-${UNSET}}", "a"),
        ("${EMPTY:-d}", "d"),
        ("${UNSET:-}", None),
        ("x${UNSET:-}", "x"),
        ("${UNSET:-a-b:-c}", "a-b:-c"),
        ("$${literal}", "${literal}"),
        ("$$HOME", "$HOME"),
        ("costs 5$", "costs 5$"),
        ("$5", "$5"),
        ("a$/b", "a$/b"),
        # A value is what it is, whatever it looks like.
        ("${NESTED}", "${A}"),
        ("", ""),
    ],
)
def test_a_variable_is_resolved(text: str, value: str | None) -> None:
    unset: list[str] = []
    assert fill_in({"path": [text]}, unset) == {"path": [value]}
    assert unset == []


@pytest.mark.parametrize(
    "text",
    [
        "${A-default}",
        "${A:=b}",
        "${A:+b}",
        "${A:?needed}",
        "${A:default}",
        "${}",
        "${1}",
        "${A B}",
        "${A.b}",
        "${env:A}",
        "${{A}}",
        "${A",
        "${A:-${B}",
        "$A/x",
        "$lower_case",
        "$(pwd)/x",
        "${UNSET:-$A}",
        "${A:-${B-c}}",
    ],
)
def test_what_looks_like_a_variable_and_is_none_is_refused_with_what_is_understood(text: str) -> None:
    with pytest.raises(SpecError) as raised:
        fill_in({"path": text}, [])
    said = str(raised.value)
    assert repr(text) in said
    assert "${NAME:-default}" in said


def test_a_variable_in_a_key_is_refused() -> None:
    with pytest.raises(SpecError, match="not in a key"):
        fill_in({"groups": {"${A}:b": "train"}}, [])


def test_each_variable_without_value_is_named_once() -> None:
    unset: list[str] = []
    filled = fill_in({"a": "${UNSET}/x", "b": "${unset:-${OTHER}}", "c": 5}, unset)
    assert unset == ["UNSET", "OTHER"]
    assert filled == {"a": "${UNSET}/x", "b": "${OTHER}", "c": 5}


def _file(folder: Path, text: str) -> str:
    path = folder / "e.yaml"
    path.write_text(
        "name: e\nsources:\n  - {kind: folder, name: r, path: r, label: real}\n"
        f"  - {{kind: folder, name: f, path: '{text}', label: fake}}\n"
    )
    return str(path)


def test_a_path_in_a_file_and_one_in_an_override_are_resolved_alike(tmp_path: Path) -> None:
    def path_of(experiment: str, overrides: dict[str, Any] | None = None) -> str:
        source = load_experiment(experiment, overrides).sources[1]
        assert isinstance(source, FolderSource)
        return on_this_machine(source).path

    assert path_of(_file(tmp_path, "${lower_case}/p")) == "/low/p"
    assert path_of(_file(tmp_path, "p"), {"sources.f.path": "${UNSET:-${lower_case}}"}) == "/low"


def test_a_path_is_located_once_where_a_disk_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TILDE", "~/data")
    assert [located(text) for text in ("${TILDE}/x", "~/y", "/plain/z", "owner/name@0", "${UNSET:-imagenet}")] == [
        "/home/me/data/x",
        "/home/me/y",
        "/plain/z",
        "owner/name@0",
        "imagenet",
    ]
    assert located("${UNSET:-}") is None
    # What a variable says is no text of an experiment.
    assert located("${NESTED}") == "${A}"
    with pytest.raises(MissingInput) as raised:
        located("${UNSET}/${OTHER}/${UNSET}")
    assert [line.split(",")[0] for line in raised.value.missing] == [
        "environment variable UNSET",
        "environment variable OTHER",
    ]
    with pytest.raises(SpecError, match="nothing is left"):
        needed("${UNSET:-}")


def test_what_comes_with_telltale_is_found_on_every_machine_unless_a_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipped = "${TELLTALE_SHIPPED}/small_autoencoder_weights"
    assert (Path(needed(shipped)) / "config.json").is_file()
    monkeypatch.setenv("TELLTALE_SHIPPED", "/elsewhere")
    assert needed(shipped) == "/elsewhere/small_autoencoder_weights"


@pytest.mark.parametrize("path", ["/a/$b", "/a/${b}/$(c)", "/plain", "/5$"])
def test_a_path_of_a_program_may_hold_any_sign(path: str) -> None:
    assert located(literal(path)) == path


@pytest.mark.parametrize("text", ["$A/x", "${A", "${A:default}", "~/$(x)"])
def test_a_mistake_in_the_variable_of_a_path_is_said_when_the_experiment_is_loaded(text: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"sources\.f\.path: .*understood are"):
        load_experiment(_file(tmp_path, text))


def test_a_number_that_hangs_on_a_variable_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "p")
    overrides = {"seed": "${unset}"}
    with pytest.raises(MissingInput, match=r"environment variable unset, which e\.yaml needs"):
        load_unfilled(path, overrides)
    monkeypatch.setenv("unset", "12")
    assert load_experiment(path, overrides).seed == 12
    monkeypatch.setenv("unset", "twelve")
    with pytest.raises(SpecError, match=r"seed: .*'twelve'"):
        load_experiment(path, overrides)


@pytest.mark.parametrize(
    ("said", "read"),
    [("12", 12), (" 12 ", 12), ("1e1", 10), ("10.0", 10), ("0", 0), ("+3", 3)],
)
def test_a_number_from_a_variable_is_read_as_yaml_reads_it(
    said: str, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", said)
    path = _file(tmp_path, "p")
    assert load_experiment(path, {"seed": "${N}"}).seed == read
    assert load_experiment(path, {"seed": f"${{UNSET:-{said}}}"}).seed == read
    # In a field of texts it stays one.
    assert load_experiment(path, {"description": "${N}"}).description == said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("010", "seed: 010 is one number in one version of YAML"),
        ("1_0", "seed: 1_0 is one number in one version of YAML"),
        ("0x10", "seed: 0x10 is one number in one version of YAML"),
        ("1:30", "seed: 1:30 is one number in one version of YAML"),
        ("\u0661\u0660", "seed: expected a number, got the text"),
        ("'10'", "seed: expected a number, got the text"),
        ("[10]", "seed: expected a number, got the text"),
        ("9" * 5000, "seed: the number has 5000 digits"),
        (".nan", "seed: .*finite number"),
        ("true", "seed: .*truth value|seed: .*valid integer"),
    ],
)
def test_what_yaml_would_read_otherwise_is_no_number_of_a_variable(
    said: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", said)
    with pytest.raises(SpecError, match=reason) as raised:
        load_experiment(_file(tmp_path, "p"), {"seed": "${N}"})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(("said", "read"), [("true", True), ("False", False)])
def test_a_truth_value_of_a_variable_is_read_as_yaml_reads_it(
    said: str, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", said)
    assert load_experiment(_file(tmp_path, "p"), {"svm.calibrate": "${N}"}).svm.calibrate is read
    monkeypatch.setenv("N", "yes")
    with pytest.raises(SpecError, match="calibrate: expected true or false, got the text 'yes'"):
        load_experiment(_file(tmp_path, "p"), {"svm.calibrate": "${N}"})


def test_a_dollar_sign_makes_no_number_of_a_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="seed: expected a number, got the text"):
        load_experiment(_file(tmp_path, "p"), {"seed": "$${1}"})


def test_more_variables_in_a_text_than_anybody_needs_are_refused() -> None:
    assert fill_in("${UNSET:-" * 90 + "a" + "}" * 90, []) == "a"
    with pytest.raises(SpecError, match="holds more than 100 variables"):
        fill_in("${UNSET:-" * 5000 + "a" + "}" * 5000, [])
