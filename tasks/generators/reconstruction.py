"""Photographs through an autoencoder: which of a source, and the step that makes them, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.digest import hash_seed
from storage.errors import BadImage, SpecError
from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
from storage.tables import IMAGE_SCHEMA
from tasks.data.entries import QUARANTINE, quarantine_table, quarantined
from tasks.data.pictures import Pixels, decode_rgb
from tasks.device import device_alone
from tasks.generators.autoencoders import factor_of, opened_autoencoder
from tasks.generators.shards import GeneratedRow, image_record, image_table, show_pictures
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.threads import helper_threads, in_order, limit_threads, made_ahead

# A reconstruction has so many pixels a side at least.
LEAST_LEFT = 64
# How far encoding may lag behind the device before the device waits.
_AHEAD = 16
_CHOSEN = pa.schema([("image_id", pa.string())])
_SIZES = ("image_id", "source", "width", "height")
# What a reconstruction has of its photograph beside its place.
_INHERITED = ("prompt", "caption", "categories", "licence")
_COLUMNS = (*_SIZES, "image", "group_id", "split", "fold", *_INHERITED)


def input_side(length: int, side: int | None, factor: int) -> int:
    """The pixels that go through the autoencoder, of a photograph with `length` of them along one side."""
    kept = length if side is None else min(length, side)
    return kept - kept % factor


def input_part(pixels: Pixels, side: int | None, factor: int) -> Pixels:
    """What goes through the autoencoder, of a photograph (H, W, 3): pixels as they are, nothing is scaled.

    Its centre, at most `side` pixels wide and high, cut at the bottom and right to multiples of `factor`.
    """
    spans = []
    for length in pixels.shape[:2]:
        first = 0 if side is None else max(0, length - side) // 2
        spans.append(slice(first, first + input_side(length, side, factor)))
    return pixels[spans[0], spans[1]]


def least_left(width: int, height: int, side: int | None, factor: int, border: int) -> int:
    """The shorter side of a reconstruction without its border, in pixels; not above 0 where nothing is left."""
    return input_side(min(width, height), side, factor) - 2 * border


@step("generate/chosen", version=1, label=lambda *, source, **_: source)
def choose_photographs(
    run: StepRun,
    *,
    photographs: tuple[Ref, ...],
    autoencoder: Ref,
    source: str,
    side: int | None,
    border: int,
    count: int | None,
) -> Output:
    """The `image_id` of each photograph that is reconstructed, sorted: the first `count` by hash of those large enough.

    The hash is of the id alone, so that sources of other autoencoders take the same photographs.

    Args:
        run: the step's surroundings.
        photographs: all image shards of their source.
        autoencoder: its files.
        source: the reconstructions'.
        side: as of `input_part`.
        border: pixels that are cut from every side of the result.
        count: None for all.

    Raises:
        SpecError: none is large enough.
    """
    factor = factor_of(run.store, autoencoder)
    sizes = [row for shard in photographs for row in _read(run.store, shard, _SIZES).to_pylist()]
    large = [
        row["image_id"] for row in sizes if least_left(row["width"], row["height"], side, factor, border) >= LEAST_LEFT
    ]
    if not large:
        raise SpecError(
            f"{source}: of none of the {len(sizes)} photographs {LEAST_LEFT} pixels a side are left, cut to multiples "
            f"of {factor} and by a border of {border}: name a smaller border, or larger photographs"
        )
    chosen = sorted(large, key=lambda image_id: (hash_seed("reconstruction", image_id), image_id))[:count]
    table = pa.Table.from_pylist([{"image_id": image_id} for image_id in sorted(chosen)], schema=_CHOSEN)
    return Output({ROWS: table}, {"n": len(chosen), "of": len(sizes), "too_small": len(sizes) - len(large)})


@step(
    "generate/reconstruction",
    version=1,
    label=lambda *, images, source, **_: f"{source}/{images.digest[:12]}",
    libraries=("torch", "diffusers", "pillow", "pillow-heif", "simplejpeg"),
    pool="gpu",
)
def reconstruct_photographs(
    run: StepRun,
    *,
    images: Ref,
    autoencoder: Ref,
    chosen: Ref,
    source: str,
    side: int | None,
    border: int,
    device: str,
) -> Output:
    """The chosen photographs of an image shard, encoded and decoded one by one, as PNG.

    A reconstruction inherits the photograph's id, group, split and fold, so that the two are a pair; `of` in the notes
    is the photographs' source. Photographs of which too little would be left, and those that the network makes no
    finite numbers of, are set aside. An attempt after one that broke off goes on after its last piece.

    Raises:
        DeviceLost: the GPU failed, or has not the memory for a photograph.
        SpecError: the autoencoder's files do not make a network, or it gives another size than it was given.

    Args:
        run: the step's surroundings.
        images: the photographs.
        autoencoder: its files.
        chosen: `choose_photographs` of all shards.
        source: the reconstructions'.
        side: as of `input_part`.
        border: pixels that are cut from every side of the result.
        device: `cuda` or `cpu`.
    """
    started = time.monotonic()
    factor = factor_of(run.store, autoencoder)
    aside = list(_too_small(_read(run.store, images, _SIZES), source, side, factor, border))
    wanted = _photographs(run.store, images, chosen)
    pieces = RowPieces(run.store, run.checkpoints, IMAGE_SCHEMA)
    ids = {photograph["image_id"] for photograph in wanted}
    records = {record["image_id"]: record for record in pieces.rows() if record["image_id"] in ids}
    found = len(records)
    left = [photograph for photograph in wanted if photograph["image_id"] not in records]
    progress = run.progress(len(wanted), done=found, device=device)

    def record_of(made: tuple[dict[str, Any], Pixels | BadImage]) -> dict[str, Any] | dict[str, str]:
        photograph, pixels = made
        if isinstance(pixels, BadImage):
            return quarantined(source, photograph["image_id"], pixels.reason, pixels.detail)
        return _record(photograph, pixels[border : len(pixels) - border, border : pixels.shape[1] - border], source)

    with device_alone(device):
        made = _reconstructed(run.store, left, autoencoder, side, factor, device)
        for record in in_order(record_of, made, threads=helper_threads(device), ahead=_AHEAD):
            progress.advance()
            if "reason" in record:
                aside.append(record)
            else:
                records[record["image_id"]] = record
                pieces.add(record)
    table = image_table(records[image_id] for image_id in (row["image_id"] for row in wanted) if image_id in records)
    show_pictures(run, source, table)
    notes = {
        "n": table.num_rows,
        "quarantined": len(aside),
        "of": wanted[0]["source"] if wanted else None,
        "found_of_an_earlier_attempt": found,
        "seconds": round(time.monotonic() - started, 1),
    }
    return Output({ROWS: table, QUARANTINE: quarantine_table(aside)}, notes, pieces)


def _reconstructed(
    store: Store, photographs: Sequence[dict[str, Any]], autoencoder: Ref, side: int | None, factor: int, device: str
) -> Iterator[tuple[dict[str, Any], Pixels | BadImage]]:
    """Each photograph with its reconstruction, or why there is none; in a thread of its own, as `in_order` draws it."""
    limit_threads()
    if not photographs:
        return
    network = opened_autoencoder(store, autoencoder, device)

    def decode(photograph: dict[str, Any]) -> Pixels | BadImage:
        try:
            return input_part(decode_rgb(photograph["image"]["bytes"]), side, factor)
        except BadImage as error:
            return error

    for photograph, pixels in zip(photographs, made_ahead(decode, photographs, device), strict=True):
        made = pixels if isinstance(pixels, BadImage) else network.reconstructed(pixels)
        yield photograph, BadImage("not-finite", "the autoencoder gives no finite numbers") if made is None else made


def _record(photograph: dict[str, Any], pixels: Pixels, source: str) -> dict[str, Any]:
    """A reconstruction as a row of a shard, with the identity and the place of its photograph."""
    identity = (photograph["image_id"], photograph["group_id"], source, photograph["split"], photograph["fold"])
    return image_record(GeneratedRow(*identity, None, pixels)) | {name: photograph[name] for name in _INHERITED}


def _too_small(sizes: pa.Table, source: str, side: int | None, factor: int, border: int) -> Iterator[dict[str, str]]:
    for row in sizes.to_pylist():
        left = least_left(row["width"], row["height"], side, factor, border)
        if left < LEAST_LEFT:
            size = f"{row['width']}x{row['height']}"
            detail = f"of {size}, {max(0, left)} pixels of the shorter side would be left, fewer than {LEAST_LEFT}"
            yield quarantined(source, row["image_id"], "too-small", detail)


def _photographs(store: Store, images: Ref, chosen: Ref) -> list[dict[str, Any]]:
    """The chosen photographs of a shard, in its order."""
    table = _read(store, images, _COLUMNS)
    found: list[dict[str, Any]] = table.filter(
        pc.is_in(table["image_id"], value_set=read_table(store, chosen)["image_id"])
    ).to_pylist()
    return found


def _read(store: Store, images: Ref, columns: Sequence[str]) -> pa.Table:
    """Columns of an image shard, whose pictures are not read where they are not among them."""
    with opened_part(store, images) as part:
        return pq.ParquetFile(part).read(columns=list(columns), use_threads=False)
