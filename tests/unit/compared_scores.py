"""Scores of imaginary networks on the same pictures, for tests of their comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from storage.tables import SCORE_SCHEMA
from tasks.spec.detectors import Fit

DENSE = Fit(detector="dense")
CLASSES = ("real", "gan", "diffusion")


def network_scores(
    noise: float,
    seed: int,
    fit: Fit = DENSE,
    parents: int = 40,
    sources: Sequence[str] = ("coco", "gan", "diffusion"),
    folds: int = 2,
    classes: Sequence[str] = CLASSES,
) -> pl.DataFrame:
    """Val and test scores of `parents` photographs and as many fakes of each generator, which share their groups.

    More `noise` makes a worse network. The fold of a picture is its group's.
    """
    random = np.random.default_rng(seed)
    rows = []
    for split in ("val", "test"):
        for index in range(parents):
            for source in sources:
                truth = classes.index(source) if source in classes else 0
                logits = 2.0 * np.eye(len(classes))[truth] + random.normal(0, noise, len(classes))
                probabilities = np.exp(logits) / np.exp(logits).sum()
                rows.append(
                    {
                        "image_id": f"{split}-{index:03d}",
                        "group_id": f"{split}-group-{index // 2:03d}",
                        "source": source,
                        "label": 0 if source == "coco" else 1,
                        "split": split,
                        "fold": index // 2 % folds,
                        **fit.model_dump(),
                        "path": "fair",
                        "resolution": "64",
                        "perturbation": "none",
                        "p_fake": 1 - probabilities[0],
                        "decision": float(logits[1:].max() - logits[0]),
                        "class_probabilities": probabilities.tolist(),
                    }
                )
    empty = pl.from_arrow(SCORE_SCHEMA.empty_table())
    assert isinstance(empty, pl.DataFrame)
    return pl.DataFrame(rows, schema=empty.schema)
