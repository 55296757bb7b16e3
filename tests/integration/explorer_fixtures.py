"""A small made-up run for the explorer's tests, and Python's figures of it.

`python -m tests.integration.explorer_fixtures FOLDER` writes `data/`, as an evaluation publishes it, and
`expected.json`.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from deployments.reports import POLICY
from tasks.explorer.files import explorer_files
from tasks.explorer.pictures import Answers, ShownPictures, ShownSource
from tasks.explorer.views import VIEW_SCHEMA
from tasks.report.page import render_html
from tasks.spec.detectors import Role
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell
from tests.unit.test_report import make_data

RESOLUTIONS, PERTURBATIONS = ("64", "128"), ("none", "q20", "blur-2")
SOURCES = [("coco", 0, "coco"), ("coco-as-sd14", 0, "coco"), ("gan", 1, "gan"), ("sd14", 1, "sd14")]
COUNTS = [100, 50, 75, 75]
DETECTORS: list[tuple[str, str, Role]] = [
    ("svm", "VGG16 and SVM", "detector"),
    ("network", "MobileNetV2", "detector"),
    ("file-size", "Size of the file", "probe"),
]
# How far apart the classes' scores lie, by detector and perturbation.
STRENGTHS = {"svm": (3.0, 1.2, 1.8), "network": (4.0, 2.2, 1.0), "file-size": (0.4, 0.3, 0.2)}
MIXES = [
    Mix(name="combined", real=("coco",), fakes=("gan", "sd14")),
    Mix(name="matched", real=("coco-as-sd14",), fakes=("sd14",)),
]
FOLDS = 3
# A few pictures in each file.
PACK_BYTES = 20_000
WITHOUT_THUMBNAIL = 5
# The picture whose answers everywhere are compared.
OPENED = 237
HOSTILE = '<img src=x onerror="document.title=1"> & "quotes"'


def write(folder: Path) -> None:
    """Write the run's files as an evaluation does, `expected.json`, and a report of the unit tests' run beside them."""
    random = np.random.default_rng(7)
    sources = np.repeat(np.arange(len(SOURCES)), COUNTS)
    folds = random.integers(0, FOLDS, len(sources))
    thresholds = {name: thresholds_of(random, name) for name, _, _ in DETECTORS}
    scores = {
        f"{resolution}/{perturbation}": scores_of(random, sources, place)
        for resolution in RESOLUTIONS
        for place, perturbation in enumerate(PERTURBATIONS)
    }
    pictures = ShownPictures(
        rows_of(random, sources, folds),
        {
            (cell, name): Answers(p, {int(fold): limit for fold, limit in thresholds[name][cell].items()})
            for cell, of in scores.items()
            for name, p in of.items()
        },
        DETECTORS,
    )
    files = explorer_files(
        pictures,
        views_of(pictures.rows, list(scores)),
        [Cell.parse(cell) for cell in scores],
        [ShownSource(name=name, of=of, label=label, thumbnails=()) for name, label, of in SOURCES],
        MIXES,
        pl.DataFrame([paired_test()]),
        "fair",
        "sample",
        pack_bytes=PACK_BYTES,
    )
    files["run.json"] = json.dumps(json.loads(files["run.json"]) | {"run": "sample-0123456789ab"}).encode()
    # Some files can be read by pages, those of an older writer cannot.
    for number in (0, 2, 4):
        files[f"scores-{number}.parquet"] = without_index(files[f"scores-{number}.parquet"])
    for name, content in files.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "report.html").write_text(render_html(make_data()), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps({"policy": POLICY}))
    expectations = expected(sources, folds, thresholds, scores)
    (folder / "expected.json").write_text(json.dumps(expectations, allow_nan=False))


def without_index(data: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)), buffer)
    return buffer.getvalue()


def thresholds_of(random: np.random.Generator, name: str) -> dict[str, dict[str, float | None]]:
    """By cell and fold, those of a resolution alike; the probe lacks one."""
    own: dict[str, dict[str, float | None]] = {
        resolution: {str(fold): round(float(random.uniform(0.4, 0.6)), 4) for fold in range(FOLDS)}
        for resolution in RESOLUTIONS
    }
    if name == "file-size":
        own["128"]["2"] = None
    return {f"{resolution}/{each}": own[resolution] for resolution in RESOLUTIONS for each in PERTURBATIONS}


def scores_of(
    random: np.random.Generator, sources: npt.NDArray[np.int64], place: int
) -> dict[str, npt.NDArray[np.float64]]:
    """p(fake) by detector, NaN for the first three pictures of `network`."""
    truth = np.array([label for _, label, _ in SOURCES])[sources]
    found = {}
    for name, _, _ in DETECTORS:
        logits = (2 * truth - 1) * STRENGTHS[name][place] / 2 + random.normal(size=len(truth))
        # Ties occur, as they do where scores are rounded.
        found[name] = np.round(1 / (1 + np.exp(-logits)), 3)
    found["network"][:3] = np.nan
    return found


def rows_of(random: np.random.Generator, sources: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Facts, texts and thumbnails."""
    rows = len(sources)
    widths, heights = random.integers(200, 1200, rows), random.integers(200, 1200, rows)
    quality = np.where(random.random(rows) < 0.5, random.integers(40, 100, rows), -1)
    photographs = photographs_at_hand()
    names = [f"{SOURCES[source][0]}-{row:04d}" for row, source in enumerate(sources)]
    things = ["a cat on a sofa", "a rocket at night", "a cup of coffee", "a horse in a field", HOSTILE]
    words = [things[row % len(things)] for row in range(rows)]
    generated = [SOURCES[source][1] == 1 for source in sources]
    thumbnails = [webp(picture_of(random, photographs, SOURCES[sources[row]][0], row)) for row in range(rows)]
    return pl.DataFrame(
        {
            "source": [SOURCES[source][0] for source in sources],
            "image_id": names,
            "fold": folds,
            "group": np.arange(rows) % 100,
            "group_id": [f"group-{row % 100}" for row in range(rows)],
            "file": [f"{name}.png" for name in names],
            "width": widths,
            "height": heights,
            "bytes": widths * heights // 7,
            "format": ["PNG" if value < 0 else "JPEG" for value in quality],
            "jpeg_quality": [None if value < 0 else int(value) for value in quality],
            "prompt": [word if made else None for word, made in zip(words, generated, strict=True)],
            "caption": [None if made else word for word, made in zip(words, generated, strict=True)],
            "categories": [["cat", "sofa"] if "cat" in word else None for word in words],
            "licence": ["CC BY 2.0"] * rows,
            "sha256": [f"{row:064x}" for row in range(rows)],
            "thumbnail": [None if row == WITHOUT_THUMBNAIL else data for row, data in enumerate(thumbnails)],
        }
    )


