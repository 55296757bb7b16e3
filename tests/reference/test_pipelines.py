"""Backbones agree with whole pipelines of their libraries' own: preprocessing and model, picture in, features out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.local import LocalStore
from tasks.data.network_input import Filter, NetworkInput
from tasks.data.pictures import Pixels
from tasks.torch_vision_schema import define_missing_torchvision_schemas
from tests.unit.backbone_models import described, opened, spec
from tests.unit.tiny_backbones import SIDE, saved_model, transformers_model

SIZES = [(300, 401), (401, 300), (233, 350), (224, 224), (100, 131), (225, 225), (640, 427)]
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SHARED = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[3] / "shared"))
MOBILENET = SHARED / "weights" / "mobilenet_v2_imagenet.safetensors"


def picture(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def processors() -> Any:
    define_missing_torchvision_schemas()
    import transformers

    return transformers


def processed(processor: Any, pixels: Pixels) -> np.ndarray:
    found: np.ndarray = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0].numpy()
    return found


def clip_input(side: int, resized_side: int, processor: Any) -> NetworkInput:
    return NetworkInput(
        side=side,
        resize="shorter-side",
        resized_side=resized_side,
        filter="bicubic",
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )


@pytest.mark.parametrize("resized_side", [224, 256])
@pytest.mark.parametrize("size", SIZES)
def test_a_shorter_side_is_what_clips_processors_make_of_it(size: tuple[int, int], resized_side: int) -> None:
    names = ("CLIPImageProcessorPil", "CLIPImageProcessor")
    chosen = {"size": {"shortest_edge": resized_side}, "crop_size": {"height": 224, "width": 224}}
    by_pillow, by_tensors = (getattr(processors(), name)(**chosen) for name in names)
    found = clip_input(224, resized_side, by_pillow).of(picture(*size))
    np.testing.assert_allclose(found, processed(by_pillow, picture(*size)), atol=1e-5)
    # The other resizes a tensor: in places one or two levels of 255 apart.
    difference = np.abs(found - processed(by_tensors, picture(*size)))
    assert difference.max() < 2.1 / 255 / min(by_tensors.image_std)
    assert difference.mean() < 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_a_stretched_picture_is_what_vits_processors_make_of_it(size: tuple[int, int]) -> None:
    by_pillow, by_tensors = (getattr(processors(), name)() for name in ("ViTImageProcessorPil", "ViTImageProcessor"))
    mean, std = tuple(by_pillow.image_mean), tuple(by_pillow.image_std)
    found = NetworkInput(side=224, resize="stretch", filter="bilinear", mean=mean, std=std).of(picture(*size))
    np.testing.assert_allclose(found, processed(by_pillow, picture(*size)), atol=1e-5)
    assert np.abs(found - processed(by_tensors, picture(*size))).max() < 1.1 / 255 / min(std)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_a_shorter_side_is_what_torchvisions_transforms_make_of_it(size: tuple[int, int], kernel: Filter) -> None:
    define_missing_torchvision_schemas()
    from torchvision import transforms

    mode = transforms.InterpolationMode[kernel.upper()]
    steps = [transforms.Resize(256, mode), transforms.CenterCrop(224), transforms.ToTensor()]
    pipeline = transforms.Compose([*steps, transforms.Normalize(**IMAGENET)])
    declared = NetworkInput(side=224, resize="shorter-side", resized_side=256, filter=kernel, **IMAGENET)
    expected = pipeline(Image.fromarray(picture(*size))).numpy()
    found = declared.of(picture(*size))
    if (max(size) * 256 // min(size) - 224) % 4 == 3:  # of an odd number of pixels torchvision cuts more at this end
        found, expected = (
            (found[:, :, 1:], expected[:, :, :-1]) if size[1] > size[0] else (found[:, 1:], expected[:, :-1])
        )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "processor"), [("clip", "CLIPImageProcessorPil"), ("vit", "ViTImageProcessorPil")])
def test_a_backbone_is_transformers_own_processor_and_model(kind: str, processor: str, tmp_path: Path) -> None:
    import torch

    of_clip = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    of_vit = {"size": {"height": SIDE, "width": SIDE}}
    made = getattr(processors(), processor)(**(of_clip if kind == "clip" else of_vit))
    declared = {
        "side": SIDE,
        "resize": "shorter-side" if kind == "clip" else "stretch",
        "filter": "bicubic" if kind == "clip" else "bilinear",
        "mean": made.image_mean,
        "std": made.image_std,
    }
    chosen = [picture(60, 81), picture(97, 64)]
    model = transformers_model(kind)
    model = model.vision_model if kind == "clip" else model
    with torch.inference_mode():
        entered = torch.from_numpy(np.stack([processed(made, each) for each in chosen]))
        expected = model(pixel_values=entered).pooler_output.numpy()
    named = spec("transformers", saved_model(tmp_path / kind, kind), input=declared)
    found = described(opened(LocalStore(tmp_path / "store"), named), chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not MOBILENET.is_file(), reason=f"no ImageNet weights at {MOBILENET}: set TELLTALE_SHARED")
def test_a_backbone_is_torchvisions_own_transforms_and_model(tmp_path: Path) -> None:
    define_missing_torchvision_schemas()
    import torch
    from safetensors.torch import load_file
    from torchvision import models
    from torchvision.transforms._presets import ImageClassification

    network = models.mobilenet_v2().eval()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(MOBILENET).items()}, strict=False)
    chosen = [picture(300, 400), picture(401, 301)]
    with torch.inference_mode():
        # Of Pillow pictures: its own transforms of tensors resize otherwise, by a level in places.
        batch = torch.stack([ImageClassification(crop_size=224)(Image.fromarray(each)) for each in chosen])
        expected = network.features(batch).mean((2, 3)).numpy()
    declared = {"side": 224, "resize": "shorter-side", "resized_side": 256, "filter": "bilinear", **IMAGENET}
    named = spec(model="mobilenet_v2", weights=str(MOBILENET), input=declared)
    found = described(opened(LocalStore(tmp_path / "store"), named), chosen)
    assert found.shape == (2, 1280)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
