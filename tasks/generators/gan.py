"""A DCGAN as steps: its training pictures packed, and the training with its sheets and loss curves."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from storage.digest import hash_seed
from storage.errors import ObjectMissing
from storage.objects import PartContent, Ref, read_table
from storage.store import Store
from storage.weights import read_weights, weight_parts
from tasks.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from tasks.data.pictures import Pixels, decode_rgb
from tasks.device import device_alone
from tasks.generators.dcgan import HISTORY_COLUMNS, generate_pictures, load_generator, train
from tasks.generators.sheets import animation, contact_sheet, embedded, show_in_prefect
from tasks.progress import Progress
from tasks.recipe import Output, StepRun, step
from tasks.spec.generators import GanSpec
from tasks.threads import helper_threads, in_order, limit_threads

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SHEET_COLUMNS = 8
SHEET_PICTURES = SHEET_COLUMNS**2
PICTURES = "pictures"
DECODED_AHEAD = 4


def training_array(pictures: Iterable[bytes], side: int) -> Pixels:
    """Encoded pictures as uint8 (N, 3, side, side): the shorter side resized to `side`, then a centre crop.

    As torchvision's `Resize` and `CenterCrop` do it for the tutorial (Pillow's antialiased bilinear filter).

    Raises:
        BadImage: a picture does not decode.
    """
    return _array((_square(decode_rgb(data), side).transpose(2, 0, 1) for data in pictures), side)


def read_generator(store: Store, weights: Ref, device: str) -> torch.nn.Sequential:
    """The generator of a `train_gan` object."""
    tensors, card = read_weights(store, weights)
    return load_generator(tensors, GanSpec.model_validate(card["spec"]), device)


def fixed_sheet(generator: torch.nn.Sequential, seed: int) -> bytes:
    """The same 64 noise vectors as an 8x8 sheet (PNG), to compare epochs by."""
    seeds = [hash_seed("gan-sheet", seed, index) for index in range(SHEET_PICTURES)]
    return contact_sheet(list(generate_pictures(generator, seeds, SHEET_PICTURES)), SHEET_COLUMNS)


def history_table(history: npt.NDArray[np.float64]) -> pa.Table:
    """A history, float64 (S, 6), as a table with `HISTORY_COLUMNS`."""
    columns = dict(zip(HISTORY_COLUMNS, history.T, strict=True))
    integers = {name: pa.array(columns[name].astype(np.int32)) for name in ("epoch", "step")}
    return pa.table({name: integers.get(name, pa.array(column)) for name, column in columns.items()})


def loss_curves(history: npt.NDArray[np.float64]) -> bytes:
    """Losses and the discriminator's mean outputs over the epochs, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps_per_epoch = history[:, 1].max()
    epochs = history[:, 0] - 1 + history[:, 1] / steps_per_epoch
    figure = Figure(figsize=(8, 5), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    losses, outputs = figure.subplots(2, 1, sharex=True)
    losses.plot(epochs, history[:, 2], label="discriminator", linewidth=0.8)
    losses.plot(epochs, history[:, 3], label="generator", linewidth=0.8)
    losses.set_ylabel("loss")
    outputs.plot(epochs, history[:, 4], label="D(photograph)", linewidth=0.8)
    outputs.plot(epochs, history[:, 5], label="D(generated)", linewidth=0.8)
    outputs.set(ylabel="mean output", xlabel="epoch", ylim=(0, 1))
    for axes in (losses, outputs):
        axes.legend(loc="upper right")
        axes.grid(alpha=0.3)
    return _png_of(figure)


@step(
    "gan-pictures",
    version=2,
    label=lambda *, images, side, **_: f"{side}-from-{images[0].digest[:12] if images else 'nothing'}",
    unkeyed=("device",),
    libraries=("pillow", "pillow-heif", "simplejpeg"),
)
def pack_gan_pictures(run: StepRun, *, images: tuple[Ref, ...], side: int, only_train: bool, device: str) -> Output:
    """Decode a GAN's training pictures once: one array, uint8 (N, 3, side, side), in their order.

    `only_train` takes rows of the train split alone. Threads decode where the device is a GPU, which trains next.
    """
    threads = helper_threads(device)
    progress = run.progress(sum(ref.rows for ref in images))
    squares = in_order(
        lambda data: _square(decode_rgb(data), side).transpose(2, 0, 1),
        _stored_pictures(run.store, images, only_train),
        threads=threads,
        ahead=DECODED_AHEAD * threads,
    )
    array = _array(_counted(squares, progress), side)
    return Output(weight_parts({PICTURES: array}, {"pictures": len(array), "side": side}), {"pictures": len(array)})


@step(
    "train-gan",
    version=1,
    label=lambda *, gan, **_: f"dcgan-{gan.generator_features}x{gan.epochs}",
    unkeyed=("pictures",),
    libraries=("torch", "pillow"),
    pool="gpu",
)
def train_gan(
    run: StepRun,
    *,
    images: tuple[Ref, ...],
    gan: GanSpec,
    only_train: bool,
    device: str,
    pictures: Ref | None = None,
) -> Output:
    """Train a DCGAN on image shards; `only_train` takes rows of the train split alone.

    Parts: the generator's weights and card, `losses.parquet`, `losses.png`, `sheet-<epoch>.png` every
    `gan.sheet_every` epochs and after the last, and `sheets.gif`. Checkpoints are written after every epoch.

    Args:
        pictures: what `pack_gan_pictures` made of the same images, so that they need not be decoded here. It follows
            from the other arguments and is no part of the recipe.

    Raises:
        TrainingFailed: too few pictures, or losses that are not finite.
        DeviceLost: the GPU failed; what it finished is in the checkpoints.
    """
    limit_threads()
    if pictures is None:
        array = training_array(_stored_pictures(run.store, images, only_train), gan.side)
    else:
        array = read_weights(run.store, pictures)[0][PICTURES]
    resume = newest_checkpoint(run.store, run.checkpoints)
    progress = run.progress(gan.epochs, "epochs", done=resume.epoch if resume else 0, device=device)

    def keep(checkpoint: Checkpoint) -> None:
        # The sheet first: a checkpoint promises that the sheets up to its epoch are there.
        if _has_sheet(checkpoint.epoch, gan):
            generator = load_generator(checkpoint.below("generator"), gan, device)
            run.store.write(_sheet_key(run, checkpoint.epoch), fixed_sheet(generator, gan.seed))
        write_checkpoint(run.store, run.checkpoints, checkpoint)
        progress.advance()

    with device_alone(device):
        final = train(array, gan, device, resume=resume, after_epoch=keep)
        newest = fixed_sheet(load_generator(final.below("generator"), gan, device), gan.seed)
    last_epoch = final.history[final.history[:, 0] == gan.epochs].mean(axis=0)
    losses = dict(zip(HISTORY_COLUMNS[2:], last_epoch[2:].tolist(), strict=True))
    card = {
        "architecture": "dcgan",
        "spec": gan.model_dump(mode="json"),
        "pictures": len(array),
        "epochs": gan.epochs,
        "seed": gan.seed,
        "device": device,
        "losses": losses,
    }
    notes = {"pictures": len(array), "losses": losses, "resumed_after_epoch": resume.epoch if resume else 0}
    return Output(_finished(run, gan, card, final, newest), notes)


def _finished(
    run: StepRun, gan: GanSpec, card: dict[str, Any], final: Checkpoint, newest: bytes
) -> dict[str, PartContent]:
    """The parts of a training's object; its losses and its newest sheet are shown in Prefect."""
    sheets = {**_kept_sheets(run, gan), gan.epochs: newest}
    curves = loss_curves(final.history)
    show_in_prefect(
        "training-dcgan",
        f"training of {run.name}",
        f"## {run.name}: {gan.epochs} epochs on {card['pictures']} pictures\n\n{embedded(curves, 'losses')}\n\n"
        f"{embedded(newest, f'sheet after epoch {gan.epochs}')}\n",
    )
    return {
        **weight_parts(final.below("generator"), card),
        "losses.parquet": history_table(final.history),
        "losses.png": curves,
        **{f"sheet-{epoch:04d}.png": sheet for epoch, sheet in sheets.items()},
        "sheets.gif": animation(sheets.values()),
    }


def _array(squares: Iterable[Pixels], side: int) -> Pixels:
    # Grows in place: a list of all pictures and its stack would need twice the memory.
    return np.fromiter(squares, dtype=np.dtype((np.uint8, (3, side, side))))


def _counted(squares: Iterable[Pixels], progress: Progress) -> Iterator[Pixels]:
    for square in squares:
        yield square
        progress.advance()


def _stored_pictures(store: Store, images: Sequence[Ref], only_train: bool) -> Iterator[bytes]:
    for ref in images:
        table = read_table(store, ref, ["image", "split"])
        if only_train:
            table = table.filter(pc.equal(table["split"], "train"))
        for chunk in pc.struct_field(table["image"], "bytes").chunks:
            yield from (value.as_py() for value in chunk)


def _kept_sheets(run: StepRun, gan: GanSpec) -> dict[int, bytes]:
    """Sheets by epoch. One that is gone (a sweep, while the training lay still) is not worth training again."""
    sheets = {}
    for epoch in range(1, gan.epochs + 1):
        if not _has_sheet(epoch, gan):
            continue
        try:
            sheets[epoch] = run.store.read(_sheet_key(run, epoch))
        except ObjectMissing:
            logger.warning("the sheet of epoch %d is gone from %s: left out", epoch, run.checkpoints)
    return sheets


def _has_sheet(epoch: int, gan: GanSpec) -> bool:
    """Whether a sheet is kept during the training; the last epoch's is made at the end."""
    return epoch % gan.sheet_every == 0 and epoch < gan.epochs


def _sheet_key(run: StepRun, epoch: int) -> str:
    return f"{run.checkpoints}/sheet-{epoch:06d}.png"


def _square(rgb: Pixels, side: int) -> Pixels:
    """uint8 (H, W, 3) to (side, side, 3)."""
    height, width = rgb.shape[:2]
    size = (int(side * width / height), side) if height <= width else (side, int(side * height / width))
    resized = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.array(resized.crop((left, top, left + side, top + side)))


def _png_of(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
