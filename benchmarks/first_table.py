"""The first project's whole table, from picture files to accuracies: its method written plainly, against the flow.

The plain way takes row after row: it reads, stretches and embeds the row's training pictures one by one, fits
`SVC(kernel="linear")`, and reads, stretches, compresses, embeds and judges the row's test pictures one by one. That is
the first stage of the ablation, every defect included, so that both ways decide alike. telltale's way is the flow
`evaluate` of an experiment with the same sources and `seed_protocol.ablation: false`, on a Prefect server that runs
already. What it makes beside the table: one cell of the fair grid with its heads, the probe, the control with shuffled
labels, distances, example pictures and the report.

A row of the plain way takes as long whatever other rows are made beside it. So each is measured once, at each size, and
counts for all rows of the benchmark that one process measures: the table, one with a row more, the same again.

Pictures are made from the photographs of `benchmarks.inputs`: crops as photographs, and of each one shuffled and
smoothed in place of a generator's picture; TELLTALE_BENCH_FAKES names a folder of pictures to take for Stable
Diffusion's instead. TELLTALE_BENCH_VGG16 names VGG16's weights (safetensors), without which they are random.
"""

from __future__ import annotations

import atexit
import functools
import io
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageFilter

from benchmarks import inputs
from benchmarks.harness import Case, Unequal
from benchmarks.inputs import CANONICAL
from benchmarks.orchestration import evaluate, rest, serve
from benchmarks.views import plain_view
from storage.errors import MissingInput
from storage.objects import find, manifest_of, read_table
from storage.paths import absolute
from storage.store import open_store
from storage.tables import FAKE, REAL
from tasks.data.pictures import encode_jpeg
from tasks.detectors.svm import balanced_weights
from tasks.detectors.vgg16 import MEAN, STD, find_problem, load_vgg16, read_vgg16_tensors
from tasks.evaluation.classification import draw_balanced_mix
from tasks.evaluation.protocols import Scoring, StageRow, stage_rows
from tasks.evaluation.report_tables import cell_name
from tasks.presets import load_experiment
from tasks.spec import Experiment, Vgg16Spec, View
from tasks.variables import needed

if TYPE_CHECKING:
    import torch

WEIGHTS_SETTING = "TELLTALE_BENCH_VGG16"
FAKES_SETTING = "TELLTALE_BENCH_FAKES"

REAL_SOURCE, GAN, STABLE = "photographs", "gan", "stable"
GAN_SIDE = 64
# The compressed rows that are added to the table, in this order, each once.
FURTHER_QUALITIES = (80, 70, 50, 30, 90, 10)

# Of decisions, over the largest of their row, which is about the margin: libsvm ends where its conditions hold to 1e-3
# of the margin, on either side, so that equal features in another order of sums give decisions that far apart.
TOLERANCE = 2e-3

# How alike thumbnails of two photographs may be: telltale takes those above 0.98 for one picture.
_DIFFERENT = 0.95
_TRIES = 200

PictureKey = tuple[str, str]  # source, image id
Decisions = dict[PictureKey, float]
Place = tuple[str, View]  # resolution that the head was fitted at, view that is judged


@dataclass(frozen=True)
class Scale:
    """How large pictures are, in pixels: as the first project's, or half."""

    photograph: tuple[int, int]
    stable: int
    canonical: int
    side: int


REDUCED = Scale((320, 240), 256, 192, 112)
FULL = Scale((640, 480), 512, 320, 224)
# From so many pictures per source and split.
FULL_FROM = 8


@dataclass(frozen=True)
class PlainRow:
    """What the plain way decided in a row, and how long its fit and all of it took."""

    decisions: Decisions
    fit_s: float
    seconds: float


@dataclass(frozen=True)
class PlainTable:
    """What the plain way decided, by row; and how long it took to fit what an earlier row had fitted already."""

    decisions: Mapping[str, Decisions]
    fitted_again_s: float
    seconds: float


@dataclass(frozen=True)
class OurTable:
    """What a run of the flow left: the store, the run's place there, and the rows that the table has."""

    store: str
    place: str
    overrides: dict[str, Any]
    seconds: float


@dataclass
class Pictures:
    """The pictures of one size on disk, and the rows that the plain way has made of them."""

    folder: Path
    made: dict[str, PlainRow] = field(default_factory=dict)


