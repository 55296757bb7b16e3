"""YAML as its reader expects it: doubled keys are refused, and nothing that looks like a text becomes something else.

Plain values are read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `no` and
`2017-01-01` are texts, `1e-3` is a number. Forms that YAML 1.1 and 1.2 read as different numbers, such as `010`, are
refused, and so is everything that a file of settings has no use for. Keys are always texts, as they are written.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from storage.errors import SpecError

MAX_BYTES = 2**20
# What a file holds once its aliases are written out: some kilobytes of them can stand for billions of values.
MAX_VALUES = 100_000
MAX_DEPTH = 100

_PLAIN = "plain"
_TEXT = "tag:yaml.org,2002:str"
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUTH = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Octal, hexadecimal, binary, base 60 and grouped: numbers in one version of YAML and texts or others in another.
_AMBIGUOUS = re.compile(
    r"[-+]?(0[0-9]+|0[box][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?|[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?)"
)


class _Loader(yaml.SafeLoader):
    """Leaves plain values to `_plain`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: mappings with texts as keys, lists, texts, numbers, truth values and None.

    Nothing in it is shared: a value that an alias repeats is there twice.

    Raises:
        SpecError: the file cannot be read, is too large, no UTF-8 text or no YAML, holds none or several documents, or
            something that has two readings; one sentence with the line.
    """
    try:
        data = _bytes(path)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return parse_yaml(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is no text in UTF-8: byte {error.start} is {data[error.start]:#04x}") from error


def parse_yaml(text: str, name: str) -> Any:
    """As `read_yaml`, of a text; `name` says in messages where it is from."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not readable as YAML: {_one_sentence(error)}") from error
    except RecursionError as error:
        raise SpecError(f"{name} is nested too deeply") from error
    if root is None:
        raise SpecError(f"{name} is empty")
    _count(root, name, {}, ())
    return _value(root, name)


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise SpecError(f"{path} is a folder, expected a YAML file")
    if not path.is_file():
        raise SpecError(f"{path}: expected a YAML file, got something that is no file")
    if path.stat().st_size > MAX_BYTES:
        raise SpecError(f"{path} has {path.stat().st_size} bytes, more than a YAML file of settings has ({MAX_BYTES})")
    return path.read_bytes()


def _one_sentence(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        return f"{said} (line {mark.line + 1})" if mark else said
    return " ".join(str(error).split())


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _count(node: yaml.Node, name: str, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for with its aliases written out."""
    if id(node) in above:
        raise SpecError(f"{name}: what begins in line {_line(node)} contains itself")
    if len(above) > MAX_DEPTH:
        raise SpecError(f"{name} is nested too deeply (line {_line(node)})")
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_count(each, name, known, (*above, id(node))) for each in inner)
        if known[id(node)] > MAX_VALUES:
            raise SpecError(f"{name}: its aliases stand for more than {MAX_VALUES} values (line {_line(node)})")
    return known[id(node)]


def _value(node: yaml.Node, name: str) -> Any:
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, yaml.MappingNode) and tag == "map":
        return _mapping(node, name)
    if isinstance(node, yaml.SequenceNode) and tag == "seq":
        return [_value(each, name) for each in node.value]
    if isinstance(node, yaml.ScalarNode) and tag in (_PLAIN, "str"):
        return node.value if tag == "str" else _plain(node, name)
    raise SpecError(f"{name}: expected a text, number, list or mapping in line {_line(node)}, got a !{tag}")


def _mapping(node: yaml.MappingNode, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    merged: list[dict[str, Any]] = []
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in (_PLAIN, _TEXT) or not key_node.value:
            raise SpecError(f"{name}: expected a text as key in line {_line(key_node)}")
        key = key_node.value
        if key in lines:
            raise SpecError(f"{name}: {key!r} stands twice in one mapping, in lines {lines[key]} and {_line(key_node)}")
        lines[key] = _line(key_node)
        value = _value(value_node, name)
        if key == "<<" and key_node.tag == _PLAIN:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(each, dict) for each in merged):
                raise SpecError(f"{name}: << takes a mapping or a list of them (line {_line(key_node)})")
        else:
            found[key] = value
    # The first to name a key wins, and the mapping itself comes before what it takes over.
    for each in merged:
        found = {**each, **found}
    return found


def _plain(node: yaml.ScalarNode, name: str) -> Any:
    try:
        return plain_value(node.value, f" in line {_line(node)}")
    except ValueError as error:
        raise SpecError(f"{name}: {error}") from error


def plain_value(text: str, where: str = "") -> Any:
    """What a plain value of YAML stands for: a text, number, truth value or None.

    Raises:
        ValueError: a number with two readings, or with thousands of digits; one sentence, with `where` behind it.
    """
    if _NULL.fullmatch(text):
        return None
    if truth := _TRUTH.fullmatch(text):
        return truth[1] is not None
    if _AMBIGUOUS.fullmatch(text):
        raise ValueError(
            f"{text}{where} is one number in one version of YAML and something else in another: "
            "write it in decimal without leading zeros, colons and underscores, or quote it if it is a text"
        )
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError as error:
            raise ValueError(f"the number{where} has {len(text)} digits") from error
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text
