"""The offline sample, as small as it gets with all of its stages: overrides of the experiment `sample`."""

from typing import Any

_PICTURES_AND_SVMS: dict[str, Any] = {
    "sources.photographs.crops_per_photograph": 3,
    "sources.gan.count": 24,
    "sources.gan.gan.epochs": 3,
    "sources.tiny-diffusion.diffusion.steps": 2,
    "extractor.side": 32,
    "resolutions": [64],
    "qualities": [None, 20],
    "augmented_qualities": [None, 20],
    "seed_protocol": None,
    "bootstrap_resamples": 100,
}

SMALL: dict[str, Any] = _PICTURES_AND_SVMS | {
    "mobile.networks": [
        {
            "kind": "fine-tuned",
            "name": "dense",
            "width": 0.35,
            "side": 32,
            "weights": "random:0",
            "training": {"epochs": 1, "batch": 8},
        },
        {"kind": "quantized", "name": "int8", "of": "dense", "calibration_pictures": 12},
    ],
}

_QUICK = {"epochs": 1, "batch": 8}

EVERY_KIND_OF_STEP: dict[str, Any] = _PICTURES_AND_SVMS | {
    "mobile.networks": [
        {
            "kind": "fine-tuned",
            "name": "dense",
            "width": 0.35,
            "side": 32,
            "unlocked": "all",
            "weights": "random:0",
            "training": _QUICK,
        },
        {"kind": "magnitude-pruned", "name": "sparse", "of": "dense", "training": _QUICK},
        {"kind": "structure-pruned", "name": "pruned", "of": "dense", "macs": 0.6, "steps": 2, "training": _QUICK},
        {
            "kind": "distilled",
            "name": "distilled",
            "of": "pruned",
            "teachers": ["dense", "svm"],
            "seeds": 1,
            "training": _QUICK,
        },
        {"kind": "quantized", "name": "int8", "of": "distilled", "calibration_pictures": 12},
    ],
}

WITHOUT_NETWORKS: dict[str, Any] = _PICTURES_AND_SVMS | {"mobile": None}
