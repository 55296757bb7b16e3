"""Shards of generated pictures: what every generator writes alike, and the steps that write them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.digest import digest_of, hash_seed, sha256_hex
from storage.errors import MissingInput, SpecError
from storage.objects import ROWS, Ref, read_table
from storage.store import Store
from storage.tables import FAKE, IMAGE_METADATA, IMAGE_SCHEMA
from tasks.brought_files import folder_digest
from tasks.data.duplicates import collapse_rate, words_of
from tasks.data.encoding import encode_png
from tasks.data.entries import QUARANTINE, quarantine_table, quarantined
from tasks.data.fingerprints import hash_text, perceptual_hash
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.splits import PLACES, Place, place_groups
from tasks.device import device_alone
from tasks.facts import fact
from tasks.generators.dcgan import generate_pictures
from tasks.generators.diffusion import TINY, GeneratedPicture, PictureRequest, generate_images, load_pipeline, prompt_of
from tasks.generators.gan import read_generator
from tasks.generators.kept_models import STORED, local_model
from tasks.generators.sampling import BatchSize, Sampler
from tasks.generators.sheets import embedded, sample_strip, show_in_prefect
from tasks.generators.tiny_model import SHIPPED_WEIGHTS
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.generators import DiffusionSpec
from tasks.spec.splits import FixedSplits, Splits
from tasks.threads import helper_threads, in_order, limit_threads
from tasks.variables import needed

# A part of generate/gan's recipe through its version: pictures depend on it by one level of rounding.
GAN_BATCH = 64
STRIP_PICTURES = 8
# How far encoding may lag behind the device before the device waits.
BATCHES_AHEAD = 4
PHOTOGRAPH_COLUMNS = ("image_id", "group_id", "split", "fold", "caption", "categories")

# At most one, of the last shard on a GPU: loading and compiling take as long as many pictures.
_kept_pipeline: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class GeneratedRow:
    """One generated picture and what decides its place: `pixels` is uint8 (H, W, 3), `seed` lies in 0..2**63 - 1.

    `seed` is None where nothing was drawn.
    """

    image_id: str
    group_id: str
    source: str
    split: str | None
    fold: int | None
    seed: int | None
    pixels: Pixels
    prompt: str | None = None


def generated_table(rows: Iterable[GeneratedRow]) -> pa.Table:
    """Generated pictures as an image shard (`IMAGE_SCHEMA`), kept as PNG so that nothing is lost.

    Rows are encoded as they come, so that an iterator's pixels need not be in memory together.
    """
    return image_table(image_record(row) for row in rows)


def image_table(records: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows of `IMAGE_SCHEMA` as an image shard."""
    return pa.Table.from_pylist(list(records), schema=IMAGE_SCHEMA.with_metadata(IMAGE_METADATA))


def place_generated(group_ids: Sequence[str], splits: Splits, seed: int) -> dict[str, Place]:
    """A split or fold for each picture of a generator whose pictures are groups of their own, in their order.

    As for photographs: named groups first, then explicit ranges of positions, then shares by the rank of a hash.
    """
    ranged: dict[str, Place] = {}
    if isinstance(splits, FixedSplits):
        for split, (first, stop) in splits.ranges.items():
            ranged |= {group: (split, None) for group in group_ids[first:stop] if group not in splits.groups}
    free = sorted(set(group_ids) - ranged.keys())
    places = place_groups(pa.array(free, pa.large_string()), splits, seed)
    return {group: PLACES[place] for group, place in zip(free, places.tolist(), strict=True)} | ranged


def model_digest(model: str) -> str:
    """What stands for a diffusion model in a recipe: a digest of its files, so that no path does.

    `tiny` is the shipped model and a directory any local one: sha256 over relative names and contents of all files
    that are not hidden, which is also the name of a model in the store (`store:<digest>`). A hub id stands for itself,
    as `hub:<id>`: with a revision (`owner/name@<commit>`) that is a digest as well.

    Raises:
        MissingInput: `model` looks like a path and there is no directory.
    """
    if model == TINY:
        return folder_digest(SHIPPED_WEIGHTS)
    if model.startswith(STORED):
        return model.removeprefix(STORED)
    directory = Path(model)
    if directory.is_dir():
        return folder_digest(directory)
    if model.startswith((".", "/")):
        raise MissingInput(f"the diffusion model in {model}: no such directory; name a diffusers directory or a hub id")
    return f"hub:{model}"


@fact(pool="gpu")
def diffusion_model(model: str) -> str:
    """`model_digest` of a model as an experiment names it; raises as that does."""
    return model_digest(needed(model))


