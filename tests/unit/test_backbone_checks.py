"""What is wrong with a backbone is said before any work, or by one sentence when it is loaded."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from storage.errors import DamagedObject, OtherVersion, SpecError
from storage.local import LocalStore
from tasks.features import backbone
from tasks.features.backbone_networks import tried_backbone
from tests.unit.backbone_models import INPUT, brought, described, entered, opened, pictures, spec
from tests.unit.test_export import model_with_external_tensor
from tests.unit.tiny_backbones import SIDE, onnx_model, saved_model


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


# What an experiment may say.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {key: value for key, value in INPUT.items() if key != "mean"}}, "mean\n  Field required"),
        ({"weights": None}, "weights: a model of torchvision needs them named"),
        ({"library": "timm", "weights": None}, "weights: a model of timm needs them named"),
        ({"library": "onnx"}, "weights: a model of onnx has its own"),
        ({"library": "transformers"}, "weights: a model of transformers has its own"),
        ({"output": 3}, "output: only a transformers model has numbered ones"),
        ({"input": INPUT | {"layout": "channels-last"}}, "input: a model of torchvision reads channels first"),
        ({"library": "keras"}, "'torchvision', 'timm', 'transformers' or 'onnx'"),
        ({"output": ""}, "at least 1 character"),
        ({"tokens": "last"}, "'mean' or 'first'"),
        ({"batch": 0}, "greater than or equal to 1"),
    ],
)
def test_a_backbone_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**({"weights": "random:0"} | changes))


# What is wrong is said before any work.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet51"}, "torchvision has no such classification model; there are for example resnet50"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "torchvision has no such classification model"),
        ({"output": "layer5"}, "it has no layer 'layer5'; there are for example"),
        ({"model": "vit_b_32"}, "does not take pictures of side 32 (Wrong image height"),
        ({"weights": "random:x"}, "random resnet18 weights are named like random:0"),
        (
            {"weights": "/nowhere.safetensors"},
            "resnet18 weights /nowhere.safetensors: no such file; name a safetensors",
        ),
        ({"weights": "${NOWHERE}"}, "environment variable NOWHERE"),
    ],
)
def test_what_torchvision_cannot_do_is_said(changes: dict[str, Any], message: str) -> None:
    (line,) = spec(**changes).missing()
    assert message in line


def test_a_file_that_does_not_fit_is_said_and_needs_no_more_than_the_output_does(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision import models

    state = models.resnet18().state_dict()
    path = tmp_path / "resnet18.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith(("fc.", "layer4."))}, path)
    (line,) = spec(weights=str(path)).missing()
    assert "lacks layer4.0.conv1.weight" in line
    assert "which the output pooled needs" in line
    assert spec(weights=str(path), output="layer3").missing() == []
    (line,) = spec(model="resnet34", weights=str(path), output="layer3").missing()
    assert "lacks layer1.2.conv1.weight" in line
    path.write_bytes(b"\x80\x04 a pickle")
    assert "is not readable as safetensors" in spec(weights=str(path)).missing()[0]


def test_what_a_transformers_model_cannot_do_is_said(tmp_path: Path) -> None:
    clip = saved_model(tmp_path / "clip", "clip")
    said = [
        (spec("transformers", tmp_path / "none"), "none: no such folder; name one as save_pretrained writes it"),
        (spec("transformers", clip, input=INPUT | {"side": 64}), "does not take pictures of side 64"),
        (spec("transformers", clip, output=9), "it has hidden states 0 to 3, got 9"),
        (spec("transformers", clip, output="encoder.layers.7"), "it has no layer 'encoder.layers.7'; there are"),
    ]
    for named, message in said:
        (line,) = named.missing()
        assert message in line
        assert "missing:" not in line
    (clip / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoModel": "modeling.Own"}}')
    assert "'own', needs code of its own, which is never run" in spec("transformers", clip).missing()[0]
    (clip / "config.json").write_text('{"model_type": "bert"}')
    assert len(spec("transformers", clip).missing()) == 1


def test_an_input_that_the_models_own_file_contradicts_is_said_unless_it_is_meant(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil

    folder = saved_model(tmp_path / "clip", "clip")
    size = {"shortest_edge": SIDE}
    own = CLIPImageProcessorPil(size=size, crop_size=SIDE, image_mean=INPUT["mean"], image_std=INPUT["std"])
    own.save_pretrained(folder)
    named = spec("transformers", folder)
    (line,) = named.missing()
    assert "preprocessor_config.json gives other values" in line
    assert "declare the input so, or say input_differs: true" in line
    assert spec("transformers", folder, input=INPUT | {"resize": "shorter-side"}).missing() == []
    meant = spec("transformers", folder, input_differs=True)
    assert meant.missing() == []
    assert meant.keyed().model_dump_json() == named.keyed().model_dump_json()


def test_a_pooling_that_nobody_has_trained_is_refused(store: LocalStore, tmp_path: Path) -> None:
    named = spec("transformers", saved_model(tmp_path / "vit", "vit-classifier"))
    with pytest.raises(SpecError, match=r"its weights lack pooler.dense.bias, pooler.dense.weight, which the output"):
        named.keyed().load(store, brought(store, named), "cpu")


def test_weights_that_a_checkpoint_lacks_are_never_made_up(store: LocalStore, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved_model(tmp_path / "dinov2", "dinov2")
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.mlp.fc1.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    named = spec("transformers", folder, output=-1)
    with pytest.raises(SpecError, match=r"its weights lack encoder.layer.1.mlp.fc1.weight"):
        named.keyed().load(store, brought(store, named), "cpu")


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (onnx_model(), {"output": "logits"}, "it has no output 'logits'; name one of maps, pooled, shape"),
        (onnx_model(), {"output": "shape"}, "expected the output shape as tensor(float), got tensor(int64)"),
        (onnx_model(64), {}, "expected one input tensor(float) that takes [1, 3, 32, 32], got pixels tensor(float)"),
        (onnx_model(SIDE, count=2), {}, "expected one input tensor(float) that takes [1, 3, 32, 32]"),
        (onnx_model(SIDE), {"input": INPUT | {"side": None, "resize": "none"}}, "expected one input tensor(float)"),
        (onnx_model(SIDE, channels_last=True), {}, "expected one input tensor(float) that takes [1, 3, 32, 32]"),
        (onnx_model(element="FLOAT16"), {}, "got pixels tensor(float16)"),
        (onnx_model(inputs=2), {}, "pixels1 tensor(float)"),
        (onnx_model(domain="their.own"), {}, "cannot be opened as an ONNX model"),
        (model_with_external_tensor("weights.bin", "initializer"), {}, "expected all tensors in the file itself"),
        (b"no model", {}, "cannot be opened as an ONNX model"),
    ],
)
def test_an_onnx_file_that_does_not_fit_its_declaration_is_said(
    model: bytes, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(model)
    (line,) = spec("onnx", tmp_path / "tiny.onnx", **changes).missing()
    assert "tiny.onnx" in line
    assert message in line


def test_an_onnx_file_that_is_not_there_is_said() -> None:
    assert spec("onnx", "/nowhere.onnx").missing() == [
        "the file for onnx /nowhere.onnx: it does not exist; name the path of one"
    ]


def test_another_version_of_the_library_makes_no_features_under_the_planned_ones_name(
    tmp_path: Path, store: LocalStore
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(onnx_model())
    named = spec("onnx", tmp_path / "tiny.onnx")
    planned = named.keyed().model_copy(update={"library_version": "0.1"})
    with pytest.raises(OtherVersion, match=r"planned with onnx 0\.1, here is"):
        planned.load(store, brought(store, named), "cpu")


def test_a_device_that_fails_is_not_taken_for_a_model_that_does_not_fit() -> None:
    def forward(batch: object) -> np.ndarray:
        raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(RuntimeError, match="CUDA error"):
        tried_backbone(spec().wanted, forward)


def test_damaged_weights_are_noticed(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "tiny.onnx").write_bytes(onnx_model())
    named = spec("onnx", tmp_path / "tiny.onnx", batch=7)
    ref = brought(store, named)
    assert ref is not None
    (part,) = (tmp_path / "store" / ref.uri).glob("*.onnx")
    part.write_bytes(onnx_model(SIDE))
    with pytest.raises(DamagedObject):
        named.keyed().load(store, ref, "cpu")


def test_features_that_are_no_numbers_are_an_error(store: LocalStore) -> None:
    extractor = opened(store, spec())
    with pytest.raises(SpecError, match="the torchvision model resnet18 gives features that are no finite numbers"):
        extractor.embed([np.full((3, SIDE, SIDE), np.nan, np.float32)])


# timm is an extra, which test machines need not have: a stand-in for its one function that is called.


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert (pretrained, num_classes) == (False, 0)
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    module = types.ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setattr(backbone, "missing_library", lambda library: [])
    monkeypatch.setattr(backbone, "_installed", lambda library: "1.0")


@pytest.mark.usefixtures("stand_in")
def test_a_model_of_timm_is_filled_from_a_file_and_read_at_a_layer(tmp_path: Path, store: LocalStore) -> None:
    import torch
    from safetensors.torch import save_file

    kernel, bias = torch.randn(4, 3, 3, 3), torch.randn(4)
    path = tmp_path / "tiny.safetensors"
    save_file({"0.weight": kernel, "0.bias": bias, "head.weight": torch.ones(2, 4)}, path)
    for output, activation in (("pooled", torch.relu), ("0", lambda maps: maps)):
        named = spec("timm", "tiny", weights=str(path), output=output)
        found = described(opened(store, named), pictures())
        maps = torch.nn.functional.conv2d(entered(named, pictures()), kernel, bias)
        np.testing.assert_allclose(found, activation(maps).mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert "Unknown model (other)" in spec("timm", "other").missing()[0]
    assert "it has no layer '9'" in spec("timm", "tiny", output="9").missing()[0]
    save_file({"0.weight": kernel}, path)
    assert "lacks 0.bias" in spec("timm", "tiny", weights=str(path)).missing()[0]


def test_without_timm_its_extra_is_named() -> None:
    try:
        import timm  # noqa: F401
    except ImportError:
        assert spec("timm", "resnet18").missing() == [
            "models of timm: pip install 'telltale[timm]' where this worker runs"
        ]
    else:
        pytest.skip("timm is installed")
