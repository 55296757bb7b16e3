"""VGG16 in 8 bits: near the float network, the same bits in every batch, a mode of its own name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import preflight
from storage.digest import digest_of
from storage.errors import SpecError
from storage.objects import ROWS, Ref, commit
from storage.store import LocalStore
from storage.tables import IMAGE_SCHEMA, embedding_matrix, read_features
from storage.weights import read_weights
from tasks.data.pictures import encode_jpeg
from tasks.data.sample import PHOTOGRAPHS, read_photograph
from tasks.detectors import vgg16, vgg16_int8
from tasks.detectors.features import embed_shard
from tasks.detectors.vgg16_int8 import import_int8
from tasks.presets import load_experiment
from tasks.spec import Canonical, Vgg16Spec, View

SHARED = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[3] / "shared"))
CANONICAL = Canonical(side=64, qualities=((90, 1),))


def int8(layer: str = "pool5-avg", side: int | None = 64, batch: int = 16) -> Vgg16Spec:
    return Vgg16Spec.model_validate(
        {"layer": layer, "side": side, "weights": "random:0", "batch": batch, "precision": "int8"}
    )


def exact(spec: Vgg16Spec) -> Vgg16Spec:
    return spec.model_copy(update={"precision": "float32"})


def photographs(side: int = 96) -> list[np.ndarray]:
    """Parts of photographs in which no calibration picture is cut out at this size."""
    return [np.array(read_photograph(name))[20 : 20 + side, 30 : 30 + side] for name in sorted(PHOTOGRAPHS)]


def image_shard(store: LocalStore, count: int) -> Ref:
    """An image shard of photographs of 96 pixels."""
    known = {
        "image": [{"bytes": encode_jpeg(one, 90), "path": None} for one in photographs()[:count]],
        "image_id": [f"image-{index}" for index in range(count)],
        "group_id": [f"group-{index}" for index in range(count)],
        "source": ["photographs"] * count,
        "label": [0] * count,
        "split": ["train"] * count,
        "width": [96] * count,
        "height": [96] * count,
    }
    columns = [pa.array(known.get(field.name, [None] * count), field.type) for field in IMAGE_SCHEMA]
    table = pa.table(columns, schema=IMAGE_SCHEMA)
    return commit(
        store, "objects/shard/x", step="shard", digest="0" * 64, recipe={}, parts={ROWS: table}, notes={}, seconds=0
    )


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of what tells pictures apart: features minus their mean over the pictures."""
    centred = [(features - one.mean(axis=0)).ravel() for features in (one, other)]
    return float(np.corrcoef(*centred)[0, 1])


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return vgg16.random_tensors(int8())


