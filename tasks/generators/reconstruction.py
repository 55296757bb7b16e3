"""Photographs through an autoencoder: which of a source, and the step that makes them, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

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


@dataclass(frozen=True)
class Cut:
    """What of a photograph goes through an autoencoder that divides sides by `factor`, and what of the result is kept.

    Pixels are left as they are, nothing is scaled. `border` pixels are cut from every side of the result.
    """

    side: int | None
    factor: int
    border: int

    def given(self, pixels: Pixels) -> Pixels:
        """The centre of a photograph (H, W, 3), at most `side` pixels wide and high, all of it without.

        It is cut to multiples of the factor at the bottom and right.
        """
        rows, columns = (self._span(length) for length in pixels.shape[:2])
        return pixels[rows, columns]

    def kept(self, pixels: Pixels) -> Pixels:
        """A reconstruction (H, W, 3) without its border."""
        height, width = pixels.shape[:2]
        return pixels[self.border : height - self.border, self.border : width - self.border]

    def least_left(self, width: int, height: int) -> int:
        """The shorter side of what is kept of a photograph, in pixels; not above 0 where that is nothing."""
        span = self._span(min(width, height))
        return span.stop - span.start - 2 * self.border

    def _span(self, length: int) -> slice[int, int, None]:
        """Of so many pixels along a side those that are given."""
        wanted = length if self.side is None else min(length, self.side)
        first = (length - wanted) // 2
        return slice(first, first + wanted - wanted % self.factor)


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
        side: as of `Cut`.
        border: as of `Cut`.
        count: None for all.

    Raises:
        SpecError: none is large enough.
    """
    cut = Cut(side, factor_of(run.store, autoencoder), border)
    sizes = [row for shard in photographs for row in _read(run.store, shard, _SIZES).to_pylist()]
    large = [row["image_id"] for row in sizes if cut.least_left(row["width"], row["height"]) >= LEAST_LEFT]
    if not large:
        raise SpecError(
            f"{source}: of none of the {len(sizes)} photographs {LEAST_LEFT} pixels a side are left, cut to multiples "
            f"of {cut.factor} and by a border of {border}: name a smaller border, or larger photographs"
        )
    chosen = sorted(large, key=lambda image_id: (hash_seed("reconstruction", image_id), image_id))[:count]
    table = pa.Table.from_pylist([{"image_id": image_id} for image_id in sorted(chosen)], schema=_CHOSEN)
    return Output({ROWS: table}, {"n": len(chosen), "of": len(sizes), "too_small": len(sizes) - len(large)})


@step(
    "generate/reconstruction",
    version=2,
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

    A reconstruction has its photograph's id, group, split and fold, and is grey where that is; `of` in the notes is the
    photographs' source. Photographs of which too little would be left, and those that the network makes no finite
    numbers of, are set aside. An attempt after one that broke off goes on after its last piece.

    Raises:
        DeviceLost: the GPU failed, or has not the memory for a photograph.
        SpecError: the autoencoder's files do not make a network, or it gives another size than it was given.

    Args:
        run: the step's surroundings.
        images: the photographs.
        autoencoder: its files.
        chosen: `choose_photographs` of all shards.
        source: the reconstructions'.
        side: as of `Cut`.
        border: as of `Cut`.
        device: `cuda` or `cpu`.
    """
    started = time.monotonic()
    cut = Cut(side, factor_of(run.store, autoencoder), border)
    aside = list(_too_small(_read(run.store, images, _SIZES), source, cut))
    wanted = _photographs(run.store, images, chosen)
    pieces = RowPieces(run.store, run.checkpoints, IMAGE_SCHEMA)
    records = {record["image_id"]: record for record in pieces.rows()}
    found = len(records)
    left = [photograph for photograph in wanted if photograph["image_id"] not in records]
    progress = run.progress(len(wanted), done=found, device=device)
    with device_alone(device):
        made = _reconstructed(run.store, left, autoencoder, cut, device)
        record_of = partial(_record, source=source, cut=cut)
        for record in in_order(record_of, made, threads=helper_threads(device), ahead=_AHEAD):
            progress.advance()
            if "reason" in record:
                aside.append(record)
            else:
                records[record["image_id"]] = record
                pieces.add(record)
    table = image_table(records[row["image_id"]] for row in wanted if row["image_id"] in records)
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
    store: Store, photographs: Sequence[dict[str, Any]], autoencoder: Ref, cut: Cut, device: str
) -> Iterator[tuple[dict[str, Any], Pixels | BadImage]]:
    """Each photograph with its reconstruction, or why there is none; in a thread of its own, as `in_order` draws it."""
    limit_threads()
    if not photographs:
        return
    network = opened_autoencoder(store, autoencoder, device)

    def decode(photograph: dict[str, Any]) -> Pixels | BadImage:
        try:
            return cut.given(decode_rgb(photograph["image"]["bytes"]))
        except BadImage as error:
            return error

    for photograph, pixels in zip(photographs, made_ahead(decode, photographs, device), strict=True):
        if isinstance(pixels, BadImage):
            yield photograph, pixels
            continue
        made = network.reconstructed(pixels)
        if made is None:
            yield photograph, BadImage("not-finite", "the autoencoder gives no finite numbers")
            continue
        yield photograph, _as_grey_as(pixels, made)


def _as_grey_as(photograph: Pixels, made: Pixels) -> Pixels:
    """A reconstruction (H, W, 3) without colours where its photograph has none.

    An autoencoder tints what is grey by a level or two, which would tell every grey photograph from its pair.
    """
    if not (photograph == photograph[..., :1]).all():
        return made
    grey: Pixels = np.asarray(Image.fromarray(made).convert("L").convert("RGB"))
    return grey


def _record(made: tuple[dict[str, Any], Pixels | BadImage], source: str, cut: Cut) -> dict[str, Any]:
    """A reconstruction as a row of a shard, with the identity and the place of its photograph; or one of quarantine."""
    photograph, pixels = made
    if isinstance(pixels, BadImage):
        return quarantined(source, photograph["image_id"], pixels.reason, pixels.detail)
    identity = (photograph["image_id"], photograph["group_id"], source, photograph["split"], photograph["fold"])
    inherited = {name: photograph[name] for name in _INHERITED}
    return image_record(GeneratedRow(*identity, None, cut.kept(pixels))) | inherited


def _too_small(sizes: pa.Table, source: str, cut: Cut) -> Iterator[dict[str, str]]:
    for row in sizes.to_pylist():
        left = cut.least_left(row["width"], row["height"])
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
