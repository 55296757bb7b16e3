"""Backbones: features of somebody else's image model, as declared, and the same on every worker."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from benchmarks.made_up import needs, preset
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import notes_of
from storage.tables import embedding_matrix, read_features
from tasks.detectors.linear import Linear
from tasks.elements import element_of
from tasks.facts import library_version
from tasks.features.kinds import ExtractorSpec
from tasks.planning import Finished, Plan
from tasks.recipe import planned_by
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tests.unit.backbone_models import INPUT, brought, described, entered, opened, pictures, spec
from tests.unit.embedded_shards import CANONICAL, FAIR, RAW, embed, jpeg, seven_pictures, shard
from tests.unit.local_hub import LocalHub, local_hub
from tests.unit.tiny_backbones import KINDS, SIDE, onnx_kernel, onnx_model, saved_model, transformers_model
from tests.unit.user_pages import DETECTORS


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_features_are_called_by_what_people_want_to_tell_apart() -> None:
    assert spec(model="mobilenet_v2").name == "backbone-mobilenet-v2-pooled-32"
    assert spec(output="layer3.0").name == "backbone-resnet18-layer3.0-32"
    assert spec("transformers", "openai/CLIP@main", output=-2).name == "backbone-clip-main-hidden-minus-2-32"
    assert spec("onnx", "${MODELS}/a b.onnx").name == "backbone-a-b.onnx-pooled-32"


def test_onnx_files_are_computed_on_cpus_and_networks_of_torch_where_the_gpus_are() -> None:
    assert spec("onnx", "/a.onnx").pool == "cpu"
    assert spec().pool == spec("transformers", "/a").pool == "gpu"


def test_the_example_of_the_page_on_detectors_is_read() -> None:
    page = DETECTORS.read_text(encoding="utf-8")
    (example,) = (text for text in re.findall(r"```yaml\n(.*?)```", page, flags=re.S) if "kind: backbone" in text)
    _, clip = preset("sample", yaml.safe_load(example)).all_detectors[:2]
    assert isinstance(clip, Linear)
    assert clip.title == (
        "logistic regression on backbone-clip-vit-large-patch14-pooled-224, fitted on uncompressed pictures"
    )


# What is taken of a network.


@pytest.mark.parametrize("kind", KINDS)
def test_a_transformers_model_gives_what_the_model_itself_says(kind: str, store: LocalStore, tmp_path: Path) -> None:
    import torch

    folder = saved_model(tmp_path / kind, kind)
    pooled = "pooled" if kind != "vit-classifier" else "layernorm"
    named = spec("transformers", folder, output=pooled, tokens="first")
    found = described(opened(store, named), pictures())
    model = transformers_model(kind)
    model = getattr(model, "vision_model", getattr(model, "vit", model))
    with torch.inference_mode():
        said = model(pixel_values=entered(named, pictures()))
    expected = said.last_hidden_state[:, 0] if kind == "vit-classifier" else said.pooler_output.flatten(1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert found.std(axis=0).max() > 0


@pytest.mark.parametrize("tokens", ["mean", "first"])
@pytest.mark.parametrize("output", [0, 2, -1])
def test_a_number_is_a_hidden_state(output: int, tokens: str, store: LocalStore, tmp_path: Path) -> None:
    import torch

    named = spec("transformers", saved_model(tmp_path / "clip", "clip"), output=output, tokens=tokens)
    found = described(opened(store, named), pictures())
    with torch.inference_mode():
        model = transformers_model("clip").vision_model
        states = model(pixel_values=entered(named, pictures()), output_hidden_states=True).hidden_states[output]
    expected = states.mean(1) if tokens == "mean" else states[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_maps_are_averaged_over_their_places(store: LocalStore, tmp_path: Path) -> None:
    import torch

    named = spec("transformers", saved_model(tmp_path / "resnet", "resnet"), output="encoder.stages.1")
    found = described(opened(store, named), pictures())
    kept: list[Any] = []
    model = transformers_model("resnet")
    model.encoder.stages[1].register_forward_hook(lambda module, given, output: kept.append(output))
    with torch.inference_mode():
        model(pixel_values=entered(named, pictures()))
    assert kept[0].ndim == 4
    np.testing.assert_allclose(found, kept[0].mean((2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "output", "dimension"),
    [
        ("resnet18", "pooled", 512),
        ("resnet18", "layer2", 128),
        ("mobilenet_v3_small", "pooled", 576),
        ("squeezenet1_1", "pooled", 512),
        ("regnet_x_400mf", "pooled", 400),
        ("swin_t", "pooled", 768),
        ("swin_t", "features.3", 192),
    ],
)
def test_a_torchvision_model_gives_what_its_last_layer_reads_or_what_a_layer_says(
    model: str, output: str, dimension: int, store: LocalStore, tmp_path: Path
) -> None:
    define_missing_torchvision_schemas()
    import torch
    from safetensors.torch import save_file
    from torchvision import models

    network = models.get_model(model).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    last = model == "swin_t" and output != "pooled"
    maps = {"maps": "channels-last"} if last else {}
    named = spec(model=model, output=output, weights=str(tmp_path / "weights.safetensors"), **maps)
    extractor = opened(store, named)
    found = described(extractor, pictures(3))
    assert (extractor.dimension, found.shape) == (dimension, (3, dimension))
    kept: list[Any] = []
    if output == "pooled":
        list(network.children())[-1].register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    else:
        network.get_submodule(output).register_forward_hook(lambda module, given, made: kept.append(made))
    with torch.inference_mode():
        network(entered(named, pictures(3)))
    expected = kept[0].mean((1, 2) if last else (2, 3)) if kept[0].ndim == 4 else kept[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("output", ["pooled", "maps"])
@pytest.mark.parametrize(("side", "count"), [("side", "count"), (SIDE, 1)])
def test_an_onnx_file_gives_the_output_that_is_named(
    output: str, channels_last: bool, side: int | str, count: int | str, store: LocalStore, tmp_path: Path
) -> None:
    import torch

    model = onnx_model(side, count=count, channels_last=channels_last)
    (tmp_path / "tiny.onnx").write_bytes(model)
    layout = "channels-last" if channels_last else "channels-first"
    named = spec("onnx", tmp_path / "tiny.onnx", output=output, input=INPUT | {"layout": layout})
    found = described(opened(store, named), pictures())
    maps = torch.nn.functional.conv2d(entered(named, pictures()), torch.from_numpy(onnx_kernel()), padding=1)
    expected = torch.relu(maps).mean((2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("library", ["torchvision", "transformers", "onnx"])
def test_a_pictures_features_do_not_depend_on_those_beside_it(library: str, store: LocalStore, tmp_path: Path) -> None:
    if library == "onnx":
        (tmp_path / "model").write_bytes(onnx_model())
    elif library == "transformers":
        saved_model(tmp_path / "model", "siglip")
    named = spec(library, "resnet18" if library == "torchvision" else tmp_path / "model")
    extractor = opened(store, named)
    together = described(extractor, pictures())
    alone = np.concatenate([described(extractor, [each]) for each in pictures()])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5 * np.abs(alone).max())


def test_pictures_of_any_size_go_one_by_one(store: LocalStore) -> None:
    free = INPUT | {"side": None, "resize": "none"}
    extractor = opened(store, spec(input=free))
    different = [pictures(1, side)[0] for side in (40, 64, 33)]
    together = described(extractor, different)
    assert together.shape == (3, 512)
    np.testing.assert_allclose(together[2:], described(extractor, different[2:]), rtol=1e-5, atol=1e-6)


def test_tasks_of_one_process_share_a_network_and_stop_at_a_layer_side_by_side(
    store: LocalStore, tmp_path: Path
) -> None:
    named = spec("transformers", saved_model(tmp_path / "vit", "vit"), output="layers.1")
    first, second = opened(store, named), opened(store, named)
    assert first.embed is second.embed
    one_by_one = [described(first, [each]) for each in pictures(8)]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(lambda each: described(second, [each]), pictures(8)))
    np.testing.assert_array_equal(np.concatenate(at_once), np.concatenate(one_by_one))


def test_random_weights_are_those_of_their_seed(store: LocalStore) -> None:
    found = {seed: described(opened(store, spec(weights=f"random:{seed}")), pictures(2)) for seed in (0, 1)}
    again = spec(weights="random:0", batch=3)  # another network in memory
    np.testing.assert_array_equal(described(opened(store, again), pictures(2)), found[0])
    assert not np.allclose(found[0], found[1])


def test_a_backbone_describes_a_shard_by_the_step_that_all_share(store: LocalStore, tmp_path: Path) -> None:
    named = spec("transformers", saved_model(tmp_path / "clip", "clip"), batch=2)
    weights, images = brought(store, named), shard(store, seven_pictures())
    ref, _ = embed(store, images, (FAIR, RAW), extractor=named.keyed(), weights=weights)
    place = f"objects/embed/{named.keyed().name}/{FAIR.name}/coco-00003"
    assert ref.uri.startswith(place)
    assert notes_of(store, ref)["dimension"] == 24
    (raw,) = embed(store, images, (RAW,), extractor=named.keyed(), weights=weights)
    from tasks.data.views import make_views

    pixels = make_views(jpeg(64, 1), "image-1", (RAW,), CANONICAL)[RAW].pixels
    expected = described(opened(store, named), [pixels])[0]
    found = embedding_matrix(read_features(store, (raw,)))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Models are known by their content.


def test_a_recipe_names_a_model_by_its_content_wherever_it_lies(tmp_path: Path, store: LocalStore) -> None:
    one = saved_model(tmp_path / "one", "clip")
    shutil.copytree(one, tmp_path / "two")
    (tmp_path / "two" / "README.md").write_text("decides nothing")
    keyed = [spec("transformers", folder).keyed() for folder in (one, tmp_path / "two")]
    assert keyed[0] == keyed[1]
    assert str(tmp_path) not in keyed[0].model_dump_json()
    assert keyed[0].library_version == library_version("transformers")
    config = tmp_path / "two" / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-05', '"layer_norm_eps": 1e-04'))
    changed = spec("transformers", tmp_path / "two").keyed()
    assert changed.weights != keyed[0].weights
    assert TypeAdapter(ExtractorSpec).validate_python(changed.model_dump(mode="json")) == changed


def test_a_single_file_goes_by_its_own_sha256(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "tiny.onnx").write_bytes(onnx_model())
    keyed = spec("onnx", tmp_path / "tiny.onnx").keyed()
    assert keyed.model == keyed.weights == f"sha256:{hashlib.sha256(onnx_model()).hexdigest()}"
    assert keyed.name == f"backbone-{keyed.model[7:19]}-pooled-32"
    assert spec().keyed() == spec()


@pytest.mark.parametrize("library", ["onnx", "torchvision", "transformers"])
def test_a_file_that_changes_between_planning_and_bringing_is_refused(
    library: str, tmp_path: Path, store: LocalStore
) -> None:
    (tmp_path / "tiny").write_bytes(onnx_model())
    named = spec("onnx", tmp_path / "tiny")
    if library == "torchvision":
        named = spec(weights=str(tmp_path / "tiny"))
    elif library == "transformers":
        named = spec("transformers", saved_model(tmp_path / "clip", "clip"))
    plan = Plan(Finished(store), needs)
    with planned_by(plan):
        named.import_weights()
    (element,) = plan.take_ready()
    changed = tmp_path / ("clip/config.json" if library == "transformers" else "tiny")
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(SpecError, match="changed"):
        element.step.compute(store, **element.arguments)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.mark.parametrize("name", ["owner/tiny", "owner/tiny@{commit}", "${TINY}"])
def test_a_model_of_the_hub_is_fetched_at_the_commit_that_was_planned_with(
    name: str, hub: LocalHub, store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = hub.publish("owner/tiny", saved_model(tmp_path / "clip", "clip"))
    monkeypatch.setenv("TINY", "owner/tiny@main")
    named = spec("transformers", name.format(commit=commit) if "commit" in name else name)
    assert named.missing() == []
    assert not [path for path in hub.asked if path.startswith("GET") and path.endswith(".safetensors")]
    keyed = named.keyed()
    assert (keyed.model, keyed.name) == ("owner/tiny", "backbone-tiny-pooled-32")
    plan = Plan(Finished(store), needs)
    with planned_by(plan):
        named.import_weights()
        (element,) = plan.take_ready()
        assert element.arguments["path"] == f"owner/tiny@{commit}"
        assert element.step.pool(**element.arguments) == "gpu"
        assert element_of(element.document()).document() == element.document()
    ref, _ = element.step.compute(store, **element.arguments)
    found = described(keyed.load(store, ref, "cpu"), pictures())
    folder = spec("transformers", tmp_path / "clip")
    assert folder.keyed().weights == keyed.weights
    np.testing.assert_array_equal(found, described(opened(store, folder), pictures()))
    hub.publish("owner/tiny", saved_model(tmp_path / "newer", "dinov2"))
    assert (named.keyed() == keyed) == ("commit" in name)


def test_what_a_model_of_the_hub_cannot_do_is_said_before_its_weights_come(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("owner/tiny", saved_model(tmp_path / "clip", "clip"))
    assert "it has no layer 'head'" in spec("transformers", "owner/tiny", output="head").missing()[0]
    assert "hf download owner/other" in spec("transformers", "owner/other").missing()[0]
    assert not [path for path in hub.asked if path.startswith("GET") and path.endswith(".safetensors")]
