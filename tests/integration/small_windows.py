"""A small experiment on the crop path: made-up pictures of unequal histories, and every kind of detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.unit.tiny_onnx import INPUT

# Name: (label, kind of file, quality, is an upsampled picture).
SOURCES = {
    "town": ("real", "JPEG", 96, False),
    "shore": ("real", "JPEG", 98, False),
    "saved": ("fake", "JPEG", 70, True),
    "lossless": ("fake", "PNG", None, True),
}
COUNT = 30
TRAINING = {"epochs": 2, "batch": 16, "learning_rate": 5e-3, "random_windows": 48, "schedule": "one-cycle"}


def draw_pictures(root: Path) -> None:
    """Write a folder of pictures for each source."""
    for name, (_, form, quality, upsampled) in SOURCES.items():
        (root / name).mkdir()
        for number in range(COUNT):
            _save(root / name, number, form, quality, upsampled)
    # One photograph whose own encoding would be seen, and one that has no window.
    Image.open(root / "town" / "000.jpeg").save(root / "town" / "weak.jpeg", quality=80)
    Image.open(root / "town" / "001.jpeg").crop((0, 0, 100, 60)).save(root / "town" / "small.jpeg", quality=96)


def windows_experiment(folders: Path, model: Path) -> dict[str, Any]:
    """The experiment on these pictures; `model` is an ONNX file of `tests.unit.tiny_onnx`."""
    folder = {"kind": "folder"}
    return {
        "name": "windows",
        "path": "crop",
        "sources": [
            folder | {"name": name, "path": str(folders / name), "label": label}
            for name, (label, *_) in SOURCES.items()
        ],
        "splits": {"kind": "folds", "count": 3},
        "resolutions": [64],
        "qualities": [None, 50],
        "extractor": {"kind": "vgg16", "layer": "pool5-avg", "side": 32, "weights": "random:0", "batch": 8},
        "detectors": [
            {"kind": "linear", "name": "traces", "extractor": {"kind": "cooccurrence"}, "loss": "discriminant",
             "windows": 2, "left_out": True},
            {"kind": "onnx", "name": "theirs", "model": str(model), "input": INPUT, "fake": [1], "output": "logits",
             "answer": "softmax", "windows": 2},
            {"kind": "linear", "name": "history", "role": "probe", "extractor": {"kind": "history"},
             "loss": "logistic", "fitted_in": "each-cell"},
        ],
        "mobile": {
            "windows": 2,
            "networks": [
                {"kind": "residual", "name": "median", "width": 0.25, "side": 64, "left_out": True,
                 "training": TRAINING},
                {"kind": "structure-pruned", "name": "narrow", "of": "median", "macs": 0.8, "steps": 1,
                 "training": TRAINING | {"epochs": 1}},
                {"kind": "quantized", "name": "int8", "of": "narrow", "calibration_pictures": 8},
            ],
        },
        "bootstrap_resamples": 100,
        "shard_size": 20,
    }  # fmt: skip


def _save(folder: Path, number: int, form: str, quality: int | None, upsampled: bool) -> None:
    random = np.random.default_rng([*folder.name.encode(), number])
    small = gaussian_filter(random.normal(size=(120, 160, 3)), (4, 4, 0)) * 300 + 128
    if upsampled:
        small = small[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    else:
        small += random.normal(size=small.shape) * 3
    picture = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
    options = {} if quality is None else {"quality": quality}
    picture.save(folder / f"{number:03d}.{form.lower()}", form, **options)
