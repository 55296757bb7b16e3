"""YAML files of settings: every value is read as its writer meant it, or refused with its line."""

import os
from pathlib import Path
from typing import Any

import pytest

from storage.errors import SpecError
from tasks import strict_yaml
from tasks.data.sources.gan import GanSource
from tasks.presets import load_experiment
from tasks.strict_yaml import parse_yaml, read_yaml


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as raised:
        parse_yaml(text, "e.yaml")
    said = str(raised.value)
    assert said.startswith("e.yaml")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Truth values of YAML 1.1, which a name may well be.
        ("no", "no"),
        ("off", "off"),
        ("On", "On"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        # Texts for PyYAML.
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("5e+2", 500.0),
        ("-2.5e3", -2500.0),
        # Dates, which no field takes.
        ("2017-01-01", "2017-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.0", 1.0),
        ("~", None),
        ("null", None),
        ("~/data", "~/data"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("=", "="),
        ("e5", "e5"),
        ("0a", "0a"),
        ("12ab", "12ab"),
        ("_1", "_1"),
        ("'010'", "010"),
        ('"no"', "no"),
        ("!!str 10", "10"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
    ],
)
def test_a_plain_value_is_what_it_looks_like(text: str, value: Any) -> None:
    (found,) = parse_yaml(f"[{text}]", "e.yaml")
    assert (found, type(found)) == (value, type(value))


def test_not_a_number_is_read_as_such_and_left_to_the_field_to_refuse() -> None:
    (found,) = parse_yaml("[.nan]", "e.yaml")
    assert found != found


@pytest.mark.parametrize("text", ["010", "-07", "0x1F", "0b11", "0o17", "1_000", "1_0.5", "1:30", "16:9", "190:20:30"])
def test_a_number_with_two_readings_is_refused_with_its_line(text: str) -> None:
    said = refusal(f"name: a\nlimit: {text}\n")
    assert f"{text} in line 2" in said
    assert "quote it" in said


def test_keys_are_texts_as_they_are_written() -> None:
    found = parse_yaml("{no: a, 010: b, 1e3: c, 2017-01-01: d, 12:34: e, true: f}", "e.yaml")
    assert list(found) == ["no", "010", "1e3", "2017-01-01", "12:34", "true"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "lines 1 and 3"),
        ("a:\n  b: 1\n  b: 1\n", "lines 2 and 3"),
        ("- {limit: 1, limit: 2}\n", "lines 1 and 1"),
        ("seed: 1\n'seed': 2\n", "lines 1 and 2"),
        ("x: &x {a: 1}\ny: {<<: *x, a: 2, a: 3}\n", "lines 2 and 2"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", "lines 3 and 4"),
    ],
)
def test_a_doubled_key_is_refused_with_both_lines(text: str, lines: str) -> None:
    assert lines in refusal(text)


def test_a_merged_mapping_gives_what_is_not_there() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  c: 3\n"
    assert parse_yaml(text, "e.yaml")["z"] == {"a": 1, "b": 1, "c": 3}
    assert "<< takes a mapping" in refusal("<<: 1\n")
    assert parse_yaml("'<<': 1\n", "e.yaml") == {"<<": 1}


def test_what_an_alias_repeats_is_there_twice() -> None:
    found = parse_yaml("a: &a {side: 1}\nb: *a\n", "e.yaml")
    found["a"]["side"] = 2
    assert found["b"] == {"side": 1}


def test_an_override_of_one_source_leaves_another_that_shares_its_text(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        "name: e\nsources:\n"
        "  - {kind: folder, name: r, path: r, label: real}\n"
        "  - {kind: gan, name: g1, trained_on: r, count: 5, gan: &gan {epochs: 3}}\n"
        "  - {kind: gan, name: g2, trained_on: r, count: 5, gan: *gan}\n"
    )
    sources = load_experiment(str(path), {"sources.g1.gan.epochs": 7}).sources
    assert [source.gan.epochs for source in sources if isinstance(source, GanSource)] == [7, 3]


def test_aliases_that_stand_for_billions_of_values_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "stand for more than" in refusal("\n".join(lines))


def test_what_contains_itself_and_what_is_nested_without_end_are_refused() -> None:
    assert "contains itself" in refusal("a: &a [*a]\n")
    assert "contains itself" in refusal("&a {b: *a}\n")
    assert "too deeply" in refusal("[" * 150 + "]" * 150)
    assert "too deeply" in refusal("[" * 5000 + "]" * 5000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("# a comment\n", "is empty"),
        ("---\na: 1\n---\nb: 2\n", r"single document"),
        ("a:\n\tb: 1\n", "line 2"),
        ("a: [1, 2\n", "line 2"),
        ("a: 'b\n", "line 2"),
        ("a: *b\n", "undefined alias"),
        ("a: @b\n", "line 1"),
        ("a: b: c\n", "line 1"),
        ("a\x00: 1\n", "special characters are not allowed"),
        ("? [1, 2]\n: 3\n", "expected a text as key in line 1"),
        ('"": 3\n', "expected a text as key in line 1"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1, got a !"),
        ("a: !!binary aGVsbG8=\n", "line 1, got a !binary"),
        ("a: !!set {b, c}\n", "line 1, got a !set"),
        ("a: !!timestamp 2017-01-01\n", "line 1, got a !timestamp"),
        (f"limit: {'1' * 5000}\n", "has 5000 digits"),
    ],
)
def test_what_is_no_file_of_settings_is_one_sentence(text: str, reason: str) -> None:
    assert reason in refusal(text)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str) -> str:
        with pytest.raises(SpecError) as raised:
            read_yaml(tmp_path / name)
        return str(raised.value)

    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"name: a\xff")
    (tmp_path / "wide.yaml").write_bytes("name: a\n".encode("utf-16"))
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    (tmp_path / "large.yaml").touch()
    os.truncate(tmp_path / "large.yaml", 2**20 + 1)
    assert "is a folder" in said("folder.yaml")
    assert "is no file" in said("pipe.yaml")
    assert "is no file" in said("link.yaml")
    assert "no text in UTF-8: byte 7 is 0xff" in said("binary.yaml")
    assert "no text in UTF-8: byte 0 is" in said("wide.yaml")
    assert "no text in UTF-8: byte 0 is 0x89" in said("image.yaml")
    assert "1048577 bytes" in said("large.yaml")

    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    (tmp_path / "secret.yaml").write_text("name: a\n")
    assert "cannot be read: Permission denied" in said("secret.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml(tmp_path / "e.yaml") == {"name": "a"}


def test_the_limit_on_aliases_is_far_above_what_presets_hold() -> None:
    assert strict_yaml.MAX_VALUES > 100 * 500
