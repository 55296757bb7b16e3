"""MobileNetV2's weights: named, checked against the width, downloaded once, and brought into the store."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from flows.preflight import checked_experiment
from storage.errors import DownloadFailed, MissingInput, SpecError
from storage.local import LocalStore
from storage.weights import read_weights
from tasks.networks import mobilenet_weights
from tasks.networks.architecture import architecture
from tasks.spec.detectors import FineTuned
from tasks.torch_vision_schema import define_missing_torchvision_schemas

UNREACHABLE = "http://127.0.0.1:9/mobilenet_v2-b0353104.pth"


def spec(weights: object, width: float = 1.0) -> FineTuned:
    return FineTuned(name="dense", weights=str(weights), width=width)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A trunk of width 0.35, as half precision."""
    rng = np.random.default_rng(0)
    shapes = mobilenet_weights.tensor_shapes(0.35)
    return {name: rng.uniform(0.5, 1, shape).astype(np.float16) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights_file(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    beside = {
        "features.0.1.num_batches_tracked": np.array(7),
        "classifier.1.bias": np.zeros(1000, np.float16),
    }
    save_file(tensors | beside, path)
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


@pytest.mark.parametrize("width", [1.0, 0.5, 0.35, 1.4])
def test_the_tensor_shapes_are_torchvisions(width: float) -> None:
    define_missing_torchvision_schemas()
    import torch
    from torchvision.models import mobilenet_v2

    with torch.device("meta"):
        state = mobilenet_v2(weights=None, width_mult=width).state_dict()
    trunk = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if name.startswith("features.") and not name.endswith("num_batches_tracked")
    }
    assert mobilenet_weights.tensor_shapes(width) == trunk


def test_torchvisions_file_is_the_first_version() -> None:
    assert mobilenet_weights._imagenet_url().endswith("/mobilenet_v2-b0353104.pth")


def test_a_weights_file_is_named_by_its_content_and_imported_in_single_precision(
    weights_file: Path, tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    named = spec(weights_file, 0.35)
    assert mobilenet_weights.check_mobilenet(named) == []
    resolved, path = mobilenet_weights.resolve_mobilenet(named)
    assert resolved == named.model_copy(update={"weights": f"sha256:{sha256}"})
    assert path == str(weights_file)
    store = LocalStore(tmp_path)
    ref, cached = mobilenet_weights.import_mobilenet.compute(store, sha256=sha256, path=path)
    imported, card = read_weights(store, ref)
    assert not cached
    assert set(imported) == set(tensors)
    assert {tensor.dtype for tensor in imported.values()} == {np.dtype(np.float32)}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(imported[name], tensor)
    assert card == {
        "model": "mobilenet_v2",
        "keys": "torchvision",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "from_sha256": sha256,
    }
    assert mobilenet_weights.import_mobilenet.compute(store, sha256=sha256, path="elsewhere") == (ref, True)


def test_the_imported_trunk_folds_into_the_network(weights_file: Path) -> None:
    from tasks.networks.mobilenet_network import folded_torchvision

    shape = architecture(0.35, "v3", classes=2, side=32)
    folded = folded_torchvision(mobilenet_weights.read_trunk(weights_file), shape)
    assert len(folded) == 2 * len(shape.convolutions)
    assert all(np.isfinite(tensor).all() for tensor in folded.values())


def test_real_imagenet_weights_serve_the_full_width_and_no_other(tmp_path: Path) -> None:
    shared = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[3] / "shared"))
    path = shared / "weights" / "mobilenet_v2_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"no ImageNet weights at {path}: set TELLTALE_SHARED")
    resolved, local = mobilenet_weights.resolve_mobilenet(spec(path))
    sha256 = resolved.weights.removeprefix("sha256:")
    store = LocalStore(tmp_path)
    ref, _ = mobilenet_weights.import_mobilenet.compute(store, sha256=sha256, path=local)
    imported, _ = read_weights(store, ref)
    assert {name: tensor.shape for name, tensor in imported.items()} == mobilenet_weights.tensor_shapes(1.0)
    with pytest.raises(SpecError, match=r"use a file for width 0\.5, or random:0"):
        mobilenet_weights.resolve_mobilenet(spec(path, 0.5))


