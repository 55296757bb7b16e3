"""Overrides: one value changes, its neighbours stay, and what could mean two things is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.errors import SpecError
from tasks.data.sources.column import ColumnSource
from tasks.data.sources.folder import FolderSource
from tasks.overrides import override, parse_settings
from tasks.presets import load_experiment
from tasks.spec.splits import FixedSplits, Folds

DOCUMENT: dict[str, Any] = {
    "name": "e",
    "sources": [
        {"kind": "folder", "name": "real", "path": "r", "label": "real", "limit": 7},
        {"kind": "folder", "name": "sd-1", "path": "s1", "label": "fake", "limit": 1, "metadata": "m.csv"},
        {"kind": "folder", "name": "sd-1.4", "path": "s14", "label": "fake", "limit": 14},
    ],
    "splits": {"kind": "fixed", "train": 0.5, "groups": {"real:a.1.jpg": "train"}},
    "extractor": {"layer": "fc6", "side": 224, "weights": "random:3", "batch": 8},
    "qualities": [None, 60],
}


def nested(depth: int, kind: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind == {} else [value]
    return value


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    return str(path)


def changed(overrides: dict[str, Any]) -> dict[str, Any]:
    """The document's leaves that the overrides change, by path."""
    before, after = yaml.safe_load(yaml.safe_dump(DOCUMENT)), yaml.safe_load(yaml.safe_dump(DOCUMENT))
    override(after, overrides)
    old, new = _leaves(before), _leaves(after)
    return {path: new.get(path) for path in {**old, **new} if old.get(path) != new.get(path)}


def _leaves(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, dict):
        return {key: value for name, each in node.items() for key, value in _leaves(each, f"{path}/{name}").items()}
    if isinstance(node, list) and all(isinstance(each, dict) for each in node):
        return {k: v for each in node for k, v in _leaves(each, f"{path}/{each['name']}").items()}
    return {path: node}


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        ({"extractor.side": 96}, {"/extractor/side": 96}),
        ({"extractor": {"side": 96}}, {"/extractor/side": 96}),
        ({"extractor": {"side": 96, "batch": 2}}, {"/extractor/side": 96, "/extractor/batch": 2}),
        ({"extractor": {}}, {}),
        ({"extractor": {}, "extractor.side": 96}, {"/extractor/side": 96}),
        ({"sources": {"sd-1": {}, "real": {"limit": 6}}}, {"/sources/real/limit": 6}),
        # The keys of groups are the experiment's own: an empty mapping of them is one.
        ({"splits.groups": {}}, {"/splits/groups/real:a.1.jpg": None}),
        ({"splits": {"groups": {}}}, {"/splits/groups/real:a.1.jpg": None}),
        ({"splits": {"groups": {"real:b.jpg": "val"}}}, {"/splits/groups/real:b.jpg": "val"}),
        ({"splits.groups.real:a.1.jpg": "test"}, {"/splits/groups/real:a.1.jpg": "test"}),
        ({"sources.sd-1.4.limit": 5}, {"/sources/sd-1.4/limit": 5}),
        ({"sources.sd-1.limit": 5}, {"/sources/sd-1/limit": 5}),
        ({"sources.sd-1.4": {"limit": 5}}, {"/sources/sd-1.4/limit": 5}),
        (
            {"sources": {"sd-1.4": {"limit": 5}, "real": {"limit": 6}}},
            {"/sources/sd-1.4/limit": 5, "/sources/real/limit": 6},
        ),
        ({"qualities": [None]}, {"/qualities": [None]}),
        ({"svm": {"calibrate": False}}, {"/svm/calibrate": False}),
        ({"mobile.rejection.kept": 0.9}, {"/mobile/rejection/kept": 0.9}),
        ({"sources.sd-1.metadata": None}, {"/sources/sd-1/metadata": None}),
        # Two spellings of one value agree.
        ({"extractor.side": 96, "extractor": {"side": 96}}, {"/extractor/side": 96}),
    ],
)
def test_an_override_changes_what_it_names_and_nothing_else(overrides: dict[str, Any], changes: dict[str, Any]) -> None:
    assert changed(overrides) == changes


def test_a_merged_override_gives_the_experiment_that_the_dotted_one_gives(file: str) -> None:
    merged = load_experiment(file, {"extractor": {"side": 96}})
    assert merged == load_experiment(file, {"extractor.side": 96})
    assert merged.extractor.model_dump() | {"side": 224} == load_experiment(file).extractor.model_dump()
    assert (merged.extractor.weights, merged.extractor.layer) == ("random:3", "fc6")


@pytest.mark.parametrize(
    "overrides", [{"splits": {"kind": "folds", "count": 4}}, {"splits.count": 4, "splits.kind": "folds"}]
)
def test_another_kind_leaves_the_fields_behind_that_it_does_not_have(file: str, overrides: dict[str, Any]) -> None:
    assert load_experiment(file).splits == FixedSplits(train=0.5, groups={"real:a.1.jpg": "train"})
    assert load_experiment(file, overrides).splits == Folds(count=4)


