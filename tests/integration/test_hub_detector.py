"""A classifier of transformers from a folder, in every cell of the sample: scored, calibrated, shown."""

import io
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from flows import publish as publishing
from flows.evaluate import Evaluation
from flows.publish import headline_rows, publish
from storage.objects import Ref, finished_objects, read_part, read_table
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.data.pictures import decode_rgb
from tasks.data.views import apply_view
from tasks.presets import load_experiment
from tasks.report.run import HTML, MARKDOWN
from tasks.spec.views import View
from tests.integration.computed_plans import computed_here
from tests.integration.small_sample import WITHOUT_NETWORKS
from tests.unit.tiny_models import INPUT, save_vit

TITLE = "classifier tiny-vit, fake: artificial"
CELLS = {("64", "none"), ("64", "q20")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vit(tmp_path_factory.mktemp("models") / "tiny-vit")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("hub-detector")))


@pytest.fixture(scope="module")
def evaluation(store: Store, folder: Path) -> tuple[Evaluation, str]:
    named = {"kind": "hub", "name": "theirs", "model": str(folder), "fake": ["artificial"], "input": INPUT}
    overrides = WITHOUT_NETWORKS | {"detectors": [{"kind": "linear", "name": "plain"}, named]}
    experiment = load_experiment("sample", overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        patch.setattr(publishing, "_show", lambda *_: None)  # no server listens
        found = computed_here(experiment, store)
        return found, publish(experiment, found.report, found.explorer, found.results, found.networks)


def tables(store: Store, prefix: str) -> pl.DataFrame:
    """The rows of all objects whose places begin so."""
    refs = [Ref.at(place, rows=0, size=0) for place in finished_objects(store) if place.startswith(f"objects/{prefix}")]
    return pl.concat([pl.DataFrame(pl.from_arrow(read_table(store, ref))) for ref in refs])


def test_its_scores_are_transformers_own_answers(
    store: Store, folder: Path, evaluation: tuple[Evaluation, str]
) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", use_safetensors=True)
    network = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True).eval()
    scores = tables(store, "score/calibrated/theirs/fair/64/none").filter(split="test")
    canonical = {(row["source"], row["image_id"]): row["canonical"] for row in tables(store, "canonical").to_dicts()}
    expected = []
    for source, image_id in scores.select("source", "image_id").iter_rows():
        view = apply_view(decode_rgb(canonical[source, image_id]), View(path="fair", resolution=64))
        with torch.no_grad():
            logits = network(**processor(Image.fromarray(view.pixels), return_tensors="pt")).logits[0].double()
        expected.append(float(logits[0] - logits[1]))
    assert len(expected) > 20
    np.testing.assert_allclose(scores["decision"].to_numpy(), expected, rtol=1e-4, atol=1e-4)


def test_it_is_in_the_results_the_grid_and_the_report(store: Store, evaluation: tuple[Evaluation, str]) -> None:
    found, _ = evaluation
    for name in ("results", "grid"):
        of_theirs = pl.read_parquet(io.BytesIO(read_part(store, found.report, f"{name}.parquet"))).filter(
            detector="theirs"
        )
        assert set(of_theirs.select("resolution", "perturbation").iter_rows()) == CELLS, name
    for page in (HTML, MARKDOWN):
        assert TITLE in read_part(store, found.report, page).decode()
    assert {row["detector"] for row in headline_rows(store, found.report)} == {"plain", "theirs"}


def test_its_published_decision_stands_beside_the_calibrated_one(
    store: Store, evaluation: tuple[Evaluation, str]
) -> None:
    results = pl.read_parquet(io.BytesIO(read_part(store, evaluation[0].report, "results.parquet")))
    rules = {
        name: set(results.filter(detector=name, metric="accuracy")["threshold_rule"].drop_nulls())
        for name in ("plain", "theirs")
    }
    assert rules["theirs"] - rules["plain"] == {"published"}


def test_where_its_folder_lies_is_in_no_page_and_in_no_recipe(
    store: Store, folder: Path, evaluation: tuple[Evaluation, str]
) -> None:
    found, _ = evaluation
    for page in (HTML, MARKDOWN):
        assert str(folder.parent) not in read_part(store, found.report, page).decode()
    for place in finished_objects(store):
        assert str(folder.parent) not in store.read(f"{place}/manifest.json").decode(), place


def test_the_same_model_elsewhere_is_found_made(
    store: Store, folder: Path, evaluation: tuple[Evaluation, str], tmp_path: Path
) -> None:
    moved = shutil.copytree(folder, tmp_path / "tiny-vit")
    (moved / "README.md").write_text("moved")
    before = set(finished_objects(store))
    named = {"kind": "hub", "name": "theirs", "model": str(moved), "fake": ["artificial"], "input": INPUT}
    overrides = WITHOUT_NETWORKS | {"detectors": [{"kind": "linear", "name": "plain"}, named]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        computed_here(load_experiment("sample", overrides), store)
    made = {place.split("/")[1] for place in set(finished_objects(store)) - before}
    assert made == set()
