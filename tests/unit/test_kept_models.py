"""Diffusion models in the store: they come back file by file, and make the pictures of the folder that they were."""

import shutil
from pathlib import Path

import pytest

from storage.errors import DamagedObject, MissingInput, SpecError
from storage.local import LocalStore
from tasks.brought_files import folder_digest, folder_files
from tasks.brought_models import revision_of
from tasks.generators.diffusion import check_pipeline
from tasks.generators.kept_models import keep_model, local_model, main
from tasks.generators.shards import generate_diffusion, model_digest
from tasks.generators.tiny_model import SHIPPED_WEIGHTS
from tasks.spec.generators import DiffusionSpec
from tests.unit.generated_pictures import assert_same_pictures, diffusion_arguments, photograph, photographs, rows_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "model"
    shutil.copytree(SHIPPED_WEIGHTS, copied)
    (copied / ".cache").mkdir()
    (copied / ".cache" / "hidden").write_text("no part of the model", encoding="utf-8")
    return copied


def kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    main([str(folder)])
    return capsys.readouterr().out.strip()


def test_a_kept_model_comes_back_file_by_file(
    store: LocalStore, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, capsys)
    assert name == f"store:{folder_digest(folder)}"
    assert kept(folder, capsys) == name
    back = Path(local_model(store, name))
    assert {name: path.read_bytes() for name, path in folder_files(back).items()} == {
        name: path.read_bytes() for name, path in folder_files(folder).items()
    }
    assert not list(back.parent.glob("unfinished-*"))
    assert local_model(store, name) == str(back)
    assert local_model(store, "owner/name") == "owner/name"


def test_a_model_is_the_same_recipe_wherever_it_lies_and_makes_the_same_pictures(
    store: LocalStore, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, capsys)
    assert model_digest(name) == model_digest(str(folder))
    rows = [photograph(1, caption="a cat")]
    elsewhere = LocalStore(tmp_path / "elsewhere")
    expected, _ = generate_diffusion.compute(
        elsewhere, **diffusion_arguments(photographs(elsewhere, rows), model=str(folder))
    )
    shutil.rmtree(folder)
    ref, _ = generate_diffusion.compute(store, **diffusion_arguments(photographs(store, rows), model=name))
    assert ref.digest == expected.digest
    assert_same_pictures(rows_of(store, ref), rows_of(elsewhere, expected))


def test_a_model_that_the_store_does_not_have_is_named_with_its_remedy(store: LocalStore) -> None:
    name = f"store:{'0' * 64}"
    with pytest.raises(MissingInput, match="kept_models FOLDER"):
        local_model(store, name)
    (problem,) = check_pipeline(DiffusionSpec(model=name))
    assert "kept_models FOLDER" in problem


def test_a_kept_model_is_found_by_the_preflight(
    store: LocalStore, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_pipeline(DiffusionSpec(model=kept(folder, capsys))) == []


def test_a_damaged_part_leaves_no_folder_behind(
    store: LocalStore, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, capsys)
    weights = max((tmp_path / "store").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedObject):
        local_model(store, name)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_changed_since_it_was_named_is_refused(store: LocalStore, folder: Path) -> None:
    with pytest.raises(SpecError, match="it has changed"):
        keep_model.compute(store, digest="0" * 64, path=str(folder))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"model_index\.json"):
        main([str(tmp_path)])


def test_a_revision_of_the_hub_is_part_of_the_name() -> None:
    assert revision_of("owner/name") == ("owner/name", None)
    assert revision_of("owner/name@0a1b") == ("owner/name", "0a1b")
    assert model_digest("owner/name@0a1b") == "hub:owner/name@0a1b"
