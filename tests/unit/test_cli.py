"""`telltale detect`: answers for people and machines, one clear line for what cannot be read, and its exit status."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deployments.cli import app, main
from storage.store import STORE_SETTING, LocalStore
from tasks.data.pictures import encode_jpeg, encode_png
from tests.unit.published_networks import card_of, publish_run, tiny_model, write_model

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)


def detect(*arguments: object, store: Path | None = None) -> Result:
    environment = {STORE_SETTING: str(store) if store else None, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["detect", *map(str, arguments)], env=environment)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode_jpeg(PIXELS, 40))
    return path


def huge_png() -> bytes:
    """The head of a PNG of 60,000 x 60,000 pixels."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_a_person_reads_verdict_probability_kind_error_rate_and_model(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models", fake_thresholds={"64": 1.5})
    result = detect(picture, "--model", model)
    assert (result.exit_code, result.stderr) == (0, "")
    sha256 = card_of(tiny_model())["sha256"]
    assert str(picture) in result.stdout
    for text in (
        "Photograph",
        "Were half of all pictures generated, that share",
        "real ",
        "gan ",
        "stable ",
        "JPEG of quality 40, shorter side 64 pixels",
        "64/q40 (64 pixels, JPEG of quality 40)",
        "called 10.0 % (0.0 to 20.0) of 500 photographs generated",
        "20.0 % (too few for an interval) of 8 generated pictures photographs",
        f"dense, sha256 {sha256[:12]}",
    ):
        assert text in result.stdout
    assert "\x1b" not in result.stdout


def test_verdicts_are_said_in_words(tmp_path: Path, picture: Path) -> None:
    generated = write_model(tmp_path / "a", fake_thresholds={"64": 0.0})
    assert "Generated: " in detect(picture, "--model", generated).stdout
    unknown = write_model(tmp_path / "b", rejection={"score": "energy", "threshold": 1e9, "kept": 0.95})
    assert "Unknown source: " in detect(picture, "--model", unknown).stdout


def test_a_machine_reads_one_object_per_line(tmp_path: Path, picture: Path) -> None:
    result = detect(picture, "--json", picture, "--model", write_model(tmp_path, fake_thresholds={"64": 0.0}))
    assert result.exit_code == 0
    first, second = lines(result)
    assert first == second
    assert list(first) == [
        *("picture", "verdict", "source", "p_fake", "threshold", "probabilities"),
        *("familiarity", "kind", "error_rates", "model"),
    ]
    assert (first["picture"], first["verdict"], first["threshold"]) == (str(picture), "generated", 0.0)
    assert first["source"] == max(("gan", "stable"), key=first["probabilities"].get)
    assert first["p_fake"] == 1 - first["probabilities"]["real"]
    assert first["kind"] == {
        "format": "JPEG",
        "shorter_side": 64,
        "jpeg_quality": 40,
        "tested_as": {"cell": "64/q40", "side": 64, "jpeg_quality": 40},
    }
    assert first["error_rates"]["false_alarms"] == {"value": 0.1, "low": 0.0, "high": 0.2, "n": 500}
    assert first["familiarity"]["score"] == "max-probability"
    assert set(first["familiarity"]["scores"]) == {"max-probability", "energy", "distance"}
    assert first["model"]["bytes"] == len(tiny_model())


def test_what_cannot_be_read_is_one_line_and_the_others_are_answered(tmp_path: Path, picture: Path) -> None:
    bad = {
        "empty.jpg": (b"", "empty"),
        "words.jpg": (b"these are words\n", "unreadable"),
        "cut.jpg": (picture.read_bytes()[:1000], "truncated"),
        "line.png": (encode_png(PIXELS[:1].repeat(50, axis=1)), "too-small"),
        "narrow.png": (encode_png(np.zeros((3000, 9, 3), dtype=np.uint8)), "too-narrow"),
        "huge.png": (huge_png(), "too-large"),
    }
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "sparse.bmp").touch()
    os.truncate(tmp_path / "sparse.bmp", 2**30 + 1)
    os.mkfifo(tmp_path / "pipe")
    reasons = {name: reason for name, (_, reason) in bad.items()}
    reasons |= {"sparse.bmp": "too-large", "pipe": "not-a-file", ".": "not-a-file", "none.jpg": "not-found"}
    reasons |= {"two\nlines.jpg": "not-found", "x" * 300: "unreadable"}
    names = [tmp_path / name for name in reasons]
    model = write_model(tmp_path / "models")

    result = detect("--json", *names, picture, "--model", model)
    assert result.exit_code == 1
    found = lines(result)
    assert [line["error"]["reason"] for line in found[:-1]] == list(reasons.values())
    assert [line["picture"] for line in found] == [str(path) for path in [*names, picture]]
    assert found[-1]["verdict"] == "photograph"

    result = detect(*names, picture, "--model", model)
    assert result.exit_code == 1
    assert "Photograph" in result.stdout
    said = result.stderr.splitlines()
    assert len(said) == len(reasons)
    assert all(f": {reason}: " in line for line, reason in zip(said, reasons.values(), strict=True))
    assert "Traceback" not in result.output