def test_another_kind_keeps_the_fields_that_it_has(file: str) -> None:
    source = load_experiment(file, {"sources.sd-1": {"kind": "column", "column": "image"}}).sources[1]
    assert source == ColumnSource(name="sd-1", path="s1", column="image", limit=1)
    assert isinstance(load_experiment(file).sources[1], FolderSource)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"extractor.sid": 96}, "extractor.sid: there is no such field, did you mean side"),
        ({"extractor": {"sid": 96}}, "extractor.sid: there is no such field, did you mean side"),
        ({"sources.sd-1.4.limt": 5}, "sources.sd-1.4.limt: there is no such field, did you mean limit"),
        ({"sources.sd-1.4.limit": -5}, "sources.sd-1.4.limit: .*greater than or equal to 1"),
        ({"sources.sd-1.4.limit": {"at": 5}}, r"'sources.sd-1.4.limit' puts a mapping over 14"),
        ({"sources.sd-2.limit": 5}, r"names no item of the list, expected one of \['real', 'sd-1', 'sd-1.4'\]"),
        ({"sources": {"sd-2": {}}}, r"names no item of the list"),
        ({"sources.sd-1.4": 5}, "names no field of sd-1.4"),
        ({"qualities.0": 5}, "a list without names: replace the list as a whole"),
        ({"extractor..side": 5}, "parted by single dots"),
        ({"": 5}, "parted by single dots"),
        ({"name.first": "x"}, "reaches into 'e'"),
        ({"extractor.side": 96, "extractor": {"side": 97}}, "which another override sets otherwise"),
        ({"sources": [], "sources.sd-1.limit": 3}, "which another override sets otherwise"),
        ({"bogus": {"a": 1}}, "bogus: there is no such field"),
        ({"bogus": {}}, "bogus: there is no such field"),
        ({"extractor.wieghts": {}}, "extractor.wieghts: there is no such field, did you mean weights"),
        ({"extractor": {"wieghts": {}}}, "extractor.wieghts: there is no such field, did you mean weights"),
        ({"extractor.weights": {}}, "puts a mapping over 'random:3'"),
        ({"sources": {}}, r"names no item of the list, expected some of \['real', 'sd-1', 'sd-1.4'\]"),
        ({"sources.sd-1.limt": {}}, "sources.sd-1.limt: there is no such field, did you mean limit"),
        ({"mobile": {}}, "mobile.networks: Field required"),
        ({"splits.groups": {}, "splits.groups.real:b.jpg": "val"}, "which another override sets otherwise"),
        ({"sources.sd-1.kind": ["folder"]}, r"sources.sd-1: unknown kind of source \['folder'\]"),
        ({"sources.sd-1.name": ["x"]}, "name: .*valid string"),
        ({".".join(["a"] * 3000): 1}, "'a.a.a.*' is nested too deeply"),
        ({"a": nested(900, {})}, "override 'a' is nested too deeply"),
        ({"a": nested(900, [])}, "override 'a' is nested too deeply"),
        ({"sources.sd-1.limit": "010"}, "limit: expected a number, got the text '010'"),
        ({"splits.count": 4}, "splits.count: there is no such field, expected one of"),
        ({"extractor": {"kind": "probe"}}, "extractor.kind: "),
        ({"sources.sd-1.kind": "video"}, "sources.sd-1: unknown kind of source 'video'"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_with_its_dotted_name(
    file: str, overrides: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecError, match=reason):
        load_experiment(file, overrides)


def test_a_name_that_ends_in_a_field_is_ambiguous_and_a_mapping_says_which() -> None:
    def document() -> dict[str, Any]:
        return {"sources": [{"name": "a", "limit": 1}, {"name": "a.limit", "limit": 2}]}

    with pytest.raises(SpecError, match=r"'a' or 'a.limit'"):
        override(document(), {"sources.a.limit": {"limit": 3}})
    one = document()
    # A number can only be the field's.
    override(one, {"sources.a.limit": 3})
    assert [source["limit"] for source in one["sources"]] == [3, 2]
    override(one, {"sources": {"a.limit": {"limit": 4}}})
    assert [source["limit"] for source in one["sources"]] == [3, 4]


def test_an_item_that_gets_another_name_is_found_by_its_old_one() -> None:
    renamed: tuple[dict[str, Any], ...] = (
        {"sources.sd-1.name": "x", "sources.sd-1.limit": 5},
        {"sources.sd-1.limit": 5, "sources.sd-1.name": "x"},
        {"sources": {"sd-1": {"name": "x", "limit": 5}}},
    )
    for overrides in renamed:
        document = yaml.safe_load(yaml.safe_dump(DOCUMENT))
        override(document, overrides)
        assert document["sources"][1] == DOCUMENT["sources"][1] | {"name": "x", "limit": 5}
        assert document["sources"][2] == DOCUMENT["sources"][2]


def test_two_items_may_exchange_their_names() -> None:
    document = {"sources": [{"name": "a", "limit": 1}, {"name": "b", "limit": 2}]}
    override(document, {"sources.a.name": "b", "sources.b.name": "a", "sources.b.limit": 3})
    assert document == {"sources": [{"name": "b", "limit": 1}, {"name": "a", "limit": 3}]}


def test_two_items_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(SpecError, match="two items have the name 'a'"):
        override({"sources": [{"name": "a"}, {"name": "a"}]}, {"sources.a.limit": 3})


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["x"], "expected KEY=VALUE such as extractor.side=96, got 'x'"),
        (["=1"], "expected KEY=VALUE"),
        (["seed=1", "seed=2"], "seed is set twice"),
        (['extractor={"side": 1, "side": 2}'], "extractor: 'side' stands twice"),
        (["qualities=[null, 60"], "qualities: expected JSON after a bracket"),
        (["a=" + "[" * 100_000], "a: expected JSON after a bracket"),
    ],
)
def test_what_is_no_setting_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"--set: {reason}")):
        parse_settings(texts)


def test_a_value_is_json_or_else_the_text_that_it_is() -> None:
    texts = [
        "extractor.side=96",
        "qualities=[null, 60]",
        "history=as-is",
        "extractor.weights=random:0",
        "a.b=x=y",
        "n=",
    ]
    assert parse_settings(texts) == {
        "extractor.side": 96,
        "qualities": [None, 60],
        "history": "as-is",
        "extractor.weights": "random:0",
        "a.b": "x=y",
        "n": "",
    }
