"""VGG16 as extractor: the same activations as torchvision's, whatever the batch, and weights that are named."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from storage.errors import DownloadFailed, MissingInput, SpecError
from storage.local import LocalStore
from storage.weights import read_weights
from tasks.features import vgg16
from tasks.features.vgg16 import Vgg16Spec
from tasks.features.vgg16_layout import MEAN, STD, tensor_shapes
from tasks.torch_vision_schema import define_missing_torchvision_schemas

if TYPE_CHECKING:
    import torch

UNREACHABLE = "http://127.0.0.1:9/vgg16-397923af.pth"


def small(side: int | None = 64, batch: int = 16, seed: int = 0) -> Vgg16Spec:
    return Vgg16Spec(layer="pool5-avg", side=side, weights=f"random:{seed}", batch=batch)


def noise(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return vgg16.load_vgg16(small(), None)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float16) for name, shape in tensor_shapes("pool5-avg").items()}


@pytest.fixture(scope="module")
def weights_file(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(tensors | {"classifier.6.bias": np.zeros(1000, np.float16)}, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TELLTALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a local server offers it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def torchvision_vgg16() -> Any:
    define_missing_torchvision_schemas()
    import torch
    from torchvision.models import vgg16 as build

    with torch.device("meta"):
        return build(weights=None, init_weights=False)


@pytest.mark.parametrize("layer", ["pool5-avg", "fc6", "fc7"])
def test_the_tensor_shapes_are_torchvisions(layer: str) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in torchvision_vgg16().state_dict().items()}
    assert tensor_shapes(layer).items() <= shapes.items()
    assert {name: tuple(t.shape) for name, t in vgg16._architecture(layer).state_dict().items()} == (
        tensor_shapes(layer)
    )


def test_pool5_averages_are_those_of_torchvisions_layers(network: torch.nn.Module) -> None:
    import torch

    whole = torchvision_vgg16()
    whole.features.load_state_dict(
        {name.removeprefix("features."): torch.from_numpy(t) for name, t in vgg16.random_tensors(small()).items()},
        assign=True,
    )
    picture = noise(1)[0]
    scaled = (picture.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    with torch.inference_mode():
        maps = whole.avgpool(whole.features.eval()(torch.from_numpy(scaled).permute(2, 0, 1)[None]))
    expected = maps.mean((2, 3)).numpy()
    assert maps.shape == (1, 512, 7, 7)
    np.testing.assert_allclose(
        vgg16.embed_pictures(network, small(), [picture]), expected, rtol=1e-4, atol=1e-5 * expected.max()
    )


def test_the_classifiers_layers_end_after_their_relu() -> None:
    from torch import nn

    classifiers = {layer: vgg16._architecture(layer).get_submodule("classifier") for layer in ("fc6", "fc7")}
    kinds = {layer: [type(part) for part in classifier.children()] for layer, classifier in classifiers.items()}
    assert kinds == {"fc6": [nn.Linear, nn.ReLU], "fc7": [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU]}


@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
@pytest.mark.parametrize("side", [64, None])
def test_features_do_not_depend_on_the_batch(network: torch.nn.Module, side: int | None, size: tuple[int, int]) -> None:
    pictures = noise(5, *size)
    by_batch = [vgg16.embed_pictures(network, small(side, batch), pictures) for batch in (1, 2, 5)]
    assert by_batch[0].shape == (5, 512)
    assert by_batch[0].dtype == np.float32
    for features in by_batch[1:]:
        np.testing.assert_allclose(features, by_batch[0], rtol=1e-5, atol=1e-5 * by_batch[0].max())


def test_as_is_pictures_of_different_sizes_come_back_in_their_order(network: torch.nn.Module) -> None:
    pictures = [*noise(2, 64, 64), *noise(1, 48, 80), *noise(2, 64, 64)]
    together = vgg16.embed_pictures(network, small(None), pictures)
    alone = np.concatenate([vgg16.embed_pictures(network, small(None), [picture]) for picture in pictures])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5 * alone.max())


def test_pictures_are_stretched_to_the_input_side_by_antialiased_bicubic() -> None:
    picture = noise(1, 90, 50)[0]
    prepared = vgg16.prepare_picture(picture, small(64))
    np.testing.assert_array_equal(
        prepared, np.array(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC))
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 80), (64, 80)), ((8, 100), (32, 100)), ((10, 12), (32, 32)), ((3000, 6000), (1448, 2896))],
)
def test_as_is_pictures_keep_their_size_between_the_limits(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert vgg16.prepare_picture(np.zeros((*size, 3), np.uint8), small(None)).shape[:2] == expected


def test_random_weights_follow_their_seed_alone(network: torch.nn.Module) -> None:
    import torch

    before = torch.random.get_rng_state()
    again, other = vgg16.load_vgg16(small(), None), vgg16.load_vgg16(small(seed=1), None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(network.parameters()), next(other.parameters()))
    # He: the variance of a weight is 2 / (output channels x kernel area), biases are zero.
    kernel = network.get_parameter("features.28.weight")
    assert kernel.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert network.get_parameter("features.28.bias").abs().max() == 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_half_precision_weights_are_computed_in_single_precision(tensors: dict[str, np.ndarray]) -> None:
    import torch

    loaded = vgg16.load_vgg16(small(), tensors)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_features_and_is_another_recipe(
    network: torch.nn.Module, precision: str
) -> None:
    half = small().model_copy(update={"precision": precision})
    assert "precision" not in small().model_dump(mode="json")
    assert half.model_dump(mode="json") == small().model_dump(mode="json") | {"precision": precision}
    pictures = noise(3)
    expected = vgg16.embed_pictures(network, small(), pictures)
    found = vgg16.embed_pictures(vgg16.move_vgg16(vgg16.load_vgg16(half, None), half, "cpu"), half, pictures)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpus_features_agree_with_the_cpus(network: torch.nn.Module, precision: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    spec = small().model_copy(update={"precision": precision})
    pictures = noise(5)
    expected = vgg16.embed_pictures(network, small(), pictures)
    found = vgg16.embed_pictures(vgg16.move_vgg16(vgg16.load_vgg16(spec, None), spec, "cuda"), spec, pictures)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999


def test_a_recipe_in_full_precision_says_nothing_but_what_decides_the_features() -> None:
    plain = Vgg16Spec(layer="pool5-avg", side=64, weights="random:0", batch=16, precision="float32", compile=True)
    recorded = {"kind": "vgg16", "layer": "pool5-avg", "side": 64, "weights": "random:0", "batch": 16}
    assert plain.model_dump(mode="json") == recorded
    assert plain.name == "vgg16-pool5-avg-64"


def test_a_padded_batch_gives_the_features_of_its_own_pictures(network: torch.nn.Module) -> None:
    pixels = np.stack(noise(2))
    plain, padded = vgg16._forward(network, pixels), vgg16._forward(network, pixels, padded_to=4)
    assert padded.shape == plain.shape == (2, 512)
    np.testing.assert_allclose(padded.numpy(), plain.numpy(), rtol=1e-5, atol=1e-5 * float(plain.max()))


def test_a_weights_file_is_named_by_its_content_and_imported(weights_file: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    spec = Vgg16Spec(layer="pool5-avg", weights=str(weights_file))
    assert vgg16.check_vgg16(spec) == []
    resolved, path = vgg16.resolve_vgg16(spec)
    assert resolved == spec.model_copy(update={"weights": f"sha256:{sha256}"})
    store = LocalStore(tmp_path)
    ref, cached = vgg16.import_vgg16.compute(store, sha256=sha256, layer="pool5-avg", path=path)
    tensors, card = read_weights(store, ref)
    assert not cached
    assert set(tensors) == set(tensor_shapes("pool5-avg"))
    assert card["from_sha256"] == sha256
    assert vgg16.import_vgg16.compute(store, sha256=sha256, layer="pool5-avg", path="elsewhere") == (ref, True)


def test_a_file_that_changed_since_it_was_named_is_refused(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="it changed meanwhile"):
        vgg16.import_vgg16.compute(LocalStore(tmp_path), sha256="0" * 64, layer="pool5-avg", path=str(weights_file))


def test_a_file_without_a_classifier_does_not_serve_fc7(weights_file: Path) -> None:
    spec = Vgg16Spec(layer="fc7", weights=str(weights_file))
    expected = r"lacks classifier.0.weight.* and 1 more, which fc7 needs; set extractor.layer to pool5-avg"
    assert len(vgg16.check_vgg16(spec)) == 1
    with pytest.raises(SpecError, match=expected):
        vgg16.resolve_vgg16(spec)
    with pytest.raises(SpecError, match=expected):
        vgg16.read_vgg16_tensors(weights_file, "fc7")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"features.0.weight": np.zeros((64, 1, 3, 3), np.float16)}, "expected (64, 3, 3, 3)"),
        ({"features.0.weight": np.zeros((64, 3, 3, 3), np.float64)}, "holds F64, expected F16 or F32"),
    ],
)
def test_tensors_of_another_shape_or_type_are_refused(
    tensors: dict[str, np.ndarray], tmp_path: Path, change: dict[str, np.ndarray], expected: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors | change, path)
    problem = vgg16.find_problem(path, "pool5-avg")
    assert problem is not None
    assert expected in problem


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(SpecError, match="not readable as safetensors"):
        vgg16.resolve_vgg16(Vgg16Spec(weights=str(path)))


def test_random_weights_need_no_file() -> None:
    assert vgg16.resolve_vgg16(small()) == (small(), None)
    assert vgg16.check_vgg16(small()) == []


def test_random_weights_need_a_seed() -> None:
    spec = Vgg16Spec(weights="random:often")
    assert vgg16.check_vgg16(spec) == ["random VGG16 weights are named like random:0, got 'random:often'"]
    with pytest.raises(SpecError, match="named like random:0"):
        vgg16.resolve_vgg16(spec)


@pytest.mark.parametrize("seed", ["99999999999999999999999", str(2**64), "9" * 5000, "-1", "1.5", "\u0663", "", " 1"])
def test_a_seed_that_no_generator_takes_is_refused(seed: str) -> None:
    spec = Vgg16Spec(weights=f"random:{seed}", layer="pool5-avg")
    (line,) = vgg16.check_vgg16(spec)
    assert line.startswith("random VGG16 weights are named like random:0")
    with pytest.raises(SpecError, match="named like random:0"):
        vgg16.random_tensors(spec)


def test_the_largest_seed_gives_weights() -> None:
    spec = Vgg16Spec(weights=f"random:{2**64 - 1}", layer="pool5-avg")
    assert vgg16.check_vgg16(spec) == []
    assert vgg16.random_tensors(spec)["features.0.weight"].std() > 0


def test_a_missing_file_is_a_missing_input_with_its_remedy(cache: Path) -> None:
    spec = Vgg16Spec(weights="nowhere/vgg16.safetensors")
    assert "name a safetensors file" in vgg16.check_vgg16(spec)[0]
    with pytest.raises(MissingInput, match=r"nowhere/vgg16.safetensors: no such file; name a safetensors file"):
        vgg16.resolve_vgg16(spec)


@pytest.mark.parametrize("weights", ["imagenet", "http://127.0.0.1:9/vgg16.safetensors"])
def test_unreachable_weights_are_a_missing_input_with_its_remedy(
    weights: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgg16, "_imagenet_url", lambda: UNREACHABLE)
    spec = Vgg16Spec(weights=weights)
    assert "or random:0" in vgg16.check_vgg16(spec)[0]
    with pytest.raises(MissingInput, match="the download failed"):
        vgg16.resolve_vgg16(spec)
    assert list(cache.iterdir()) == []


def test_an_address_of_safetensors_is_downloaded_once(
    served: tuple[Path, str], cache: Path, weights_file: Path
) -> None:
    folder, address = served
    (folder / "vgg16.safetensors").write_bytes(weights_file.read_bytes())
    spec = Vgg16Spec(layer="pool5-avg", weights=f"{address}/vgg16.safetensors")
    assert vgg16.check_vgg16(spec) == []
    first = vgg16.resolve_vgg16(spec)
    (folder / "vgg16.safetensors").unlink()
    assert vgg16.resolve_vgg16(spec) == first
    assert vgg16.check_vgg16(spec) == []
    assert vgg16.check_vgg16(Vgg16Spec(weights=f"{address}/gone.safetensors")) != []


def test_a_broken_off_download_is_not_kept(served: tuple[Path, str], cache: Path, weights_file: Path) -> None:
    folder, address = served
    (folder / "vgg16.safetensors").write_bytes(weights_file.read_bytes()[:-1])
    with pytest.raises(DownloadFailed, match="broken off"):
        vgg16.resolve_vgg16(Vgg16Spec(layer="pool5-avg", weights=f"{address}/vgg16.safetensors"))
    assert list(cache.iterdir()) == []


def test_torchvisions_file_is_verified_and_converted(
    served: tuple[Path, str], cache: Path, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    folder, address = served
    source = folder / "vgg16.pth"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for name in (f"vgg16-{digest[:8]}.pth", "vgg16-00000000.pth"):
        (folder / name).write_bytes(source.read_bytes())
    spec = Vgg16Spec(layer="pool5-avg", weights="imagenet")

    monkeypatch.setattr(vgg16, "_imagenet_url", lambda: f"{address}/vgg16-00000000.pth")
    with pytest.raises(DownloadFailed, match="invalid hash"):
        vgg16.resolve_vgg16(spec)

    monkeypatch.setattr(vgg16, "_imagenet_url", lambda: f"{address}/vgg16-{digest[:8]}.pth")
    assert vgg16.check_vgg16(spec) == []
    resolved, path = vgg16.resolve_vgg16(spec)
    assert resolved.weights.startswith("sha256:")
    assert path == str(cache / f"vgg16-{digest[:8]}.safetensors")
    assert [file.name for file in cache.iterdir()] == [f"vgg16-{digest[:8]}.safetensors"]