def test_the_newest_run_that_has_networks_answers_with_its_first(tmp_path: Path, picture: Path) -> None:
    store = LocalStore(tmp_path / "store")
    places = [publish_run(store, "sample", "dense", "a-small"), publish_run(store, "subset", "wide", "narrow")]
    places.append(publish_run(store, "seed"))
    for age, place in enumerate(reversed(places)):
        os.utime(store.path(f"{place}/index.json"), (1e9 - age, 1e9 - age))

    def model(*arguments: str) -> str:
        (line,) = lines(detect(picture, "--json", *arguments, store=store.root))
        return str(line["model"]["name"])

    assert model() == "wide"
    assert model("--experiment", "sample") == "dense"
    assert model("--experiment", "sample", "--network", "a-small") == "a-small"


def refused(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def test_a_run_or_a_network_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, picture: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert "make demo" in refused(detect(picture, store=store.root))
    publish_run(store, "seed")
    assert "a run with networks" in refused(detect(picture, store=store.root))
    assert "'seed' has none" in refused(detect(picture, "--experiment", "seed", store=store.root))
    publish_run(store, "sample", "dense", "small")
    assert "only of ['sample', 'seed']" in refused(detect(picture, "--experiment", "coco", store=store.root))
    assert "only dense, small" in refused(detect(picture, "--network", "../dense", store=store.root))
    assert "expected a path" in refused(detect(picture, store=Path("ftp://host")))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    assert "an exported network at" in refused(detect(picture, "--model", tmp_path / "none.onnx"))
    model.write_bytes(tiny_model()[:-1])
    assert "damaged" in refused(detect(picture, "--model", model))
    model.with_suffix(".json").write_text(json.dumps(card_of(b"words")))
    model.write_bytes(b"words")
    assert "cannot be opened as an ONNX model" in refused(detect(picture, "--model", model))
    model.with_suffix(".json").write_text("{}")
    assert "not the card of an evaluated network" in refused(detect(picture, "--model", model))
    model.with_suffix(".json").unlink()
    assert "its card at" in refused(detect(picture, "--model", model))


def test_a_wrong_command_is_refused(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    assert "Missing argument" in refused(detect())
    assert "--model names a file" in refused(detect(picture, "--model", model, "--network", "dense"))
    assert "--fast" in refused(detect(picture, "--fast"))


def test_a_process_answers_without_torch_or_prefect(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    listing = (
        "import atexit, sys, runpy\n"
        "heavy = {'torch', 'torchvision', 'prefect', 'onnx', 'sklearn', 'scipy', 'polars', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "runpy.run_module('deployments.cli', run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-c", listing, "detect", picture, "--json", "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["verdict"] == "photograph"


def test_a_process_ends_with_its_status_whatever_the_terminals_encoding(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    named = picture.rename(tmp_path / "Straße\u202e.jpg")
    command = [sys.executable, "-m", "deployments.cli", "detect", named, tmp_path / "none.jpg", "--model", model]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{tmp_path}/none.jpg: not-found: no such file"]
    assert "Stra\\xdfe\\ufffd.jpg" in done.stdout
    assert "Photograph" in done.stdout


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["telltale"] == f"{main.__module__}:{main.__name__}"


def test_the_readme_names_the_keys_and_options_that_there_are(tmp_path: Path, picture: Path) -> None:
    readme = (ROOT / "README.md").read_text().split("## Check a picture")[1].split("\n## ")[0]
    (line,) = lines(detect("--json", picture, "--model", write_model(tmp_path / "models")))
    for key in (*line, "error", "reason", "detail"):
        assert f"`{key}`" in readme
    described = CliRunner().invoke(app, ["detect", "--help"], env={"COLUMNS": "200"}).stdout
    for option in re.findall(r"--[a-z]+", readme):
        assert option in described