def views_of(rows: pl.DataFrame, cells: list[str]) -> pl.DataFrame:
    """Of the picture that is opened its views in all cells but the last, ever smaller, and a network's map."""
    of = dict(zip(("source", "image_id"), rows.select("source", "image_id").row(OPENED), strict=True))
    picture = Image.open(io.BytesIO(rows["thumbnail"][OPENED]))
    shown = [(cell, None, 128 - 16 * place) for place, cell in enumerate(cells[:-1])] + [(None, "network", 64)]
    made = [
        of | {"cell": cell, "detector": name, "picture": webp(picture.resize((side, side)))}
        for cell, name, side in shown
    ]
    return pl.DataFrame(pa.Table.from_pylist(made, schema=VIEW_SCHEMA))


def photographs_at_hand() -> list[Image.Image]:
    """Photographs of scikit-image's wheel."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = [
        "astronaut.png",
        "coffee.png",
        "chelsea.png",
        "rocket.jpg",
        "motorcycle_left.png",
        "retina.jpg",
        "hubble_deep_field.jpg",
        "ihc.png",
    ]
    return [Image.open(folder / name).convert("RGB") for name in names]


def picture_of(random: np.random.Generator, photographs: list[Image.Image], source: str, row: int) -> Image.Image:
    """A crop of a photograph; generated ones are blurred, or reduced to few colours."""
    whole = photographs[row % len(photographs)]
    side = int(random.integers(150, 260))
    left, top = int(random.integers(0, whole.width - side)), int(random.integers(0, whole.height - side))
    crop = whole.crop((left, top, left + side, top + side)).resize((128, 128), Image.Resampling.LANCZOS)
    if source == "gan":
        return crop.filter(ImageFilter.GaussianBlur(3))
    return crop.quantize(12).convert("RGB") if source == "sd14" else crop


def webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70)
    return buffer.getvalue()


def paired_test() -> dict[str, Any]:
    """One of the report's, of the network minus the SVM."""
    names = {"detector": "network", "than_detector": "svm", "perturbation": "q20", "than_perturbation": "q20"}
    return {
        **names,
        "resolution": "64",
        "mix": "combined",
        "metric": "auroc",
        "difference": 0.05,
        "low": 0.01,
        "high": 0.09,
        "p": 0.02,
    }


