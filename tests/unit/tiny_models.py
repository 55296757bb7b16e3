"""Classifiers of transformers as people publish them, of some thousand random parameters each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.torch_vision_schema import define_missing_torchvision_schemas

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
LABELS = ("artificial", "human")
# How the processors below prepare a picture, declared.
INPUT: dict[str, Any] = {"side": 32, "resize": "stretch", "filter": "bicubic", "mean": list(MEAN), "std": list(STD)}
CROPPED: dict[str, Any] = {**INPUT, "resize": "shorter-side", "resized_side": 40, "filter": "bilinear"}


def save_vit(folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 0, **config: Any) -> Path:
    """A vision transformer for 32 x 32 pixels, whose processor stretches them (`INPUT`)."""
    define_missing_torchvision_schemas()
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    made = ViTConfig(**small, image_size=32, patch_size=8, id2label=dict(enumerate(labels)), **config)
    torch.manual_seed(seed)
    network = ViTForImageClassification(made)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)  # as initialised, all pictures look the same to it
    network.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    ViTImageProcessorPil(size=size, resample=3, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder


def save_swin(folder: Path, labels: tuple[str, ...] = ("photo", "sd", "dalle"), seed: int = 0) -> Path:
    """A Swin transformer for 32 x 32 pixels, whose processor takes the centre of 40 (`CROPPED`)."""
    define_missing_torchvision_schemas()
    import torch
    from transformers import CLIPImageProcessorPil, SwinConfig, SwinForImageClassification

    small: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    made = SwinConfig(**small, image_size=32, patch_size=2, id2label=dict(enumerate(labels)))
    torch.manual_seed(seed)
    network = SwinForImageClassification(made)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    network.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size=32, resample=2, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    return folder


def change(path: Path, **fields: Any) -> None:
    """Write fields into a JSON file; None takes one out."""
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