@dataclass
class Bench:
    """An experiment on such pictures; stores lie beside them. `store` is one in which the table is made already."""

    pictures: Pictures
    experiment: str
    store: str | None = None

    def cold(self) -> tuple[float, OurTable]:
        """telltale's way in an empty store."""
        store = tempfile.mkdtemp(prefix="store-", dir=self.pictures.folder)
        made = self.run(store)
        self.store = store
        return made

    def warm_store(self) -> str:
        """A store of a finished run."""
        if self.store is None:
            self.cold()
        assert self.store is not None
        return self.store

    def run(self, store: str, overrides: dict[str, Any] | None = None) -> tuple[float, OurTable]:
        """telltale's way: its seconds, and what it left."""
        rest()
        began = time.perf_counter()
        place = evaluate(store, self.experiment, overrides)
        table = OurTable(store, place, overrides or {}, time.perf_counter() - began)
        return table.seconds, table

    def plain(self, threads: int, overrides: dict[str, Any] | None = None) -> tuple[float, PlainTable]:
        """The plain way: its seconds, and what it decided."""
        table = plain_table(self.pictures, load_experiment(self.experiment, overrides), threads)
        return table.seconds, table


@contextmanager
def cold_case(size: int, threads: int) -> Iterator[Case]:
    """The table from so many pictures per source and split, in an empty store."""
    bench = _bench(size)
    yield Case(lambda: bench.plain(threads), bench.cold, lambda p, o: compare(bench, p, o))


@contextmanager
def added_case(size: int, threads: int) -> Iterator[Case]:
    """The same where the table is there already, and one compressed row is added; plainly everything is made again."""
    bench = _bench(size)
    store = bench.warm_store()
    rows = _growing_tables()
    yield Case(
        lambda: bench.plain(threads, _with_qualities(FURTHER_QUALITIES[:1])),
        lambda: bench.run(store, next(rows)),
        lambda p, o: compare(bench, p, o),
    )


@contextmanager
def again_case(size: int, threads: int) -> Iterator[Case]:
    """The same where the table is there already, and nothing has changed."""
    bench = _bench(size)
    store = bench.warm_store()
    yield Case(lambda: bench.plain(threads), lambda: bench.run(store), lambda p, o: compare(bench, p, o))


def _with_qualities(further: Sequence[int]) -> dict[str, Any]:
    return {"seed_protocol.qualities": [20, 40, 60, *further]}


def _growing_tables() -> Iterator[dict[str, Any]]:
    for count in itertools.count(1):
        yield _with_qualities(FURTHER_QUALITIES[:count])


@functools.cache
def _bench(size: int) -> Bench:
    """One for all rows of this process."""
    serve()
    pictures = _pictures(size)
    document = experiment_document(pictures.folder, size, _scale(size))
    file = pictures.folder / "table.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    return Bench(pictures, str(file))


