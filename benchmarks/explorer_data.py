"""A made-up run of many pictures, for the explorer's speed: `python -m benchmarks.explorer_data FOLDER [PICTURES]`.

Writes FOLDER/data as an evaluation publishes it, and copies the built page beside it. `npm run speed` measures there.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RESOLUTIONS, PERTURBATIONS = ("native", "256", "64"), ("none", "q60", "q40", "q20")
SOURCES = [("coco", 0), ("gan", 1), ("sd14", 1), ("sdxl", 1)]
DETECTORS = [("svm", "detector"), ("network", "detector"), ("hub", "detector"), ("file-size", "probe")]
FOLDS = 5
MOST_BYTES = 2_000_000
DISTINCT = 200
WORDS_AT_ONCE = 25_000


def write(folder: Path, pictures: int) -> None:
    """Write the run; half of its pictures are photographs."""
    random = np.random.default_rng(0)
    data = folder / "data"
    sources = np.sort(np.where(np.arange(pictures) % 2 == 0, 0, 1 + np.arange(pictures) // 2 % 3)).astype(np.int32)
    cells = [f"{resolution}/{perturbation}" for resolution in RESOLUTIONS for perturbation in PERTURBATIONS]
    for number in range(len(cells)):
        strength = 4 - 0.25 * number
        logits = (2 * (sources > 0) - 1) * strength / 2 + random.normal(size=(len(DETECTORS), pictures))
        scores = {name: 1 / (1 + np.exp(-logits[row])) for row, (name, _) in enumerate(DETECTORS)}
        put(data / f"scores-{number}.parquet", scores, data_page_size=16_384, use_dictionary=False)
    thumbnails = put_thumbnails(data, random, pictures)
    put(data / "pictures.parquet", {"source": sources, **facts(random, pictures), **thumbnails})
    words = texts(sources)
    put(data / "texts.parquet", words, row_group_size=2_000)
    put_words(data, words)
    files = int(thumbnails["thumbnail"].max()) + 1 if pictures else 0
    (data / "run.json").write_text(json.dumps(run(pictures, cells, files)))
    (data / "pairs.json").write_text("[]")
    shutil.copytree(Path(__file__).parents[1] / "tasks" / "explorer" / "page", folder, dirs_exist_ok=True)


def put(path: Path, columns: dict[str, np.ndarray] | dict[str, list[str]], **options: object) -> None:
    """Write columns that lack no value, with an index of their pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(column) for name, column in columns.items()}
    schema = pa.schema([pa.field(name, array.type, nullable=False) for name, array in arrays.items()])
    pq.write_table(pa.table(arrays, schema), path, compression="snappy", write_page_index=True, **options)


def put_thumbnails(folder: Path, random: np.random.Generator, pictures: int) -> dict[str, np.ndarray]:
    """Pack thumbnails, DISTINCT of them over and over; returns where each lies."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [thumbnail(random) for _ in range(DISTINCT)]
    lengths = np.array([len(each) for each in made])[np.arange(pictures) % DISTINCT]
    ends = np.cumsum(lengths)
    files = (ends - 1) // MOST_BYTES
    starts = ends - lengths
    first = np.zeros(int(files.max(initial=-1)) + 1, np.int64)
    for number in range(len(first)):
        rows = np.flatnonzero(files == number)
        first[number] = starts[rows[0]]
        (folder / f"thumbnails-{number}.bin").write_bytes(b"".join(made[row % DISTINCT] for row in rows))
    columns = {"thumbnail": files, "offset": starts - first[files], "length": lengths}
    return {name: column.astype(np.int32) for name, column in columns.items()}


def thumbnail(random: np.random.Generator) -> bytes:
    noise = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
    grain = np.clip(np.asarray(noise) + random.normal(0, 12, (128, 128, 1)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grain).save(buffer, "WEBP", quality=60)
    return buffer.getvalue()


def facts(random: np.random.Generator, pictures: int) -> dict[str, np.ndarray]:
    limits = {"fold": (0, FOLDS), "width": (256, 1024), "height": (256, 1024), "bytes": (9_000, 900_000)}
    limits |= {"format": (0, 1), "jpeg_quality": (40, 100)}
    columns = {name: random.integers(low, high, pictures, np.int32) for name, (low, high) in limits.items()}
    return {**columns, "group": (np.arange(pictures) // 2).astype(np.int32)}


def texts(sources: np.ndarray) -> dict[str, list[str]]:
    rows = range(len(sources))
    names = [f"{SOURCES[source][0]}-{row:08d}" for row, source in enumerate(sources)]
    prompts = [
        f"a photograph of thing {row % 977} beside thing {row % 641}, in the light of the morning" for row in rows
    ]
    digests = [f"{row * 2654435761 % 2**64:064x}" for row in rows]
    found = {
        "image_id": names,
        "group_id": names,
        "file": names,
        "prompt": prompts,
        "caption": prompts,
        "sha256": digests,
    }
    return {**found, "categories": ["thing, light"] * len(names), "licence": ["CC BY 2.0"] * len(names)}


def put_words(folder: Path, words: dict[str, list[str]]) -> None:
    """What is searched, as `tasks.explorer.files` writes it."""
    searched = [words[name] for name in ("image_id", "file", "prompt", "caption", "categories")]
    lines = ["\t".join(row).lower() + "\n" for row in zip(*searched, strict=True)]
    for start in range(0, len(lines), WORDS_AT_ONCE):
        part = "".join(lines[start : start + WORDS_AT_ONCE]).encode()
        (folder / f"words-{start // WORDS_AT_ONCE}.bin").write_bytes(gzip.compress(part, mtime=0))


def run(pictures: int, cells: list[str], files: int) -> dict[str, object]:
    own = {cell: {str(fold): 0.5 for fold in range(FOLDS)} for cell in cells}
    parts = [(name, *name.split("/"), f"scores-{number}.parquet") for number, name in enumerate(cells)]
    found: dict[str, object] = {"version": 1, "run": "made-up-0123456789ab", "experiment": "made-up", "path": "fair"}
    found |= {"pictures": pictures, "thumbnails": files, "formats": ["JPEG"]}
    found["words"] = {"files": -(-pictures // WORDS_AT_ONCE), "pictures": WORDS_AT_ONCE}
    found["views"] = {"rows": 0, "pictures": 0}
    found["cells"] = [dict(zip(("name", "resolution", "perturbation", "file"), part, strict=True)) for part in parts]
    found["detectors"] = [{"name": name, "title": name, "role": role, "thresholds": own} for name, role in DETECTORS]
    found["sources"] = [{"name": name, "label": label, "of": name} for name, label in SOURCES]
    found["mixes"] = [{"name": "combined", "real": ["coco"], "fakes": [name for name, label in SOURCES if label]}]
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
