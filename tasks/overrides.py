"""Values put over an experiment's document by dotted names: `extractor.side`, `sources.sd-1.4.limit`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage.errors import SpecError
from tasks.spec.experiment import field_names, mappings, spec_of
from tasks.strict_yaml import MAX_DEPTH


class _Doubled(ValueError):
    pass


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Overrides from a command line: `KEY=VALUE` each, the value as JSON or else as the text that it is.

    Raises:
        SpecError: one is no such pair, or a key is set twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"--set: expected KEY=VALUE such as extractor.side=96, got {text!r}")
        if key in found:
            raise SpecError(f"--set: {key} is set twice")
        found[key] = _value(key, value)
    return found


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except _Doubled as error:
        raise SpecError(f"--set: {key}: {error}") from error
    except (ValueError, RecursionError) as error:
        # Nobody means a text that begins like a list or an object.
        if text[:1] in ("{", "["):
            raise SpecError(f"--set: {key}: expected JSON after a bracket, got {text[:80]!r} ({error})") from error
        return text


def override(document: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Put overrides over a document, in place.

    A mapping is merged into what is there, at any depth; everything else, lists too, replaces it as a whole. An item of
    a list is reached by its `name`, which may hold dots: the longest that fits counts. Another `kind` keeps of the old
    fields those that the new kind has. An empty mapping sets nothing but where the keys are the experiment's
    own, as those of `splits.groups`: these it clears. A new name holds after all other overrides.

    Raises:
        SpecError: an override names no item, could mean two things, sets again what another one has set, or is nested
            too deeply.
    """
    taken: dict[tuple[str, ...], Any] = {}
    for key, value in overrides.items():
        if key.count(".") > MAX_DEPTH or _is_deep(value):
            raise SpecError(f"override {key[:100]!r} is nested too deeply")
        for path, leaf in _leaves(document, key.split("."), value, key):
            if any(_clash(path, leaf, other, set_to) for other, set_to in taken.items()):
                raise SpecError(f"override {key!r} sets {'.'.join(path)}, which another override sets otherwise")
            taken[path] = leaf
    # Kinds first: they decide which of the old fields stay. Names last: items are found by the old ones.
    renamed = {path: leaf for path, leaf in taken.items() if path[-1] == "name"}
    for path, leaf in sorted(taken.items(), key=lambda item: item[0][-1] != "kind"):
        if path not in renamed:
            _put(document, path, leaf)
    items = [(_parent(document, path), leaf) for path, leaf in renamed.items()]
    for item, name in items:
        item["name"] = name


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Doubled(f"{key!r} stands twice")
        found[key] = value
    return found


def _is_deep(value: Any) -> bool:
    """Whether a value is nested more deeply than YAML may be."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for each in level
            if isinstance(each, Mapping | list)
            for item in (each.values() if isinstance(each, Mapping) else each)
        ]
    return bool(level)


def _clash(path: tuple[str, ...], leaf: Any, other: tuple[str, ...], set_to: Any) -> bool:
    """Whether one replaces what the other sets."""
    shared = min(len(path), len(other))
    if len(path) != len(other) and _changes_nothing(*min((path, leaf), (other, set_to), key=lambda one: len(one[0]))):
        return False
    return path[:shared] == other[:shared] and not (path == other and leaf == set_to)


def _changes_nothing(path: tuple[str, ...], leaf: Any) -> bool:
    return leaf == {} and path[-1] not in mappings()


def _leaves(node: Any, keys: list[str], value: Any, key: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The paths that an override sets, each with its value; a path's parts are fields and names of items."""
    if not keys:
        if not isinstance(value, Mapping):
            yield (), value
            return
        if isinstance(node, list):
            _check_names(node, list(value), key)
        elif node is not None and not isinstance(node, dict):
            raise SpecError(f"override {key!r} puts a mapping over {node!r}")
        if not value:
            if isinstance(node, list):
                raise SpecError(f"override {key!r} names no item of the list, expected some of {_names(node)}")
            yield (), {}
        for name, inner in value.items():
            for path, leaf in _leaves(_child(node, name), [], inner, f"{key}.{name}"):
                yield (name, *path), leaf
        return
    if "" in keys:
        raise SpecError(f"override {key!r}: expected fields and names, parted by single dots")
    count = _length_of_name(node, keys, value, key)
    name = ".".join(keys[:count])
    if isinstance(node, list) and keys[count:] == [] and not isinstance(value, Mapping):
        raise SpecError(f"override {key!r} names no field of {name}")
    for path, leaf in _leaves(_child(node, name), keys[count:], value, key):
        yield (name, *path), leaf


def _length_of_name(node: Any, keys: list[str], value: Any, key: str) -> int:
    """How many of the dotted parts are the name of the next field or item."""
    if node is None:
        return 1
    if isinstance(node, dict):
        # Such as a group that is named by a file.
        return max((n for n in range(1, len(keys) + 1) if ".".join(keys[:n]) in node), default=1)
    if not isinstance(node, list):
        raise SpecError(f"override {key!r} reaches into {node!r}, which has no field {keys[0]!r}")
    names = _names(node)
    fitting = [n for n in range(1, len(keys) + 1) if ".".join(keys[:n]) in names]
    if not fitting:
        _check_names(node, [".".join(keys)], key)
    fields = field_names()
    sensible = [n for n in fitting if (keys[n] in fields if keys[n:] else isinstance(value, Mapping))]
    if len(sensible) > 1:
        meant = " or ".join(repr(".".join(keys[:n])) for n in sensible)
        raise SpecError(f"override {key!r} could mean the item {meant}: give a mapping of its fields instead")
    count = sensible[0] if sensible else max(fitting)
    if names.count(".".join(keys[:count])) > 1:
        raise SpecError(f"override {key!r}: two items have the name {'.'.join(keys[:count])!r}")
    return count


def _check_names(node: list[Any], wanted: list[str], key: str) -> None:
    names = _names(node)
    if not names:
        raise SpecError(f"override {key!r} reaches into a list without names: replace the list as a whole")
    for name in wanted:
        if name not in names:
            raise SpecError(f"override {key!r} names no item of the list, expected one of {names}")


def _names(node: list[Any]) -> list[Any]:
    return [item.get("name") for item in node if isinstance(item, dict) and "name" in item]


def _child(node: Any, name: str) -> Any:
    if isinstance(node, list):
        return next(item for item in node if isinstance(item, dict) and item.get("name") == name)
    return node.get(name) if isinstance(node, dict) else None


def _parent(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    """What holds the last of a path's parts; mappings on the way that are not there are made."""
    node: Any = document
    for name in path[:-1]:
        if isinstance(node, dict) and node.get(name) is None:
            node[name] = {}
        node = _child(node, name)
    return node


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    node = _parent(document, path)
    if _changes_nothing(path, value) and _child(node, path[-1]) is not None:
        return
    kind = spec_of(value) if path[-1] == "kind" else None
    if kind is not None and node.get("kind") != value:
        for field in [field for field in node if field not in kind.model_fields]:
            del node[field]
    node[path[-1]] = value
