"""Networks and reference pictures are put into the built app, and a first visit stays small."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.app import main
from flows.publish_mobile import app_folder
from storage.digest import sha256_hex
from storage.errors import DamagedObject, MissingInput, SpecError
from tasks.app_files import (
    APP_SETTING,
    complete_app,
    first_visit_bytes,
    network_files,
    picture_files,
    read_app,
    read_networks,
    read_pictures,
    write_app,
)
from tasks.data.pictures import decode_rgb
from tests.unit.built_app import FILES, write_built_app
from tests.unit.published_networks import card_of, tiny_model, write_model


def network(name: str = "dense") -> tuple[bytes, bytes]:
    return tiny_model(), json.dumps(card_of(tiny_model(), name)).encode()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for name in ("dense", "small"):
        write_model(folder, name)
    return folder


def test_the_app_starts_with_the_first_network_and_lists_all(models: Path) -> None:
    files = network_files(read_networks(models, first="small"))
    index = json.loads(files["models/index.json"])
    assert [entry["name"] for entry in index] == ["small", "dense"]
    for entry in index:
        assert len(files[f"models/{entry['file']}"]) == entry["bytes"]
        assert json.loads(files[f"models/{entry['card']}"])["sha256"] == entry["sha256"]


def test_cards_of_before_there_were_words_get_some() -> None:
    model, _ = network("dense")
    card = card_of(model) | {"sources": {"gan": "gan", "photographs": "folder"}}
    files = network_files({"dense": (model, json.dumps(card).encode())})
    (entry,) = json.loads(files["models/index.json"])
    assert json.loads(files[f"models/{entry['card']}"]) == card | {
        "sources": {"gan": "GAN", "stable": "stable", "photographs": "photographs"}
    }


def test_networks_and_cards_that_do_not_belong_together_are_refused() -> None:
    model, card = network()
    with pytest.raises(DamagedObject, match="dense: expected sha256"):
        network_files({"dense": (model + b" ", card)})
    with pytest.raises(SpecError, match="not the card of an evaluated network"):
        network_files({"dense": (model, b"{}")})
    with pytest.raises(SpecError, match="at least one network"):
        network_files({})


def test_missing_files_are_named(tmp_path: Path, models: Path) -> None:
    with pytest.raises(MissingInput, match=r"an exported network\.onnx in"):
        read_networks(tmp_path)
    with pytest.raises(MissingInput, match=r"pruned\.onnx in"):
        read_networks(models, first="pruned")
    (tmp_path / "lonely.onnx").write_bytes(b"")
    with pytest.raises(MissingInput, match=r"the cards lonely\.json in"):
        read_networks(tmp_path)
    with pytest.raises(MissingInput, match="pictures in"):
        read_pictures(tmp_path / "nothing")
    with pytest.raises(MissingInput, match="build it with `make mobile`"):
        read_app(tmp_path)


def test_a_first_visit_fetches_neither_other_networks_nor_the_runtime_for_webgpu() -> None:
    files = complete_app(FILES, {"dense": network(), "small": network("small")})
    index = json.loads(files["models/index.json"])
    left_out = {"assets/runtime.webgpu-9abc.wasm", f"models/{index[1]['file']}"}
    assert first_visit_bytes(files) == sum(len(data) for path, data in files.items() if path not in left_out)
    with pytest.raises(MissingInput, match="networks in the app"):
        first_visit_bytes(FILES)


def test_an_app_that_is_too_large_for_a_first_visit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"more than 25000000: start with a smaller network than dense"):
        complete_app({**FILES, "assets/large.bin": bytes(25_000_000)}, {"dense": network()})


def test_pictures_of_ones_own_replace_those_of_the_app_and_without_any_these_stay(tmp_path: Path) -> None:
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "1.JPG").write_bytes(b"one")
    (tmp_path / "gan" / "notes.txt").write_bytes(b"no picture")
    kept = complete_app(FILES, {"dense": network()})
    assert [path for path in kept if path.startswith("pictures/")] == ["pictures/index.json", "pictures/own.jpg"]
    replaced = complete_app(FILES, {"dense": network()}, read_pictures(tmp_path))
    (entry,) = json.loads(replaced["pictures/index.json"])
    assert entry["label"] == "gan"
    assert replaced[f"pictures/{entry['file']}"] == b"one"
    assert "pictures/own.jpg" not in replaced
    assert json.loads(picture_files(())["pictures/index.json"]) == []


def test_the_apps_own_pictures_are_all_listed_and_can_be_read() -> None:
    folder = Path(__file__).parents[2] / "mobile" / "public" / "pictures"
    index = json.loads((folder / "index.json").read_bytes())
    assert sorted(entry["file"] for entry in index) == sorted(file.name for file in folder.glob("*.jpg"))
    assert [entry["label"] for entry in index] == ["real"] * 7 + ["tiny-diffusion"] * 7
    for entry in index:
        data = (folder / entry["file"]).read_bytes()
        assert sha256_hex(data).startswith(Path(entry["file"]).stem)
        assert min(decode_rgb(data).shape[:2]) >= 64


def test_new_networks_replace_the_old_ones_in_the_folder(tmp_path: Path) -> None:
    app = write_built_app(tmp_path / "dist")
    write_app(app, complete_app(read_app(app), {"dense": network(), "small": network("small")}))
    write_app(app, complete_app(read_app(app), {"small": network("small")}))
    assert [file.suffix for file in sorted((app / "models").iterdir())] == [".json", ".json", ".onnx"]
    assert (app / "pictures" / "own.jpg").is_file()
    assert (app / "index.html").read_bytes() == FILES["index.html"]


def test_the_command_puts_networks_into_the_app_or_says_what_is_missing(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    program = typer.Typer()
    program.command()(main)
    app = write_built_app(tmp_path / "dist")
    monkeypatch.setenv(APP_SETTING, str(app))
    assert app_folder() == app
    done = CliRunner().invoke(program, ["--models", str(models), "--first", "small"])
    assert done.exit_code == 0, done.output
    assert "MB on a first visit" in done.output
    assert json.loads((app / "models" / "index.json").read_bytes())[0]["name"] == "small"
    failed = CliRunner().invoke(program, ["--models", str(models), "--app", str(tmp_path)])
    assert failed.exit_code == 2
    assert "make mobile" in failed.stderr


def test_without_a_setting_the_app_is_the_working_trees_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(APP_SETTING, raising=False)
    assert app_folder() == Path(__file__).parents[2] / "mobile" / "dist"
