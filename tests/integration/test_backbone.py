"""An experiment on somebody else's models, from its document to the report: an SVM and a logistic regression."""

from pathlib import Path

import pytest

from flows import publish as publishing
from flows.evaluate import Evaluation
from flows.publish import publish
from storage.objects import read_part
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.presets import load_experiment
from tasks.report.run import HTML
from tests.integration.computed_plans import computed_here, table
from tests.integration.small_sample import WITHOUT_NETWORKS
from tests.unit.tiny_backbones import SIDE, onnx_model, saved_model

INPUT = {"side": SIDE, "resize": "stretch", "filter": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
TITLES = {
    "clip-svm": "SVM on backbone-clip-pooled-32, fitted on uncompressed pictures",
    "clip-logit": "logistic regression on backbone-clip-pooled-32, fitted on uncompressed pictures",
    "onnx-logit": "logistic regression on backbone-own.onnx-pooled-32, fitted on uncompressed pictures",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("backbone")))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    saved_model(folder / "clip", "clip")
    (folder / "own.onnx").write_bytes(onnx_model())
    return folder


@pytest.fixture(scope="module")
def evaluation(store: Store, models: Path) -> Evaluation:
    clip = {"kind": "backbone", "library": "transformers", "model": "${MODELS}/clip", "input": INPUT}
    onnx = {"kind": "backbone", "library": "onnx", "model": "${MODELS}/own.onnx", "input": INPUT}
    overrides = WITHOUT_NETWORKS | {
        "detectors": [
            {"kind": "linear", "name": "plain"},
            {"kind": "linear", "name": "clip-svm", "extractor": clip},
            {"kind": "linear", "name": "clip-logit", "extractor": clip, "loss": "logistic"},
            {"kind": "linear", "name": "onnx-logit", "extractor": onnx, "loss": "logistic"},
        ]
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        patch.setenv("MODELS", str(models))
        patch.setattr(publishing, "_show", lambda *_: None)  # no server listens
        experiment = load_experiment("sample", overrides)
        found = computed_here(experiment, store)
        publish(experiment, found.report, found.explorer, found.results, found.networks)
        return found


def test_every_detector_is_in_every_cell(store: Store, evaluation: Evaluation) -> None:
    aurocs = table(store, evaluation, "results").filter(protocol="fair", metric="auroc", mix="combined")
    for detector in ("plain", *TITLES):
        of_it = aurocs.filter(detector=detector)
        assert set(of_it.select("resolution", "perturbation").iter_rows()) == {("64", "none"), ("64", "q20")}
        assert of_it["value"].is_between(0, 1).all()
    # Unequal machines on equal features, and equal machines on unequal ones.
    by_detector = [tuple(aurocs.filter(detector=detector)["value"]) for detector in TITLES]
    assert len(set(by_detector)) == len(TITLES)


def test_the_report_says_which_machine_is_fitted_on_which_features(store: Store, evaluation: Evaluation) -> None:
    page = read_part(store, evaluation.report, HTML).decode()
    for title in TITLES.values():
        assert title in page


def test_machines_on_the_same_model_share_its_features_and_its_one_copy(store: Store, evaluation: Evaluation) -> None:
    def made(step: str) -> set[str]:
        return {
            "/".join(key.split("/")[:-1]) for key in store.list(f"objects/{step}/") if key.endswith("/manifest.json")
        }

    assert (len(made("weights/transformers")), len(made("files"))) == (1, 1)
    names = {place.split("/")[2] for place in made("embed")}
    assert len([name for name in names if name.startswith("backbone-")]) == 2


def test_no_features_heads_or_scores_depend_on_where_a_model_lies(
    store: Store, evaluation: Evaluation, models: Path
) -> None:
    steps = ("weights", "files", "embed", "train", "score", "evaluate-cell")
    manifests = [key for step in steps for key in store.list(f"objects/{step}/") if key.endswith("/manifest.json")]
    assert len(manifests) > 20
    for key in manifests:
        text = store.read(key).decode()
        assert str(models) not in text
        assert "${MODELS}" not in text