def expected(
    sources: npt.NDArray[np.int64], folds: npt.NDArray[np.int64], thresholds: dict[str, Any], scores: dict[str, Any]
) -> dict[str, Any]:
    """Figures by `cell detector mix`; by cell McNemar's test of the SVM against the network, in the combined mix."""
    truth = np.array([label for _, label, _ in SOURCES])[sources]
    names = np.array([name for name, _, _ in SOURCES])[sources]
    figures, said = {}, {}
    for cell, columns in scores.items():
        for detector, p in columns.items():
            own = thresholds[detector][cell]
            limits = np.array([np.nan if own[str(fold)] is None else own[str(fold)] for fold in range(FOLDS)])[folds]
            known = ~np.isnan(p) & ~np.isnan(limits)
            said[cell, detector] = (p >= limits, known)
            for mix in MIXES:
                part = np.isin(names, [*mix.real, *mix.fakes])
                figures[f"{cell} {detector} {mix.name}"] = figures_of(truth, p, p >= limits, part, known & part)
    part = np.isin(names, ["coco", "gan", "sd14"])
    return {
        "figures": figures,
        "paired": {cell: paired(truth, said[cell, "svm"], said[cell, "network"], part) for cell in scores},
        "opened": {
            "row": OPENED,
            "p": {cell: {name: p[OPENED] for name, p in of.items()} for cell, of in scores.items()},
        },
    }


def figures_of(truth: Any, p: Any, said: Any, part: Any, known: Any) -> dict[str, Any]:
    alarms, missed = known & (truth == 0) & said, known & (truth == 1) & ~said
    scored = part & ~np.isnan(p)
    return {
        "false_alarms": np.flatnonzero(alarms)[np.argsort(-p[alarms], kind="stable")].tolist(),
        "missed": int(missed.sum()),
        "right": int(known.sum() - alarms.sum() - missed.sum()),
        "balanced_accuracy": float(balanced_accuracy_score(truth[known], said[known])),
        "auroc": float(roc_auc_score(truth[scored], p[scored])),
        "at_half": {
            "false_alarms": int((scored & (truth == 0) & (p >= 0.5)).sum()),
            "balanced_accuracy": float(balanced_accuracy_score(truth[scored], p[scored] >= 0.5)),
        },
    }


def paired(truth: Any, one: Any, other: Any, part: Any) -> dict[str, Any]:
    both = part & one[1] & other[1]
    first, second = one[0][both] == truth[both], other[0][both] == truth[both]
    counts = [int((first & ~second).sum()), int((~first & second).sum())]
    return {
        "first": counts[0],
        "second": counts[1],
        "p": float(binomtest(counts[0], sum(counts)).pvalue) if sum(counts) else 1.0,
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]))