@functools.cache
def _pictures(size: int) -> Pictures:
    folder = Path(tempfile.mkdtemp(prefix="telltale-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_pictures(folder, size, _scale(size))
    return Pictures(folder)


def _scale(size: int) -> Scale:
    return FULL if size >= FULL_FROM else REDUCED


# -- the pictures


def val_count(size: int) -> int:
    """How many validation pictures of each source: the fair cell beside the table chooses its threshold on them."""
    return max(2, size // 4)


def write_pictures(folder: Path, size: int, scale: Scale) -> None:
    """Train, test and val pictures of the three sources, in this order, and which photograph each fake belongs to."""
    count = 2 * size + val_count(size)
    for source in (REAL_SOURCE, GAN, STABLE):
        (folder / source).mkdir()
    named = _named_fakes()
    for number, photograph in enumerate(photographs(count, scale.photograph)):
        random = np.random.default_rng((2, number))
        photograph.save(folder / REAL_SOURCE / f"{number:05d}.jpg", quality=92)
        shuffled(photograph, 8, GAN_SIDE, random).save(folder / GAN / f"{number:05d}.png")
        fake = shuffled(photograph, 4, scale.stable, random).filter(ImageFilter.GaussianBlur(1))
        if named:
            with Image.open(named[number % len(named)]) as image:
                fake = image.convert("RGB").resize((scale.stable, scale.stable), Image.Resampling.BICUBIC)
        fake.save(folder / STABLE / f"{number:05d}.jpg", quality=75)
    for source, suffix in ((GAN, "png"), (STABLE, "jpg")):
        rows = [
            {"file_name": f"{number:05d}.{suffix}", "group_id": f"{REAL_SOURCE}:{number:05d}.jpg"}
            for number in range(count)
        ]
        (folder / f"{source}.json").write_text(json.dumps(rows), encoding="utf-8")


def photographs(count: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """So many different crops of the photographs at hand, each of this size: the same ones every time.

    Raises:
        MissingInput: there are too few photographs to cut so many from.
    """
    files = [data for _, data in inputs.pictures(count)]
    kept: list[npt.NDArray[np.float64]] = []
    for number, data in enumerate(files):
        with Image.open(io.BytesIO(data)) as image:
            whole = image.convert("RGB")
        for trial in range(_TRIES):
            crop = _crop(whole, size, np.random.default_rng((1, number, trial)))
            thumbnail = _thumbnail(crop)
            if all(float(thumbnail @ other) < _DIFFERENT for other in kept):
                break
        else:
            raise MissingInput(f"more photographs than these: no {number + 1} different crops were found in them")
        kept.append(thumbnail)
        yield crop


def _crop(whole: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    largest = min(whole.width / size[0], whole.height / size[1])
    scale = largest * random.uniform(0.35, 0.95)
    width, height = int(size[0] * scale), int(size[1] * scale)
    left, top = (int(random.integers(0, room + 1)) for room in (whole.width - width, whole.height - height))
    crop = whole.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if random.random() < 0.5:
            crop = crop.transpose(flip)
    return crop


def _thumbnail(picture: Image.Image) -> npt.NDArray[np.float64]:
    """Luma of 32x32 pixels (1024,), centred, of length 1: products are correlations."""
    luma = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64).ravel()
    luma -= luma.mean()
    return luma / max(1e-9, float(np.linalg.norm(luma)))


def shuffled(picture: Image.Image, blocks: int, side: int, random: np.random.Generator) -> Image.Image:
    """A square picture of blocks x blocks pieces of another one, in another order."""
    square = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
    edge = side // blocks
    pieces = square.reshape(blocks, edge, blocks, edge, 3).swapaxes(1, 2).reshape(-1, edge, edge, 3)
    pieces = pieces[random.permutation(len(pieces))]
    return Image.fromarray(pieces.reshape(blocks, blocks, edge, edge, 3).swapaxes(1, 2).reshape(side, side, 3))


def _named_fakes() -> list[Path]:
    folder = os.environ.get(FAKES_SETTING)
    if not folder:
        return []
    found = sorted(path for path in absolute(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise MissingInput(f"a JPEG or PNG file in {folder} ({FAKES_SETTING})")
    return found


def experiment_document(folder: Path, size: int, scale: Scale) -> dict[str, Any]:
    """The experiment: the first project's table on these pictures, and as little else as the flow can do."""
    fakes = {
        source: {"kind": "folder", "name": source, "path": str(folder / source), "label": "fake"}
        | {"metadata": str(folder / f"{source}.json")}
        for source in (GAN, STABLE)
    }
    return {
        "name": "first-table",
        "sources": [
            {"kind": "folder", "name": REAL_SOURCE, "path": str(folder / REAL_SOURCE), "label": "real"},
            fakes[GAN] | {"smaller_by_nature": True},
            fakes[STABLE],
        ],
        "splits": {
            "kind": "fixed",
            "ranges": {"train": [0, size], "test": [size, 2 * size], "val": [2 * size, 2 * size + val_count(size)]},
        },
        "canonical_side": scale.canonical,
        "resolutions": [64],
        "qualities": [None],
        "augmented_qualities": [None],
        "training_seeds": 1,
        "bootstrap_resamples": 100,
        "extractor": {
            "kind": "vgg16",
            "layer": features_layer(),
            "side": scale.side,
            "weights": os.environ.get(WEIGHTS_SETTING) or "random:0",
        },
        "seed_protocol": {"real": REAL_SOURCE, "gan": GAN, "stable": STABLE, "ablation": False},
    }


def features_layer() -> str:
    """fc7, the first project's, of named weights that hold it; else pool5-avg.

    Behind random connected layers all pictures are alike but for a thousandth, and rounding decides.
    """
    named = os.environ.get(WEIGHTS_SETTING)
    return "pool5-avg" if not named or find_problem(absolute(named), "fc7") else "fc7"


# -- the plain way


def plain_table(pictures: Pictures, experiment: Experiment, threads: int) -> PlainTable:
    """Row after row, one picture at a time, one SVM per row; VGG16 in float32 with torch's own threads."""
    import torch

    torch.set_num_threads(threads)
    began = time.perf_counter()
    spec = experiment.extractor
    network = plain_network(spec)
    seconds = time.perf_counter() - began
    decisions: dict[str, Decisions] = {}
    fitted: set[str] = set()
    again = 0.0
    for row in stage_rows(experiment, spec):
        name = row_name(row)
        if name not in pictures.made:
            pictures.made[name] = plain_row(pictures.folder, experiment, row, network)
        made = pictures.made[name]
        decisions[name] = made.decisions
        seconds += made.seconds
        resolution = str(row.real.head.views[0].resolution)
        again += made.fit_s if resolution in fitted else 0.0
        fitted.add(resolution)
    return PlainTable(decisions, again, seconds)


def plain_row(folder: Path, experiment: Experiment, row: StageRow, network: torch.nn.Module) -> PlainRow:
    """One row from the files on."""
    began = time.perf_counter()
    machine = _plain_fit(folder, experiment, row, network)
    fit_s = time.perf_counter() - began
    decisions = _plain_test(folder, experiment, row, network, machine)
    return PlainRow(decisions, fit_s, time.perf_counter() - began)


def row_name(row: StageRow) -> str:
    """For example `combined 64/q20`."""
    return f"{row.row.mix} {row.row.cell.name}"


def plain_network(spec: Vgg16Spec) -> torch.nn.Module:
    """VGG16 as torch lays it out: channels first."""
    import torch

    tensors = None if spec.weights.startswith("random:") else read_vgg16_tensors(Path(needed(spec.weights)), spec.layer)
    return load_vgg16(spec, tensors).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def plain_features(path: Path, view: View, side: int | None, network: torch.nn.Module) -> npt.NDArray[np.float32]:
    """Features (D,) of one file in a view, brought to the network's side, or at its own size."""
    import torch

    # The flow's JPEG encoder, which is not slower than Pillow's: otherwise compressed rows would differ by encoder.
    picture = Image.fromarray(plain_view((path.name, path.read_bytes()), view, CANONICAL, encode_jpeg))
    if side is not None:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous().float() / 255  # (1, 3, H, W)
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        features: npt.NDArray[np.float32] = network(x)[0].numpy()
    return features


def files_of(folder: Path, experiment: Experiment, sources: Sequence[str], split: str) -> list[tuple[str, Path]]:
    """The files (source, path) of a split, which is a range of every source's sorted files."""
    start, stop = experiment.splits.ranges[split]  # type: ignore[union-attr, index]
    return [(source, path) for source in sources for path in sorted((folder / source).iterdir())[start:stop]]


def _plain_fit(folder: Path, experiment: Experiment, row: StageRow, network: torch.nn.Module) -> Any:
    from sklearn.svm import SVC

    head = row.real.head
    files = files_of(folder, experiment, (*head.real, *head.fakes), "train")
    side = experiment.extractor.side
    X = np.stack([plain_features(path, head.views[0], side, network) for _, path in files]).astype(np.float64)
    sources = np.array([source for source, _ in files])
    y = np.isin(sources, head.fakes).astype(np.int64)
    return SVC(kernel="linear", C=head.svm.c_values[0]).fit(X, y, sample_weight=balanced_weights(y, sources))


def _plain_test(
    folder: Path, experiment: Experiment, row: StageRow, network: torch.nn.Module, machine: Any
) -> Decisions:
    decisions = {}
    for scoring, source, path in drawn_files(folder, experiment, row):
        features = plain_features(path, scoring.view, None, network)
        decisions[source, f"{source}:{path.name}"] = float(machine.decision_function(features[None])[0])
    return decisions


def drawn_files(folder: Path, experiment: Experiment, row: StageRow) -> list[tuple[Scoring, str, Path]]:
    """The row's test pictures: as many photographs as fakes, and equally many of each source."""
    listed = [
        (scoring, source, path)
        for scoring in (row.real, row.fake)
        for source, path in files_of(folder, experiment, scoring.sources, "test")
    ]
    drawn = draw_balanced_mix(
        [f"{source}:{path.name}" for _, source, path in listed],
        [REAL if scoring is row.real else FAKE for scoring, _, _ in listed],
        [source for _, source, _ in listed],
        experiment.seed,
    )
    return [file for file, is_drawn in zip(listed, drawn, strict=True) if is_drawn]


# -- the comparison


def compare(bench: Bench, plain: PlainTable, ours: OurTable) -> str:
    """Whether both decided alike on every picture of every row, and give the same accuracies; how nearly, in words."""
    experiment = load_experiment(bench.experiment, ours.overrides)
    stored = stored_decisions(ours.store)
    accuracies = stored_accuracies(ours)
    pairs: list[npt.NDArray[np.float64]] = []
    furthest = worst = 0.0
    for row in stage_rows(experiment, experiment.extractor):
        decided = plain.decisions.get(row_name(row))
        if decided is None:
            continue  # a row that a later run added
        made = row_decisions(stored, row)
        values = np.array([(decision, made[key]) for key, decision in decided.items()])  # (N, 2)
        pairs.append(values)
        furthest = max(furthest, float(np.abs(values[:, 0] - values[:, 1]).max() / np.abs(values[:, 0]).max()))
        right = [(decision > 0) == (source != REAL_SOURCE) for (source, _), decision in decided.items()]
        worst = max(worst, abs(accuracies[row.row.mix, row.row.cell.name] - float(np.mean(right))))
    return _judged(np.concatenate(pairs), furthest, worst) + _said(plain, ours)


def _judged(pairs: npt.NDArray[np.float64], furthest: float, worst: float) -> str:
    flips = int(np.sum((pairs[:, 0] > 0) != (pairs[:, 1] > 0)))
    words = (
        f"{len(pairs)} decisions, {flips} with another sign, the furthest {furthest:.1e} of the largest of its row; "
        f"accuracies of the rows differ by at most {worst:.4f}"
    )
    if furthest > TOLERANCE or (flips == 0 and worst > 1e-9):
        raise Unequal(words)
    return words


def _said(plain: PlainTable, ours: OurTable) -> str:
    once = plain.seconds - plain.fitted_again_s
    return (
        f"; had the plain way fitted one SVM per resolution instead of one per row, it had taken {once:.1f} s "
        f"instead of {plain.seconds:.1f}, and the ratio were {once / ours.seconds:.3g}"
    )


def stored_decisions(store_url: str) -> dict[Place, Decisions]:
    """All decisions on raw views in a store, by the resolution that their head was fitted at and their view."""
    store = open_store(store_url)
    found: dict[Place, Decisions] = {}
    for key in store.list("objects/score"):
        uri, _, name = key.rpartition("/")
        ref = find(store, uri) if name == "manifest.json" else None
        if ref is None:
            continue
        arguments = manifest_of(store, ref).recipe["arguments"]
        view = View.model_validate(arguments["view"])
        fitted_at = str(arguments["head"]["views"][0]["resolution"])
        if view.path != "raw":
            continue
        table = read_table(store, ref, columns=["source", "image_id", "decision"]).to_pydict()
        rows = zip(table["source"], table["image_id"], table["decision"], strict=True)
        found.setdefault((fitted_at, view), {}).update({(source, name): value for source, name, value in rows})
    return found


def row_decisions(stored: Mapping[Place, Decisions], row: StageRow) -> Decisions:
    """The stored decisions of a row: photographs in their view, fakes in theirs."""
    fitted_at = str(row.real.head.views[0].resolution)
    return {
        key: decision
        for scoring in (row.real, row.fake)
        for key, decision in stored[fitted_at, scoring.view].items()
        if key[0] in scoring.sources
    }


def stored_accuracies(ours: OurTable) -> dict[tuple[str, str], float]:
    """Accuracies of the run's seed protocol by mix and cell, as its tables have them."""
    data = open_store(ours.store).read(f"{ours.place}/tables/results.parquet")
    results = pl.read_parquet(io.BytesIO(data)).filter(
        (pl.col("protocol") == "seed") & (pl.col("metric") == "accuracy")
    )
    return {
        (row["mix"], cell_name(row["resolution"], row["jpeg_quality"])): row["value"]
        for row in results.iter_rows(named=True)
    }