def keyed_diffusion(spec: DiffusionSpec) -> DiffusionSpec:
    """The specification with its model replaced by `model_digest`: what a recipe may contain."""
    return spec.model_copy(update={"model": diffusion_model(spec.model)})


@step(
    "generate/gan",
    version=2,
    label=lambda *, source, start, stop, **_: f"{source}/{start:06d}-{stop:06d}",
    libraries=("torch", "pillow"),
    pool="gpu",
)
def generate_gan(
    run: StepRun,
    *,
    weights: Ref,
    source: str,
    count: int,
    start: int,
    stop: int,
    splits: Splits,
    seed: int,
    device: str,
) -> Output:
    """Pictures `start` to `stop` (exclusive) of the `count` that a trained GAN makes for a source.

    Every picture is a group of its own. `count` is the whole source's: splits go by ranks among all of its groups.
    """
    if not 0 <= start < stop <= count:
        raise SpecError(f"{source}: expected 0 <= start < stop <= {count}, got {start} and {stop}")
    image_ids = [f"{source}:{index:06d}" for index in range(count)]
    places = place_generated(image_ids, splits, seed)
    wanted = image_ids[start:stop]
    seeds = [hash_seed("gan", seed, source, image_id) for image_id in wanted]
    progress = run.progress(len(wanted), device=device)

    def make_rows() -> Iterator[GeneratedRow]:
        limit_threads()
        pictures = generate_pictures(read_generator(run.store, weights, device), seeds, GAN_BATCH)
        for image_id, picture_seed, pixels in zip(wanted, seeds, pictures, strict=True):
            yield GeneratedRow(image_id, image_id, source, *places[image_id], picture_seed, pixels)

    records = []
    with device_alone(device):
        threads, ahead = helper_threads(device), BATCHES_AHEAD * GAN_BATCH
        for record in in_order(image_record, make_rows(), threads=threads, ahead=ahead):
            records.append(record)
            progress.advance()
    table = image_table(records)
    show_pictures(run, source, table)
    return Output({ROWS: table}, {"n": table.num_rows, "quarantined": 0, "collapse_rate": _collapse(table)})


@step(
    "generate/diffusion",
    version=2,
    label=lambda *, images, source, **_: f"{source}/{images.digest[:12]}",
    unkeyed=("model",),
    paths=("model",),
    libraries=("torch", "diffusers", "transformers", "pillow"),
    pool="gpu",
)
def generate_diffusion(
    run: StepRun, *, images: Ref, source: str, model: str, diffusion: DiffusionSpec, limit: int | None, device: str
) -> Output:
    """One picture for each of the first `limit` photographs of an image shard, from its caption or categories.

    A picture inherits the photograph's group, split and fold. Photographs without a prompt, and pictures that failed,
    are set aside in `quarantine.parquet`. An attempt after one that broke off goes on after its last piece.

    Raises:
        DeviceLost: the GPU failed, or has not even memory for one picture.

    Args:
        model: hub id, directory, `store:<digest>` or `tiny`; not part of the recipe, `diffusion.model` is in its place.
        diffusion: the specification as `keyed_diffusion` gives it.
        limit: None for all photographs of the shard.
    """
    photographs = read_table(run.store, images, PHOTOGRAPH_COLUMNS).slice(0, limit).to_pylist()
    prompts = {f"{source}:{photograph['image_id']}": _prompt(photograph, diffusion) for photograph in photographs}
    parents = dict(zip(prompts, photographs, strict=True))
    aside = [
        quarantined(source, image_id, "no-prompt", f"{parents[image_id]['image_id']} has no {diffusion.prompts}")
        for image_id, prompt in prompts.items()
        if not prompt
    ]
    pieces = RowPieces(run.store, run.checkpoints, IMAGE_SCHEMA)
    records = {record["image_id"]: record for record in pieces.rows() if record["image_id"] in prompts}
    found = len(records)
    wanted = [PictureRequest(image_id, prompt) for image_id, prompt in prompts.items() if prompt]
    requests = [request for request in wanted if request.image_id not in records]
    progress = run.progress(len(wanted), done=found, device=device)
    sampling = _Sampling(run.store, model, diffusion, device)

    def encode(made: GeneratedPicture) -> tuple[GeneratedPicture, dict[str, Any] | None]:
        return made, None if made.pixels is None else _inheriting(made, made.pixels, parents[made.image_id], source)

    started = time.monotonic()
    if requests:
        with device_alone(device):
            threads, ahead = helper_threads(device), BATCHES_AHEAD * diffusion.batch
            for made, record in in_order(encode, sampling.pictures(requests), threads=threads, ahead=ahead):
                progress.advance()
                if record is None:
                    detail = f"after {made.attempts} attempts, prompt {made.prompt!r}"
                    aside.append(quarantined(source, made.image_id, str(made.error), detail))
                else:
                    records[made.image_id] = record
                    pieces.add(record)
    table = image_table(records[image_id] for image_id in prompts if image_id in records)
    show_pictures(run, source, table)
    notes = {
        "n": table.num_rows,
        "quarantined": len(aside),
        "collapse_rate": _collapse(table),
        "found_of_an_earlier_attempt": found,
        **sampling.notes(),
        "seconds": round(time.monotonic() - started, 1),
    }
    return Output({ROWS: table, QUARANTINE: quarantine_table(aside)}, notes, pieces)