def test_a_file_that_changed_since_it_was_named_is_refused(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"MobileNetV2 weights: .* it changed meanwhile"):
        mobilenet_weights.import_mobilenet.compute(LocalStore(tmp_path), sha256="0" * 64, path=str(weights_file))


def test_a_file_of_another_width_is_refused(weights_file: Path) -> None:
    named = spec(weights_file, 1.0)
    expected = (
        "MobileNetV2 weights: mobilenet.safetensors has features.0.0.weight of shape (16, 3, 3, 3), "
        "expected (32, 3, 3, 3); use a file for width 1.0, or random:0"
    )
    assert mobilenet_weights.check_mobilenet(named) == [expected]
    with pytest.raises(SpecError) as raised:
        mobilenet_weights.resolve_mobilenet(named)
    assert str(raised.value) == expected


@pytest.mark.parametrize("name", ["features.0.1.running_var", "features.2.conv.1.0.weight"])
def test_tensors_of_another_shape_are_refused(tensors: dict[str, np.ndarray], tmp_path: Path, name: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors | {name: np.zeros((1, *tensors[name].shape[1:]), np.float16)}, path)
    problem = mobilenet_weights.find_problem(path, 0.35)
    assert problem is not None
    assert f"has {name} of shape" in problem


def test_tensors_of_another_type_are_refused(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(tensors | {"features.0.1.bias": np.zeros(16)}, path)
    assert mobilenet_weights.find_problem(path, 0.35) == (
        "MobileNetV2 weights: other.safetensors holds F64, expected F16 or F32; convert it"
    )


def test_a_file_without_the_trunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({"classifier.1.bias": np.zeros(1000, np.float16)}, path)
    expected = r"lacks features.0.0.weight, .* and 257 more, which width 1.0 needs; use a file for width 1.0"
    with pytest.raises(SpecError, match=expected):
        mobilenet_weights.resolve_mobilenet(spec(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(SpecError, match=r"no tensors called features\.\*"):
        mobilenet_weights.import_mobilenet.compute(LocalStore(tmp_path / "store"), sha256=sha256, path=str(path))


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(SpecError, match=r"MobileNetV2 weights: weights.safetensors is not readable as safetensors"):
        mobilenet_weights.resolve_mobilenet(spec(path))


def test_random_weights_need_no_file_and_serve_every_width() -> None:
    for width in (0.35, 1.0):
        named = spec("random:3", width)
        assert mobilenet_weights.resolve_mobilenet(named) == (named, None)
        assert mobilenet_weights.check_mobilenet(named) == []


def test_random_weights_need_a_seed() -> None:
    named = spec("random:often")
    assert mobilenet_weights.check_mobilenet(named) == [
        "random MobileNetV2 weights are named like random:0, got 'random:often'"
    ]
    with pytest.raises(SpecError, match="named like random:0"):
        mobilenet_weights.resolve_mobilenet(named)


def test_torchvision_has_one_width_which_is_said_before_any_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mobilenet_weights, "_imagenet_url", lambda: UNREACHABLE)
    named = spec("imagenet", 0.5)
    assert len(mobilenet_weights.check_mobilenet(named)) == 1
    with pytest.raises(SpecError, match=r"for width 1.0 only, got width 0.5; .*or random:0"):
        mobilenet_weights.resolve_mobilenet(named)


def test_a_missing_file_is_a_missing_input_with_its_remedy(cache: Path) -> None:
    named = spec("nowhere/mobilenet.safetensors")
    assert "TELLTALE_MOBILENET" in mobilenet_weights.check_mobilenet(named)[0]
    with pytest.raises(MissingInput, match=r"nowhere/mobilenet.safetensors: no such file; name a safetensors file"):
        mobilenet_weights.resolve_mobilenet(named)


@pytest.mark.parametrize("weights", ["imagenet", "http://127.0.0.1:9/mobilenet.safetensors"])
def test_unreachable_weights_are_a_missing_input_with_its_remedy(
    weights: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mobilenet_weights, "_imagenet_url", lambda: UNREACHABLE)
    assert "or random:0" in mobilenet_weights.check_mobilenet(spec(weights))[0]
    with pytest.raises(MissingInput, match="the download failed"):
        mobilenet_weights.resolve_mobilenet(spec(weights))
    assert list(cache.iterdir()) == []


def test_an_address_of_safetensors_is_downloaded_once(
    served: tuple[Path, str], cache: Path, weights_file: Path
) -> None:
    folder, address = served
    (folder / "mobilenet.safetensors").write_bytes(weights_file.read_bytes())
    named = spec(f"{address}/mobilenet.safetensors", 0.35)
    assert mobilenet_weights.check_mobilenet(named) == []
    first = mobilenet_weights.resolve_mobilenet(named)
    (folder / "mobilenet.safetensors").unlink()
    assert mobilenet_weights.resolve_mobilenet(named) == first
    assert mobilenet_weights.check_mobilenet(named) == []
    assert mobilenet_weights.check_mobilenet(spec(f"{address}/gone.safetensors")) != []


def test_a_broken_off_download_is_not_kept(served: tuple[Path, str], cache: Path, weights_file: Path) -> None:
    folder, address = served
    (folder / "mobilenet.safetensors").write_bytes(weights_file.read_bytes()[:-1])
    with pytest.raises(DownloadFailed, match="broken off"):
        mobilenet_weights.resolve_mobilenet(spec(f"{address}/mobilenet.safetensors", 0.35))
    assert list(cache.iterdir()) == []


def test_torchvisions_file_is_verified_and_converted(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    folder, address = served
    source = folder / "mobilenet.pth"
    torch.save({name: torch.zeros(shape) for name, shape in mobilenet_weights.tensor_shapes(1.0).items()}, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for name in (f"mobilenet_v2-{digest[:8]}.pth", "mobilenet_v2-00000000.pth"):
        (folder / name).write_bytes(source.read_bytes())

    monkeypatch.setattr(mobilenet_weights, "_imagenet_url", lambda: f"{address}/mobilenet_v2-00000000.pth")
    with pytest.raises(DownloadFailed, match="invalid hash"):
        mobilenet_weights.resolve_mobilenet(spec("imagenet"))

    monkeypatch.setattr(mobilenet_weights, "_imagenet_url", lambda: f"{address}/mobilenet_v2-{digest[:8]}.pth")
    assert mobilenet_weights.check_mobilenet(spec("imagenet")) == []
    resolved, path = mobilenet_weights.resolve_mobilenet(spec("imagenet"))
    assert resolved.weights.startswith("sha256:")
    assert path == str(cache / f"mobilenet_v2-{digest[:8]}.safetensors")
    assert [file.name for file in cache.iterdir()] == [f"mobilenet_v2-{digest[:8]}.safetensors"]


def test_a_run_names_missing_weights_of_all_its_networks_beside_vgg16s(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    networks = [
        {"kind": "fine-tuned", "name": "dense", "weights": str(tmp_path / "first.safetensors")},
        {"kind": "fine-tuned", "name": "other-head", "head": "v1", "weights": str(tmp_path / "first.safetensors")},
        {"kind": "magnitude-pruned", "name": "pruned", "of": "dense"},
        {"kind": "fine-tuned", "name": "second", "weights": str(tmp_path / "second.safetensors")},
        {"kind": "fine-tuned", "name": "from-nothing", "weights": "random:0", "width": 0.35},
    ]
    document = {
        "name": "small",
        "sources": [
            {"kind": "sample", "name": "photographs"},
            {"kind": "folder", "name": "fakes", "path": str(tmp_path / "fakes"), "label": "fake"},
        ],
        "extractor": {"weights": str(tmp_path / "vgg16.safetensors")},
        "mobile": {"networks": networks},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(MissingInput) as raised:
        checked_experiment(str(tmp_path / "small.yaml"))
    lines = raised.value.missing
    assert len([line for line in lines if "VGG16 weights" in line]) == 1
    assert [line.split(":")[0] for line in lines if "MobileNetV2" in line] == [
        f"MobileNetV2 weights {tmp_path / name}.safetensors" for name in ("first", "second")
    ]
