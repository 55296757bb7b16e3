"""Models of the hub and in folders: which files are read, which never, and what is said where there is none."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from storage.errors import MissingInput, SpecError
from tasks.hub_models import cached_files, check_model, model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(folder: Path, *weights: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", *weights):
        (folder / name).write_text(f"{name} of {folder.name}")
    return folder


def sharded(folder: Path, *shards: str, there: tuple[str, ...]) -> Path:
    model(folder, *there)
    index = {"weight_map": {f"layer{number}": name for number, name in enumerate(shards)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with a model in it, and no network."""
    snapshot = tmp_path / "hub" / "models--owner--tiny" / "snapshots" / COMMIT
    model(snapshot, "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_of_a_folder_configuration_and_safetensors_are_read_and_nothing_else(tmp_path: Path) -> None:
    folder = model(tmp_path / "clip", "model.safetensors", "pytorch_model.bin", "README.md", "modeling_clip.py")
    files, commit = model_files(str(folder))
    assert files == {name: folder / name for name in ("config.json", "model.safetensors")}
    assert commit is None
    assert check_model(str(folder)) == []


def test_weights_in_several_files_are_those_of_their_index(tmp_path: Path) -> None:
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    folder = sharded(tmp_path / "large", *names, there=(*names, "model-00003-of-00003.safetensors"))
    assert list(model_files(str(folder))[0]) == ["config.json", "model.safetensors.index.json", *names]
    (folder / names[1]).unlink()
    with pytest.raises(MissingInput, match=f"names {names[1]}, which is not there; copy the whole model"):
        model_files(str(folder))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "pytorch_model.bin", 3])
def test_an_index_names_safetensors_beside_it_alone(tmp_path: Path, name: str) -> None:
    folder = sharded(tmp_path / "odd", name, there=())
    with pytest.raises(SpecError, match="expected names of safetensors files beside it"):
        model_files(str(folder))


def test_weights_in_pickles_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = model(tmp_path / "old", "pytorch_model.bin")
    (line,) = check_model(str(folder))
    assert "it has no model.safetensors, only pytorch_model.bin, and pickles are not read; save it with" in line
    with pytest.raises(SpecError, match="pickles are not read"):
        model_files(str(folder))


def test_a_folder_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", str(tmp_path))
    (line,) = check_model("${MODELS}/clip")
    assert line.startswith(f"the model {tmp_path}/clip: no such folder")
    (tmp_path / "clip").mkdir()
    (line,) = check_model("${MODELS}/clip")
    assert "it has no config.json" in line


def test_a_model_of_the_hub_is_taken_from_its_cache_where_there_is_no_network(hub_cache: Path) -> None:
    files, commit = model_files("owner/tiny")
    assert commit == COMMIT
    assert files == cached_files("owner/tiny") == {n: hub_cache / n for n in ("config.json", "model.safetensors")}
    assert model_files(f"owner/tiny@{COMMIT}") == (files, COMMIT)
    assert check_model("owner/tiny") == []


def test_a_folder_of_the_working_directory_does_not_stand_for_a_model_of_the_hub(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "owner" / "tiny", "model.safetensors")
    assert model_files("owner/tiny")[1] == COMMIT
    assert model_files("./owner/tiny")[1] is None


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("owner/other", "`hf download owner/other`"),
        ("owner/tiny@v2", "`hf download owner/tiny --revision v2`"),
        ("owner/tiny/too/deep", "`hf download owner/tiny/too/deep`"),
    ],
)
def test_a_model_that_is_neither_in_the_cache_nor_reached_is_said_within_seconds(name: str, command: str) -> None:
    started = time.monotonic()
    (line,) = check_model(name)
    assert time.monotonic() - started < 6
    assert line.startswith(f"the model {name} of the hub: ")
    assert f"download it with {command} where there is a network, or name a folder by a path" in line
    with pytest.raises(MissingInput, match="download it with"):
        model_files(name)


def test_a_download_that_was_broken_off_is_not_taken_for_a_model(hub_cache: Path) -> None:
    (hub_cache / "model.safetensors").unlink()
    assert cached_files("owner/tiny") is None
    assert len(check_model("owner/tiny")) == 1


def test_a_hub_that_has_pickles_alone_is_asked_before_any_download(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def siblings(*names: str) -> None:
        class Api:
            def model_info(self, name: str, *, revision: str | None, timeout: float) -> object:
                files = [type("File", (), {"rfilename": each}) for each in names]
                return type("Model", (), {"siblings": files})

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)

    shutil.rmtree(hub_cache)
    siblings("config.json", "pytorch_model.bin")
    assert "only pytorch_model.bin, and pickles are not read" in check_model("owner/tiny")[0]
    siblings("config.json", "model.safetensors")
    assert check_model("owner/tiny") == []
    siblings("model.safetensors")
    assert "it has no config.json" in check_model("owner/tiny")[0]


def test_a_hub_that_does_not_answer_is_not_waited_for(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from tasks import hub_models

    end = threading.Event()
    monkeypatch.setattr(hub_models, "ANSWER_WITHIN_S", 0.05)
    monkeypatch.setattr(hub_models, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(hub_models, "_problem_on_hub", lambda model: end.wait(60) and None)
    (line,) = check_model("owner/other")
    end.set()
    assert "no answer within" in line
