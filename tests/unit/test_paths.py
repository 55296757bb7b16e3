"""`~` is a home folder and a relative path counts from the working directory, wherever a path is taken."""

import os
from pathlib import Path
from typing import Any

import pytest

from deployments import home_folder
from deployments.detect import local_model
from deployments.picture_list import read_picture
from flows.publish_mobile import app_folder
from storage.errors import BadImage, MissingInput, SpecError, StoreRefused
from storage.local import LocalStore
from storage.opening import open_store, store_url
from storage.paths import absolute, with_home
from tasks.cache import cache_folder
from tasks.data.sources.column import ColumnSource, unlocated_column
from tasks.data.sources.diffusion import DiffusionSource
from tasks.data.sources.folder import FolderSource, unlocated
from tasks.facts import as_json
from tasks.features.vgg16 import Vgg16Spec
from tasks.generators.diffusion import check_pipeline
from tasks.presets import load_experiment
from tasks.spec.base import OWN_WORDS, Spec, on_this_machine, path_fields
from tasks.spec.detectors import FineTuned
from tasks.spec.experiment import Experiment
from tasks.spec.generators import DiffusionSpec
from tasks.variables import located


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "person"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in [name for name in os.environ if name.startswith("TELLTALE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("text", ["a/~", "./~/a", "a~b", "random:0", "https://host/~me/a", "", "a//b"])
def test_only_a_leading_tilde_stands_for_a_home_folder(text: str) -> None:
    assert with_home(text) == text


def test_a_leading_tilde_is_the_home_folder(home: Path, tmp_path: Path) -> None:
    assert with_home("~/a") == f"{home}/a"
    assert with_home("~") == str(home)
    assert absolute("a/../b") == tmp_path.resolve() / "b"
    assert absolute("~/a") == home.resolve() / "a"


@pytest.mark.parametrize("text", ["~nobody-of-this-name/a", "~nobody-of-this-name", "a\0b"])
def test_an_unknown_user_and_a_null_character_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"nobody-of-this-name|null character"):
        absolute(text)


PATHS = ("coco", "f", "m.csv", "c", "vgg16.safetensors", "mobile.safetensors", "model", "inception.pth")


def document(path: str) -> dict[str, Any]:
    return {
        "name": "e",
        "inception": f"{path}/inception.pth",
        "extractor": {"weights": f"{path}/vgg16.safetensors"},
        "mobile": {"networks": [{"kind": "fine-tuned", "name": "n", "weights": f"{path}/mobile.safetensors"}]},
        "sources": [
            {"kind": "coco", "name": "coco", "directory": f"{path}/coco"},
            {"kind": "folder", "name": "f", "path": f"{path}/f", "metadata": f"{path}/m.csv", "label": "fake"},
            {"kind": "column", "name": "c", "path": f"{path}/c", "column": "image"},
            {"kind": "diffusion", "name": "d", "prompted_by": "coco", "diffusion": {"model": f"{path}/model"}},
        ],
    }


def test_every_path_of_an_experiment_may_begin_with_a_tilde(home: Path) -> None:
    def paths(start: str) -> list[str | None]:
        experiment = Experiment.model_validate(document(start))
        assert experiment.inception is not None
        assert experiment.mobile is not None
        drawn = experiment.sources[3]
        assert isinstance(drawn, DiffusionSource)
        specs: list[Spec] = [*experiment.sources[:3], experiment.extractor, experiment.mobile.networks[0]]
        specs.append(drawn.diffusion)
        here = [on_this_machine(spec) for spec in specs]
        return [getattr(spec, name) for spec in here for name in path_fields(type(spec))] + [
            located(experiment.inception)
        ]

    assert paths("~") == paths(str(home))
    assert paths("~") == [f"{home}/{name}" for name in PATHS]


def test_names_and_addresses_in_the_place_of_paths_stay_as_they_are() -> None:
    for weights in ("imagenet", "random:3", "https://host/~me/w.safetensors", "sha256:00"):
        assert Vgg16Spec(weights=weights).weights == weights
        assert FineTuned(name="n", weights=weights).weights == weights
    assert DiffusionSpec(model="owner/name@0123").model == "owner/name@0123"


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_refused_with_the_field(path: str) -> None:
    with pytest.raises(ValueError, match=r"path\n.*(empty|null character)"):
        FolderSource(name="f", path=path, label="fake")


def test_a_user_whom_only_another_machine_may_know_is_refused_where_the_disk_is_touched() -> None:
    source = FolderSource(name="f", path="~nobody-of-this-name/a", label="fake")
    with pytest.raises(SpecError, match="there is no user"):
        on_this_machine(source)


def test_a_variable_may_hold_a_tilde(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COCO", "PHOTOGRAPHS", "FAKES", "VGG16", "UNSEEN", "SHIFTED"):
        monkeypatch.setenv(f"TELLTALE_{name}", f"~/{name}")
    subset = load_experiment("subset")
    assert on_this_machine(subset.extractor).weights == f"{home}/VGG16"
    (source,) = [source for source in subset.sources if source.name == "imagenet"]
    assert isinstance(source, FolderSource)
    assert on_this_machine(source).path == f"{home}/PHOTOGRAPHS"


def test_an_experiments_file_may_be_named_by_a_tilde(home: Path) -> None:
    (home / "e.yaml").write_text(
        "{name: e, sources: [{kind: folder, name: r, path: ~/r, label: real},"
        " {kind: folder, name: f, path: f, label: fake}]}"
    )
    sources = load_experiment("~/e.yaml").sources
    here = [on_this_machine(source) for source in sources if isinstance(source, FolderSource)]
    assert [source.path for source in here] == [f"{home}/r", "f"]


def test_the_settings_that_name_folders_take_a_tilde(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "STORE", "CACHE", "APP", "COCO"):
        monkeypatch.setenv(f"TELLTALE_{name}", f"~/{name}")
    (home / "COCO").mkdir()
    assert home_folder.home() == home.resolve() / "HOME"
    store = open_store()
    assert isinstance(store, LocalStore)
    assert store.root == home.resolve() / "STORE"
    assert cache_folder() == home.resolve() / "CACHE"
    assert app_folder() == home.resolve() / "APP"
    settings = home_folder.worker_settings()
    for name in ("HOME", "STORE", "CACHE", "APP", "COCO"):
        assert settings[f"TELLTALE_{name}"] == str(home.resolve() / name)


def test_workers_get_absolute_paths_of_folders_that_are_yet_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_CACHE", "cache")
    assert home_folder.worker_settings()["TELLTALE_CACHE"] == str(tmp_path.resolve() / "cache")


def test_a_number_that_is_also_a_files_name_stays_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"THREADS": "4", "GPU_HOUR_PRICE": "2.5", "S3_BLOCK": "block"}.items():
        (tmp_path / value).touch()
        monkeypatch.setenv(f"TELLTALE_{name}", value)
        assert home_folder.worker_settings()[f"TELLTALE_{name}"] == value


def test_a_value_that_is_too_long_for_a_path_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELLTALE_PROMPT", "x" * 5000)
    assert home_folder.worker_settings()["TELLTALE_PROMPT"] == "x" * 5000


def test_pictures_and_models_on_the_command_line_take_a_tilde(home: Path) -> None:
    (home / "picture.jpg").write_bytes(b"bytes")
    assert read_picture(Path("~/picture.jpg")) == b"bytes"
    with pytest.raises(BadImage, match="there is no user"):
        read_picture(Path("~nobody-of-this-name/picture.jpg"))
    with pytest.raises(MissingInput, match=f"{home}/none.onnx"):
        local_model(Path("~/none.onnx"))


def test_a_relative_folder_that_is_there_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (line,) = check_pipeline(DiffusionSpec(model="models/mine"))
    assert "no model_index.json" in line
    (tmp_path / "models" / "mine" / "model_index.json").touch()
    assert check_pipeline(DiffusionSpec(model="models/mine")) == []


def test_a_model_that_is_neither_a_folder_nor_a_hub_id_is_one_sentence() -> None:
    (line,) = check_pipeline(DiffusionSpec(model="a/b/c"))
    assert "'a/b/c'" in line


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TELLTALE_CACHE", "file/cache")
    with pytest.raises(SpecError, match=r"TELLTALE_CACHE: the folder .*file/cache cannot be made"):
        cache_folder()


@pytest.mark.parametrize("store", ["file", "file/below/it"])
def test_a_store_where_a_file_lies_is_refused(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefused, match=r"TELLTALE_STORE: expected a folder, .*/file is a file"):
        open_store(store)


def test_a_source_without_its_path_is_read_back_where_telltale_itself_wrote_it() -> None:
    sources = [
        unlocated(FolderSource(name="f", path="~/f", metadata="m.csv", label="fake")),
        unlocated_column(ColumnSource(name="c", path="~/c", column="image")),
    ]
    for source in sources:
        assert type(source).model_validate(as_json(source), context=OWN_WORDS) == source
        with pytest.raises(ValueError, match="a path is empty"):
            type(source).model_validate(as_json(source))


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, ".telltale/store"),
        ({"TELLTALE_HOME": "/srv/telltale"}, "/srv/telltale/store"),
        ({"TELLTALE_HOME": "/srv/telltale", "TELLTALE_STORE": "s3://bucket"}, "s3://bucket"),
        ({"TELLTALE_HOME": "", "TELLTALE_STORE": ""}, ".telltale/store"),
    ],
)
def test_commands_and_servers_of_one_home_have_one_store(
    settings: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TELLTALE_HOME", "TELLTALE_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert store_url() == address
