"""`telltale detect`: answers for people and machines, one clear line for what cannot be read, and its exit status."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import http.server
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app, main
from storage.local import LocalStore
from storage.store import STORE_SETTING
from tasks.data.encoding import encode_jpeg, encode_png
from tests.unit.published_networks import card_of, publish_run, tiny_model, write_model

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)


# What asks the store for a network; without it the network of telltale answers.
NAMED = ["--network", "dense"]


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
    model = write_model(tmp_path / "models", fake_thresholds={"64": 1.0})
    result = detect(picture, "--model", model)
    assert (result.exit_code, result.stderr) == (0, "")
    sha256 = card_of(tiny_model())["sha256"]
    assert str(picture) in result.stdout
    for text in (
        "Photograph",
        "Were half of all pictures generated, that share",
        "real ",
        "GAN ",
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
    assert "Cannot tell: it is unlike the pictures" in detect(picture, "--model", unknown).stdout


def test_a_network_of_random_weights_is_called_a_demonstration(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path)
    assert "demonstration" not in detect(picture, "--model", model).stdout
    assert lines(detect(picture, "--json", "--model", model))[0]["model"]["demonstration"] is False
    card = json.loads(model.with_suffix(".json").read_bytes()) | {"about": {"weights": "random:0"}}
    model.with_suffix(".json").write_text(json.dumps(card))
    said = detect(picture, "--model", model).stdout
    assert "demonstration" in said
    assert "dense, a demonstration" in said
    assert lines(detect(picture, "--json", "--model", model))[0]["model"]["demonstration"] is True


def test_a_machine_reads_one_object_per_line(tmp_path: Path, picture: Path) -> None:
    result = detect(picture, "--json", picture, "--model", write_model(tmp_path, fake_thresholds={"64": 0.0}))
    assert result.exit_code == 0
    first, second = lines(result)
    assert first == second
    assert list(first) == [
        *("picture", "verdict", "reason", "source", "source_name", "p_fake", "threshold", "photograph_threshold"),
        *("probabilities", "familiarity", "kind", "error_rates", "model", "file_says"),
    ]
    assert (first["picture"], first["verdict"], first["threshold"]) == (str(picture), "generated", 0.0)
    assert first["source"] == max(("gan", "stable"), key=first["probabilities"].get)
    assert first["source_name"] == {"gan": "GAN", "stable": "stable"}[first["source"]]
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


def test_what_the_file_says_stands_beside_the_verdict_and_never_changes_it(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    data = picture.read_bytes()
    told = tmp_path / "told.jpg"
    manifest = b"JP\0\x01\0\0\0\x01\0\0\0\x10jumbc2pa digitalsourcetype/trainedAlgorithmicMedia"
    told.write_bytes(data[:2] + b"\xff\xeb" + (len(manifest) + 2).to_bytes(2, "big") + manifest + data[2:])
    plain, other = lines(detect(picture, told, "--json", "--model", model))
    assert plain["file_says"].pop("in_words")[0].startswith("Nothing of its origin")
    assert plain["file_says"] == {"c2pa": False, "digital_source_type": None, "generator_texts": [], "camera": None}
    said = other.pop("file_says")
    assert (said["c2pa"], said["digital_source_type"]) == (True, "trainedAlgorithmicMedia")
    assert len(said["in_words"]) == 2
    del plain["file_says"]
    assert other | {"picture": None} == plain | {"picture": None}
    assert "file says" in (text := detect(told, "--model", model).stdout)
    assert "trainedAlgorithmicMedia" in text


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
    reasons |= {"sparse.bmp": "too-large", "pipe": "not-a-file", "none.jpg": "not-found"}
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


@pytest.fixture
def folder(tmp_path: Path, picture: Path) -> Path:
    """Three pictures, one of them in a folder below, beside what is none."""
    folder = tmp_path / "pictures"
    for name in ("b.jpg", "a.JPEG", "deep/c.png", ".hidden.jpg", "notes.txt", ".git/d.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture.read_bytes())
    (folder / "loop").symlink_to(folder)
    return folder


def test_a_folder_stands_for_its_pictures(tmp_path: Path, folder: Path) -> None:
    model = write_model(tmp_path / "models")
    here = ["a.JPEG", "b.jpg"]
    assert [line["picture"] for line in lines(detect(folder, "--json", "--model", model))] == [
        str(folder / name) for name in here
    ]
    below = lines(detect(folder, "--recursive", "--json", "--model", model))
    assert [line["picture"] for line in below] == [str(folder / name) for name in (*here, "deep/c.png")]


def test_a_folder_without_pictures_is_a_line_and_the_others_are_answered(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    model = write_model(tmp_path / "models")
    result = detect(tmp_path / "empty", picture, "--json", "--model", model)
    assert result.exit_code == 1
    first, second = lines(result)
    assert first["error"]["reason"] == "not-a-file"
    assert "a folder without pictures" in first["error"]["detail"]
    assert second["verdict"] == "photograph"


def test_names_come_from_a_list_or_from_another_program(tmp_path: Path, folder: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + f"{folder}\r\n{picture}\n\n".encode())
    named = [str(folder / "a.JPEG"), str(folder / "b.jpg"), str(picture)]
    options = ["detect", "--json", "--model", str(model), "--files-from"]
    found = CliRunner().invoke(app, [*options, str(tmp_path / "list")])
    assert [line["picture"] for line in lines(found)] == named
    piped = CliRunner().invoke(app, [*options, "-"], input=(tmp_path / "list").read_bytes())
    assert [line["picture"] for line in lines(piped)] == named
    assert "the list" in refused(CliRunner().invoke(app, [*options, str(tmp_path / "nowhere")]))
    assert "not both" in refused(CliRunner().invoke(app, [*options, "-", "-"]))


def test_a_picture_comes_on_the_standard_input(tmp_path: Path, picture: Path) -> None:
    options = ["detect", "-", "--json", "--model", str(write_model(tmp_path / "models"))]
    (line,) = lines(CliRunner().invoke(app, options, input=picture.read_bytes()))
    assert (line["picture"], line["verdict"]) == ("-", "photograph")
    nothing = CliRunner().invoke(app, options, input=b"")
    assert (nothing.exit_code, lines(nothing)[0]["error"]["reason"]) == (1, "empty")


def test_a_spreadsheet_reads_a_head_and_a_line_per_picture(tmp_path: Path, picture: Path) -> None:
    odd = picture.rename(tmp_path / 'a, "b".jpg')
    model = write_model(tmp_path / "models")
    found = detect(odd, tmp_path / "none.jpg", "--csv", "--model", model)
    assert found.exit_code == 1
    first, second = csv.DictReader(io.StringIO(found.stdout))
    (answer,) = lines(detect(odd, "--json", "--model", model))
    assert (first["picture"], first["verdict"], first["error"]) == (str(odd), "photograph", "")
    assert float(first["p_fake"]) == answer["p_fake"]
    assert (second["verdict"], second["error"]) == ("", "not-found: no such file")


def test_a_network_that_is_named_is_of_the_newest_run_that_has_networks_or_of_an_experiment(
    tmp_path: Path, picture: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    places = [publish_run(store, "sample", "dense", "a-small"), publish_run(store, "subset", "wide", "narrow")]
    places.append(publish_run(store, "seed"))
    for age, place in enumerate(reversed(places)):
        os.utime(store.path(f"{place}/index.json"), (1e9 - age, 1e9 - age))

    def model(*arguments: str) -> str:
        (line,) = lines(detect(picture, "--json", *arguments, store=store.root))
        return str(line["model"]["name"])

    assert model("--network", "narrow") == "narrow"
    assert model("--experiment", "sample") == "dense"
    assert model("--experiment", "sample", "--network", "a-small") == "a-small"


def test_without_a_name_the_network_of_telltale_answers_whatever_the_store_holds(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:300, 0:320]
    pixels = (rows + columns)[..., None] // 3 + np.random.default_rng(0).integers(0, 9, (300, 320, 3))
    (tmp_path / "large.png").write_bytes(encode_png(pixels.astype(np.uint8)))
    (tmp_path / "small.png").write_bytes(encode_png(pixels[:250].astype(np.uint8)))
    found = lines(detect(tmp_path / "large.png", "--json", store=tmp_path / "none"))[0]
    assert found["model"]["name"] == "traces"
    assert found["model"]["demonstration"] is False
    assert found["verdict"] in ("photograph", "generated", "cannot-tell")
    assert found["source"] is None
    assert found["photograph_threshold"] < found["threshold"]
    assert found["error_rates"]["missed_unknown"]["n"] > 900
    result = detect(tmp_path / "small.png", tmp_path / "large.png", store=tmp_path / "none")
    assert result.exit_code == 1
    assert "too-small: expected at least 256 pixels a side" in result.stderr
    assert re.search(r"verdict +(Probably|Cannot tell)", result.stdout)
    assert "windows of 256 original pixels" in " ".join(result.stdout.split())


def refused(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def test_a_run_or_a_network_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, picture: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert "telltale evaluate sample" in refused(detect(picture, *NAMED, store=store.root))
    publish_run(store, "seed")
    assert "a run with networks" in refused(detect(picture, *NAMED, store=store.root))
    assert "'seed' has none" in refused(detect(picture, "--experiment", "seed", store=store.root))
    publish_run(store, "sample", "dense", "small")
    assert "only of ['sample', 'seed']" in refused(detect(picture, "--experiment", "coco", store=store.root))
    assert "only dense, small" in refused(detect(picture, "--network", "../dense", store=store.root))
    assert "expected a path" in refused(detect(picture, *NAMED, store=Path("ftp://host")))


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


def test_a_network_that_this_machine_computes_otherwise_says_nothing(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    card = card_of(tiny_model())
    card["self_test"] = card["self_test"] | {"probabilities": card["self_test"]["probabilities"][::-1]}
    model.with_suffix(".json").write_text(json.dumps(card))
    assert "computes other answers with this network than its card says" in refused(detect(picture, "--model", model))


def test_a_wrong_command_is_refused(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    assert "name pictures or folders" in refused(detect("--model", model))
    assert "either --json or --csv" in refused(detect(picture, "--json", "--csv", "--model", model))
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
    command = [sys.executable, "-c", listing, "detect", str(picture), "--json", "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert json.loads(done.stdout)["verdict"] == "photograph"


def test_a_process_ends_with_its_status_whatever_the_terminals_encoding(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    named = picture.rename(tmp_path / "Straße\u202e.jpg")
    command = [
        sys.executable,
        "-m",
        "deployments.cli",
        "detect",
        str(named),
        str(tmp_path / "none.jpg"),
        "--model",
        str(model),
    ]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{tmp_path}/none.jpg: not-found: no such file"]
    assert "Stra\\xdfe\\ufffd.jpg" in done.stdout
    assert "Photograph" in done.stdout


def test_the_console_script_is_this_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["telltale"] == f"{main.__module__}:{main.__name__}"


def test_its_page_names_the_keys_and_options_that_there_are(tmp_path: Path, picture: Path) -> None:
    page = (ROOT / "docs" / "detect.md").read_text(encoding="utf-8")
    (line,) = lines(detect("--json", picture, "--model", write_model(tmp_path / "models")))
    for key in (*line, "error", "reason", "detail"):
        assert f"`{key}`" in page
    described = CliRunner().invoke(app, ["detect", "--help"], env={"COLUMNS": "200"}).stdout
    for option in re.findall(r"--[a-z]+", page):
        assert option in described


def _process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    program: list[str | bytes] = [sys.executable, "-m", "deployments.cli", "detect"]
    command = program + [os.fsencode(str(one)) for one in arguments]
    done: subprocess.CompletedProcess[bytes] = subprocess.run(command, cwd=ROOT, check=False, text=False, **options)
    return done


def test_a_name_that_is_no_utf8_comes_out_as_json_that_every_reader_takes(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    names = [
        os.fsencode(tmp_path) + b"/caf\xe9 \xff.jpg",
        os.fsencode(tmp_path) + "/café \N{GRINNING FACE}.jpg".encode(),
    ]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(picture.read_bytes())
    arguments = [*map(os.fsdecode, names), os.fsdecode(tmp_path / "none") + "\udcff"]
    done = _process(*arguments, "--json", "--model", model, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"")
    first, second, third = map(json.loads, done.stdout.splitlines())
    # A lone surrogate is no character, and strict readers refuse its escape.
    assert b"\\udc" not in done.stdout.replace(b"\\ude00", b"")
    assert first["picture"] == f"{tmp_path}/caf\ufffd \ufffd.jpg"
    assert base64.b64decode(first["picture_bytes"]) == names[0]
    assert second["picture"].encode() == names[1]
    assert "picture_bytes" not in second
    assert third["error"]["reason"] == "not-found"
    assert base64.b64decode(third["picture_bytes"]).endswith(b"/none\xff")


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "POSIX"}],
)
def test_a_name_that_is_no_utf8_is_shown_under_any_locale(
    environment: dict[str, str], tmp_path: Path, picture: Path
) -> None:
    named = picture.rename(tmp_path / "caf\udce9.jpg")
    model = write_model(tmp_path / "models")
    done = _process(named, "no\udcffne.jpg", "--model", model, capture_output=True, env=os.environ | environment)
    assert done.returncode == 1
    assert b"Photograph" in done.stdout
    assert b"not-found: no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(
    options: list[str], unbuffered: str, tmp_path: Path, picture: Path
) -> None:
    model = write_model(tmp_path / "models")
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    try:
        done = _process(
            picture, picture, *options, "--model", model, stdout=writing, stderr=subprocess.PIPE, env=environment
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_the_answers_is_one_sentence(options: list[str], tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models")
    with Path("/dev/full").open("wb") as full:
        done = _process(picture, *options, "--model", model, stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (2, b"error: No space left on device\n")
        # Not even the sentence can be written.
        assert _process(picture, *options, "--model", model, stdout=full, stderr=full).returncode == 2
        assert _process(tmp_path / "none.jpg", "--model", model, stdout=full, stderr=full).returncode == 2
        done = _process("--help", stdout=full, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (2, b"error: No space left on device\n")


@pytest.mark.parametrize("place", ["tasks.networks.answer.answer", "storage.local.LocalStore.read"])
def test_a_full_disk_anywhere_below_is_one_sentence(
    place: str, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    store = LocalStore(tmp_path / "store")
    publish_run(store, "sample", "dense")
    monkeypatch.setattr(place, full)
    monkeypatch.setenv(STORE_SETTING, str(store.root))
    monkeypatch.setattr(sys, "argv", ["telltale", "detect", str(picture), *NAMED])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "No space left on device" in line


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (">&-", 2, b"error: the standard output is closed: an answer could not be written\n"),
        ("--json >&-", 2, b"error: the standard output is closed: an answer could not be written\n"),
        ("--help >&-", 2, b"error: the standard output is closed: an answer could not be written\n"),
        (">&- 2>&-", 2, b""),
        ("2>&-", 0, b""),
    ],
)
def test_an_answer_that_a_closed_output_cannot_take_is_an_error(
    arguments: str, status: int, said: bytes, tmp_path: Path, picture: Path
) -> None:
    model = write_model(tmp_path / "models")
    command = [sys.executable, "-m", "deployments.cli", "detect", str(picture), "--model", str(model)]
    done = subprocess.run(["sh", "-c", f'"$@" {arguments}', "sh", *command], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_card_with_numbers_that_are_none_is_one_sentence(tmp_path: Path, picture: Path) -> None:
    model = write_model(tmp_path / "models", fake_thresholds={"64": float("nan")})
    for options in ([], ["--json"]):
        said = refused(detect(picture, *options, "--model", model))
        assert "decision.fake_thresholds.64: Input should be a finite number" in said
        assert len(said.splitlines()) == 1


def test_a_model_with_other_ends_than_its_card_says_is_one_sentence(tmp_path: Path, picture: Path) -> None:
    import onnx

    model = write_model(tmp_path / "models")
    changed = onnx.load_from_string(tiny_model())
    del changed.graph.output[-1]
    model.write_bytes(changed.SerializeToString())
    card = card_of(tiny_model()) | {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    model.with_suffix(".json").write_text(json.dumps(card))
    said = refused(detect(picture, "--model", model))
    assert "none that telltale exports" in said
    assert len(said.splitlines()) == 1


BUCKET: dict[str, str | None] = {
    STORE_SETTING: "s3://bucket/store",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "https://127.0.0.1:1",
    # Of the machine that tests run on.
    **dict.fromkeys(("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")),
}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:99999", "with a port from 1 to 65535"),
        ("AWS_ENDPOINT_URL", "http://name:hidden@127.0.0.1:port", "check AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:0", "with a port from 1 to 65535"),
        ("AWS_ENDPOINT_URL", "http://[::1", "check AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "check AWS_ENDPOINT_URL"),
        ("AWS_ACCESS_KEY_ID", "hidden\n", "AWS_ACCESS_KEY_ID holds a space, a line break"),
        ("AWS_ACCESS_KEY_ID", "hid\r\nden", "AWS_ACCESS_KEY_ID holds a space, a line break"),
        ("AWS_SECRET_ACCESS_KEY", "hidden ", "AWS_SECRET_ACCESS_KEY holds a space, a line break"),
        ("AWS_SESSION_TOKEN", "hidden\n", "AWS_SESSION_TOKEN holds a space, a line break"),
        (
            "AWS_CA_BUNDLE",
            "/none/ca.pem",
            "/none/ca.pem cannot be read (No such file or directory): check AWS_CA_BUNDLE",
        ),
        ("AWS_CA_BUNDLE", "/", "the file of certificates / cannot be read (Is a directory)"),
        ("AWS_CA_BUNDLE", __file__, "cannot be read (no certificates)"),
        ("REQUESTS_CA_BUNDLE", __file__, "cannot be read (no certificates)"),
    ],
)
def test_what_is_wrong_with_a_buckets_settings_is_one_sentence_at_once(
    name: str, value: str, reason: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.s3.FIRST_PATIENCE_S", 0.0)
    result = CliRunner().invoke(app, ["detect", str(picture), *NAMED], env=BUCKET | {name: value})
    said = refused(result)
    assert reason in said
    assert "hid" not in said
    assert "does not answer" not in said
    assert len(said.splitlines()) == 1


class _Web(http.server.BaseHTTPRequestHandler):
    """A server of pages, or with `missing` an S3 server without the bucket, whose answers to HEAD have no body."""

    missing = False

    def do_GET(self) -> None:
        body = b"<html><body>404</body></html>"
        if self.missing:
            body = b"<?xml version='1.0'?><Error><Code>NoSuchBucket</Code><Message>none</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


class _WithoutBucket(_Web):
    missing = True


@pytest.mark.parametrize("options", [NAMED, ["--experiment", "sample"]])
@pytest.mark.parametrize(
    ("handler", "reason"), [(_Web, "is no bucket (404): check"), (_WithoutBucket, "there is no bucket 'bucket'")]
)
def test_a_store_that_is_not_there_is_not_taken_for_an_empty_one(
    handler: type[_Web], reason: str, options: list[str], picture: Path
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        result = CliRunner().invoke(app, ["detect", str(picture), *options], env=BUCKET | {"AWS_ENDPOINT_URL": address})
        server.shutdown()
    said = refused(result)
    assert reason in said
    assert "evaluate sample" not in said
    assert len(said.splitlines()) == 1


def test_prefect_tells_nobody_that_it_is_asked_for_a_block(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["telltale", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert (os.environ["DO_NOT_TRACK"], os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"]) == ("1", "false")


@pytest.mark.parametrize("model", ["", "/", ".", "folder.onnx", "x" * 300])
def test_a_model_that_is_no_file_is_one_sentence(
    model: str, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    said = refused(detect(picture, f"--model={model}"))
    assert "an exported network at" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        ("s3:/bucket/a", "s3://bucket/prefix"),
        ("s3://bucket/a#b", "neither ? nor #"),
        ("file://host/x", "expected file:///folder"),
        ("c:\\store", "expected a path"),
        ("~nobody-of-this-name/x", "there is no user"),
        ("file", "is a file"),
        ("file/below", "is a file"),
    ],
)
def test_a_store_that_is_none_is_one_sentence(
    store: str, reason: str, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["detect", str(picture), *NAMED], env={STORE_SETTING: store})
    said = refused(result)
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("content", [b'{"a', b"[]", b"\xff"])
def test_a_damaged_list_of_runs_is_one_sentence(content: bytes, tmp_path: Path, picture: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("refs/latest.json", content)
    for options in (NAMED, ["--experiment", "sample"]):
        said = refused(detect(picture, *options, store=store.root))
        assert "refs/latest.json in file:///" in said
        assert len(said.splitlines()) == 1