@pytest.fixture(scope="module")
def quantized(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return vgg16_int8.quantize_vgg16(tensors, vgg16_int8.calibration_pictures(int8())[:12])


@pytest.fixture(scope="module")
def network(quantized: dict[str, np.ndarray]) -> vgg16_int8.Int8Vgg16:
    return vgg16_int8.Int8Vgg16(int8(), quantized)


@pytest.fixture(autouse=True)
def one_with_integers() -> None:
    problem = vgg16_int8.check_processor()
    if problem:
        pytest.skip(problem)


def test_weights_are_stored_as_integers_with_a_scale_per_channel(tensors, quantized) -> None:
    for index, (outputs, inputs) in vgg16.CONVOLUTIONS.items():
        levels, scale = (quantized[f"features.{index}.{part}"] for part in ("weight", "scale"))
        assert (levels.dtype, levels.shape) == (np.int8, (outputs, inputs, 3, 3))
        assert (scale.dtype, scale.shape) == (np.float32, (outputs,))
        assert quantized[f"features.{index}.bias"].shape == (outputs,)
        assert quantized[f"features.{index}.input"] > 0
        assert np.abs(levels).max(axis=(1, 2, 3)).tolist() == [127] * outputs
    restored = quantized["features.5.weight"] * quantized["features.5.scale"].reshape(-1, 1, 1, 1)
    half_a_level = quantized["features.5.scale"].reshape(-1, 1, 1, 1) / 2
    assert (np.abs(restored - tensors["features.5.weight"]) <= 1.0001 * half_a_level).all()


def test_features_are_near_the_float_networks(network, tensors) -> None:
    expected = vgg16.embed_pictures(vgg16.load_vgg16(exact(int8()), tensors), exact(int8()), photographs())
    found = vgg16.embed_on_cpu(network, int8(), photographs())
    assert (found.dtype, found.shape) == (np.float32, (len(PHOTOGRAPHS), 512))
    assert correlation(expected, found) > 0.995
    assert np.abs(found - expected).max() < 0.05 * expected.max()


def test_features_are_the_same_bits_in_every_batch_and_order(network) -> None:
    pictures = photographs()
    together = vgg16.embed_on_cpu(network, int8(), pictures)
    for batch in (1, 3):
        assert np.array_equal(vgg16.embed_on_cpu(network, int8(batch=batch), pictures), together)
    assert np.array_equal(vgg16.embed_on_cpu(network, int8(), pictures[::-1])[::-1], together)


def test_pictures_keep_their_own_size_without_a_side(quantized, tensors) -> None:
    spec = int8(side=None)
    pictures = [photograph[: 40 + 7 * number, :75] for number, photograph in enumerate(photographs()[:4])]
    expected = vgg16.embed_pictures(vgg16.load_vgg16(exact(spec), tensors), exact(spec), pictures)
    found = vgg16.embed_on_cpu(vgg16_int8.Int8Vgg16(spec, quantized), spec, pictures)
    assert correlation(expected, found) > 0.99


def test_the_connected_layers_stay_in_float(quantized) -> None:
    spec = int8("fc6")
    random = np.random.default_rng(0)
    # Of the 4,096 outputs a few, which are computed no other way.
    classifier = {
        "classifier.0.weight": random.standard_normal((16, 25088)).astype(np.float16),
        "classifier.0.bias": random.standard_normal(16).astype(np.float16),
    }
    network = vgg16_int8.Int8Vgg16(spec, quantized | classifier)
    pixels = np.stack([vgg16.prepare_picture(one, spec) for one in photographs()[:2]])
    maps = np.concatenate([network._maps(picture).numpy() for picture in pixels]).reshape(2, -1)
    weight, bias = (classifier[f"classifier.0.{part}"].astype(np.float32) for part in ("weight", "bias"))
    expected = np.maximum(maps @ weight.T + bias, 0)
    np.testing.assert_allclose(network(pixels), expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_equal_weights_are_quantised_to_equal_bytes(tensors) -> None:
    pictures = vgg16_int8.calibration_pictures(int8(side=32))[:2]
    first, second = (vgg16_int8.quantize_vgg16(tensors, pictures) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("side", "count"), [(64, 66), (224, 40), (1024, 6), (None, 66)])
def test_calibration_pictures_have_the_networks_size_and_bounded_memory(side: int | None, count: int) -> None:
    pictures = vgg16_int8.calibration_pictures(int8(side=side))
    sides = {picture.shape[0] for picture in pictures}
    assert sides == ({64, 256, 320} if side is None else {side})
    assert len(pictures) <= count
    assert {picture.dtype for picture in pictures} == {np.dtype(np.uint8)}


def test_without_calibration_pictures_nothing_is_quantised(tensors) -> None:
    with pytest.raises(SpecError, match="at least one calibration picture"):
        vgg16_int8.quantize_vgg16(tensors, [])


def test_the_name_and_the_recipe_say_int8_and_other_recipes_stay() -> None:
    plain = exact(int8())
    assert int8().name == "vgg16-pool5-avg-64-int8"
    assert (int8().features, Vgg16Spec(layer="fc7").features) == ("pool5-avg-int8", "fc7")
    assert plain.name == "vgg16-pool5-avg-64"
    assert plain.model_dump(mode="json") == {
        "kind": "vgg16",
        "layer": "pool5-avg",
        "side": 64,
        "weights": "random:0",
        "batch": 16,
    }
    assert int8().model_dump(mode="json") == plain.model_dump(mode="json") | {"precision": "int8"}
    recipes = [digest_of(import_int8.recipe(weights=None, extractor=int8(side=side))) for side in (64, 224)]
    assert len(set(recipes)) == 2


def test_a_gpu_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert vgg16_int8.check_int8(exact(int8()), "cuda") == []
    problems = vgg16_int8.check_int8(int8(), "cuda")
    assert len(problems) == 1
    assert "set extractor.precision to bfloat16" in problems[0]

    monkeypatch.setattr(preflight, "compute_device", lambda: "cuda")
    experiment = load_experiment("sample", {"extractor.precision": "int8"})
    assert list(preflight._missing_integers(experiment)) == problems
    assert list(preflight._missing_integers(load_experiment("sample"))) == []


def test_a_processor_whose_sums_saturate_is_refused(monkeypatch: pytest.MonkeyPatch, quantized) -> None:
    monkeypatch.setattr(vgg16_int8, "check_processor", lambda: "this processor's sums are not exact")
    assert vgg16_int8.check_int8(int8(), "cpu") == ["this processor's sums are not exact"]
    with pytest.raises(SpecError, match="not exact"):
        vgg16_int8.Int8Vgg16(int8(), quantized)


def test_the_float_network_does_not_take_int8_for_its_own() -> None:
    with pytest.raises(SpecError, match="int8"):
        vgg16.move_vgg16(vgg16.load_vgg16(int8(), None), int8(), "cpu")


def test_features_in_int8_are_objects_of_their_own(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    images = image_shard(store, count=4)
    view = View(path="raw", resolution=64)
    arguments = {
        "images": images,
        "views": (view,),
        "canonical": CANONICAL,
        "enlarge": False,
        "source": "photographs",
        "shard": 0,
        "rows": "all",
    }
    weights, cached = import_int8.compute(store, weights=None, extractor=int8(side=32))
    assert not cached
    _, card = read_weights(store, weights)
    assert (card["precision"], card["from"], card["side"]) == ("int8", "random:0", 32)

    of = {}
    for spec, its_weights in ((int8(side=32), weights), (exact(int8(side=32)), None)):
        refs, _ = embed_shard.compute(store, extractor=spec, weights=its_weights, device="cpu", **arguments)
        of[spec.precision] = refs[0]
    assert "/vgg16-pool5-avg-32-int8/" in of["int8"].uri
    features = {name: embedding_matrix(read_features(store, [ref])) for name, ref in of.items()}
    assert features["int8"].shape == (4, 512)
    assert correlation(features["float32"], features["int8"]) > 0.99

    with pytest.raises(SpecError, match="needs its quantised weights"):
        embed_shard.compute(store, extractor=int8(side=48), weights=None, device="cpu", **arguments)
    with pytest.raises(SpecError, match="a CPU for"):
        embed_shard.compute(store, extractor=int8(side=32), weights=weights, device="cuda", **arguments)


def test_real_weights_agree_on_photographs() -> None:
    path = SHARED / "weights" / "vgg16_features_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"no ImageNet weights at {path}: name their folder's parent with TELLTALE_SHARED")
    tensors = vgg16.read_vgg16_tensors(path, "pool5-avg")
    network = vgg16_int8.Int8Vgg16(
        int8(), vgg16_int8.quantize_vgg16(tensors, vgg16_int8.calibration_pictures(int8())[:24])
    )
    expected = vgg16.embed_pictures(vgg16.load_vgg16(exact(int8()), tensors), exact(int8()), photographs())
    assert correlation(expected, vgg16.embed_on_cpu(network, int8(), photographs())) > 0.998