class _Sampling:
    """What a model makes of prompts; it is loaded when the first picture is asked for."""

    def __init__(self, store: Store, model: str, diffusion: DiffusionSpec, device: str) -> None:
        self._store, self._model, self._device = store, model, device
        self._diffusion = diffusion
        self._batch = BatchSize(diffusion.batch)
        self._sampler: Sampler | None = None

    def pictures(self, requests: Sequence[PictureRequest]) -> Iterator[GeneratedPicture]:
        """For each request in order; to be run in a thread of its own, which has a number of threads of its own."""
        limit_threads()
        pipeline = _pipeline(local_model(self._store, self._model), self._diffusion, self._device)
        self._sampler = Sampler(pipeline, self._diffusion)
        # The digest of the keyed specification: seeds do not depend on where a model lies either.
        keyed = digest_of(self._diffusion.model_dump(mode="json"))
        yield from generate_images(self._sampler, keyed, requests, self._batch)

    def notes(self) -> dict[str, Any]:
        """The batch that it ended with, how often memory ran out, and the seconds that the device was busy."""
        return {
            "batch": self._batch.size,
            "out_of_memory": self._batch.failures,
            "sampling_seconds": round(self._sampler.busy_s, 1) if self._sampler else 0.0,
        }


def _inheriting(made: GeneratedPicture, pixels: Pixels, parent: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A picture as a row of a shard, in its photograph's group and place."""
    place = (parent["group_id"], source, parent["split"], parent["fold"])
    return image_record(GeneratedRow(made.image_id, *place, made.seed, pixels, made.prompt))


def _pipeline(model: str, keyed: DiffusionSpec, device: str) -> Any:
    """The pipeline on its device. The last one stays on a GPU for the next shard, which it serves alone then.

    On a CPU, where tasks run side by side, each has its own: its scheduler remembers where it is.
    """
    spec = keyed.model_copy(update={"model": model})
    if device == "cpu":
        return load_pipeline(spec, "cpu")
    kept = (keyed.model, spec.dtype, spec.scheduler, spec.side, spec.compile)
    if kept not in _kept_pipeline:
        _kept_pipeline.clear()
        _kept_pipeline[kept] = load_pipeline(spec, "cuda")
    return _kept_pipeline[kept]


def image_record(row: GeneratedRow) -> dict[str, Any]:
    """A generated picture as a row of `IMAGE_SCHEMA`; what it leaves out is null."""
    png = encode_png(row.pixels)
    height, width, _ = row.pixels.shape
    return {
        "image": {"bytes": png, "path": f"{row.image_id.replace(':', '-')}.png"},
        "image_id": row.image_id,
        "group_id": row.group_id,
        "source": row.source,
        "label": FAKE,
        "split": row.split,
        "fold": row.fold,
        "prompt": row.prompt,
        "width": width,
        "height": height,
        "format": "PNG",
        "sha256": sha256_hex(png),
        "phash": hash_text(perceptual_hash(row.pixels)),
        "seed": None if row.seed is None else str(row.seed),
    }


def _prompt(photograph: Mapping[str, Any], diffusion: DiffusionSpec) -> str:
    captions = [photograph["caption"]] if photograph["caption"] else []
    return prompt_of(captions, photograph["categories"] or [], diffusion.prompts)


def _collapse(table: pa.Table) -> float:
    return round(collapse_rate(words_of(table["phash"].to_pylist())), 6)


def show_pictures(run: StepRun, source: str, table: pa.Table) -> None:
    """Show the first pictures of a generated shard in Prefect."""
    first = table.slice(0, STRIP_PICTURES)["image"].to_pylist()
    if first:
        strip = sample_strip([decode_rgb(image["bytes"]) for image in first])
        show_in_prefect(
            f"pictures-{source}", f"pictures of {source}", f"## {run.name}\n\n{embedded(strip, 'sample')}\n"
        )
