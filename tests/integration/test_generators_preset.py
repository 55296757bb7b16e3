"""The preset `generators` on a few pictures of each source: everything that it names works together."""

import os
from pathlib import Path

import polars as pl
import pytest

from storage.opening import open_store
from storage.store import STORE_SETTING
from tasks.presets import load_experiment
from tests.integration.computed_plans import computed_here, table

SHARED = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[3] / "shared"))
VARIABLES = {
    "TELLTALE_COCO": "data/coco",
    "TELLTALE_PHOTOGRAPHS": "data/imagenet",
    "TELLTALE_FAKES": "data/sd14",
    "TELLTALE_GENERATORS": "data/generators",
    "TELLTALE_VGG16": "weights/vgg16_features_imagenet.safetensors",
}
GENERATORS = ("sd14", "sd15", "sd21", "sdxl", "dalle3", "midjourney", "gpt-image-2")
LIMITS = {"coco": 12, "imagenet": 8, "camera": 6} | dict.fromkeys(GENERATORS, 5)
# Whatever learns for hours learns for a moment.
SMALL = {
    **{f"sources.{name}.limit": limit for name, limit in LIMITS.items()},
    "qualities": [None],
    "augmented_qualities": [None],
    "extractor.side": 32,
    "splits.count": 3,
    "control_repeats": 2,
    "bootstrap_resamples": 100,
    "audited": [],
    "mobile.networks.residual-median.width": 0.25,
    "mobile.networks.residual-median.left_out": False,
    "mobile.networks.residual-median.training.epochs": 1,
    "mobile.networks.residual-median.training.random_windows": 32,
    "mobile.networks.residual-narrow.training.epochs": 1,
    "mobile.networks.residual-int8.calibration_pictures": 8,
}


@pytest.mark.skipif(not (SHARED / "data" / "generators").is_dir(), reason="there are no pictures of generators here")
def test_every_detector_says_something_of_every_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in VARIABLES.items():
        monkeypatch.setenv(name, str(SHARED / place))
    monkeypatch.setenv(STORE_SETTING, str(tmp_path))
    store = open_store()
    experiment = load_experiment("generators", SMALL)
    found = computed_here(experiment, store)
    results = table(store, found, "results").filter(pl.col("without").is_null(), metric="auroc")
    networks = ("residual-median", "residual-narrow", "residual-int8")
    for detector in (*(one.name for one in experiment.all_detectors), *networks):
        mixes = set(results.filter(protocol="fair", detector=detector, perturbation="none")["mix"])
        assert mixes == {mix.name for mix in experiment.all_mixes}, detector
    assert set(found.networks) == set(networks)
