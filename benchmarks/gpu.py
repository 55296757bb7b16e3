"""What a GPU makes of generation, features and training: rates, next to eager float32 in the same run.

    python -m benchmarks.gpu [--part sd512 --part vgg16 ...] [--json FILE] [--markdown FILE] [--no-compile]
    python -m benchmarks.gpu --tiny --device cpu      (every part in seconds: shows that it runs, measures nothing)

No network: the networks have their true sizes and random weights, which cost what trained ones cost. Rates are those
of the second and later batches, or of whole epochs after one to warm up.

The share is that of what the board can do at most, on paper: `docs/decisions/0020-limits-on-paper.md`.

Parts: `sd512` (50 steps) and `sd768` (8 steps) with guidance, SD 2.1's architecture; `vgg16` (fc7, 224 pixels, from
decoded views in memory); `dcgan` (an epoch on pictures that stay on the device); `mobilenet` (MobileNetV2's last five
layers at 224 pixels, from pictures on the device); `busy` (pictures sampled, encoded and put in order as for a shard).
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_networks import (
    COCO_PICTURES,
    Options,
    dcgan_spec,
    diffusion_spec,
    mobilenet_sizes,
    random_pipeline,
    vgg16_spec,
)
from tasks.data.encoding import encode_png
from tasks.device import full_precision, gpu_load
from tasks.features.vgg16 import Vgg16Spec, embed_pictures, load_vgg16, move_vgg16
from tasks.generators.dcgan import _Training
from tasks.generators.diffusion import make_fast
from tasks.generators.sampling import Sampler
from tasks.networks.mobilenet import is_trained
from tasks.networks.mobilenet_network import MobileNet, channels_last, initialise
from tasks.spec.detectors import FineTuned
from tasks.spec.generators import DiffusionSpec, GanSpec
from tasks.threads import in_order, limit_threads, parallel_tasks
from tasks.torch_vision_schema import define_missing_torchvision_schemas

PROMPTS = ("a photograph of an astronaut", "a close-up of a spoon", "a rocket at dusk", "a tabby cat")


@dataclass(frozen=True)
class Board:
    """Dense half-precision operations per second with accumulation in float32, and bytes per second of memory."""

    operations: float
    bytes: float


# From the vendor's data sheets (SXM boards; of the A100 the one with 80 GB).
BOARDS = {"H100": Board(989e12, 3.35e12), "H200": Board(989e12, 4.8e12), "A100": Board(312e12, 2.04e12)}


@dataclass(frozen=True)
class Work:
    """What one picture costs at least: operations, and bytes moved in half precision."""

    operations: float
    bytes: float

    def limit(self, board: Board) -> float:
        """Pictures per second at most: by arithmetic, or by bandwidth where the bytes were counted."""
        rate = board.operations / self.operations
        return min(rate, board.bytes / self.bytes) if self.bytes else rate


# Counted at full sizes.
WORK = {
    "sd512": Work(82.9e12, 0),
    "sd768": Work(40.1e12, 0),
    "vgg16": Work(30.9e9, 45.9e6),
    "dcgan": Work(2.48e9, 5.69e6),
    "mobilenet": Work(0.709e9, 27.2e6),
}


@dataclass(frozen=True)
class Measured:
    """One row. `share` is that of the limit on paper, `busy` that of the time; None where there is no telling."""

    part: str
    what: str
    rate: float
    unit: str
    eager_float32: float | None = None
    share: float | None = None
    busy: float | None = None
    remark: str = ""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="default: all, one after the other")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --tiny --device cpu shows that everything runs")
    limit_threads()
    define_missing_torchvision_schemas()
    options = Options(given.device, given.tiny, not given.no_compile and given.device == "cuda")
    rows: list[Measured] = []
    for part in given.part or PARTS:
        started = time.monotonic()
        rows.append(PARTS[part](options))
        print(json.dumps(asdict(rows[-1]) | {"seconds": round(time.monotonic() - started, 1)}), flush=True)
        if options.device == "cuda":
            torch.cuda.empty_cache()
    name = device_name(options)
    document = {"device": name, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = markdown(name, rows)
    if given.markdown:
        given.markdown.write_text(table, encoding="utf-8")
    print(table)


def markdown(device: str, rows: list[Measured]) -> str:
    """The rows as a table."""
    lines = [
        f"Measured on {device} with torch {torch.__version__} by `python -m benchmarks.gpu`.",
        "",
        "| part | what | rate | eager float32 | share of the limit on paper | busy | remark |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        eager = "" if row.eager_float32 is None else f"{row.eager_float32:.3g}"
        share, busy = ("" if value is None else f"{value:.0%}" for value in (row.share, row.busy))
        lines.append(
            f"| {row.part} | {row.what} | {row.rate:.4g} {row.unit} | {eager} | {share} | {busy} | {row.remark} |"
        )
    return "\n".join(lines) + "\n"


def device_name(options: Options) -> str:
    """What computes."""
    name: str = torch.cuda.get_device_name() if options.device == "cuda" else "a CPU (one thread)"
    return f"{name}{', tiny sizes: no measurement' if options.tiny else ''}"


def share_of_limit(options: Options, part: str, rate: float) -> float | None:
    """None of tiny networks, and on a device that is not in the table."""
    if options.tiny or options.device == "cpu":
        return None
    boards = [board for name, board in BOARDS.items() if name in torch.cuda.get_device_name()]
    return rate / WORK[part].limit(boards[0]) if boards else None


def stable_diffusion(side: int, steps: int, batch: int, options: Options) -> Measured:
    """Sampled and decoded pictures per second, their levels fetched, nothing encoded."""
    spec = diffusion_spec(side, steps, batch, options)
    eager = eager_diffusion(spec, options)
    sampler = fast_sampler(spec, options)
    rate = pictures_per_second(sampler, batches=2, options=options)
    return Measured(
        f"sd{spec.side}",
        f"SD 2.1, {spec.side} pixels, {spec.steps} steps, batch {spec.batch}",
        rate,
        "pictures/s",
        eager,
        share_of_limit(options, f"sd{side}", rate),
    )


def eager_diffusion(spec: DiffusionSpec, options: Options) -> float:
    """The same pictures as diffusers makes them by default, four at a time."""
    plain = spec.model_copy(update={"dtype": "float32", "batch": min(4, spec.batch)})
    pipeline = random_pipeline(plain, options)
    with plain_float32():
        return pictures_per_second(Sampler(pipeline, plain), batches=1, options=options, warm_up_steps=2)


def fast_sampler(spec: DiffusionSpec, options: Options) -> Sampler:
    """The pipeline as a shard on a GPU has it."""
    pipeline = random_pipeline(spec, options)
    make_fast(pipeline, compiled=False)
    sampler = Sampler(pipeline, spec.model_copy(update={"compile": options.compiled}))
    sampler.embed(PROMPTS)
    return sampler


def pictures_per_second(sampler: Sampler, batches: int, options: Options, warm_up_steps: int | None = None) -> float:
    """Of whole batches after one to warm up, which may have fewer steps."""
    spec = sampler.spec
    if spec.compile:
        make_fast(sampler.pipeline, compiled=True)
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(spec.batch)]
    if warm_up_steps is not None:
        sampler.spec = spec.model_copy(update={"steps": min(warm_up_steps, spec.steps)})
    sampler.sample(prompts, range(spec.batch))
    sampler.spec = spec
    with timed(options) as elapsed:
        for number in range(batches):
            sampler.sample(prompts, range(number * spec.batch, (number + 1) * spec.batch))
    return batches * spec.batch / elapsed()


def vgg16(options: Options) -> Measured:
    """Features per second of decoded views in memory: putting batches together and moving them included."""
    spec = vgg16_spec(options)
    assert spec.side is not None
    side, batch, count = spec.side, spec.batch, 4 if options.tiny else 8192
    views = list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))

    def rate_of(given: Vgg16Spec, pictures: list[Any]) -> float:
        network = move_vgg16(load_vgg16(given, None), given, options.device)
        embed_pictures(network, given, pictures[: 2 * given.batch])
        with timed(options) as elapsed:
            embed_pictures(network, given, pictures)
        return len(pictures) / elapsed()

    plain = spec.model_copy(update={"precision": "float32", "batch": min(64, batch)})
    eager = rate_of(plain, views[: max(2, count // 8)])
    rate = rate_of(spec.model_copy(update={"compile": options.compiled}), views)
    share = share_of_limit(options, "vgg16", rate)
    return Measured("vgg16", f"VGG16 {spec.layer}, {side} pixels, batch {batch}", rate, "pictures/s", eager, share)


def dcgan(options: Options) -> Measured:
    """Pictures per second of an epoch; the remark says how long all of COCO would take."""
    count = 8 if options.tiny else COCO_PICTURES
    spec = dcgan_spec(options)
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8))
    pictures = pictures.to(options.device)

    def rate_of(given: GanSpec, chosen: torch.Tensor) -> float:
        training = _Training(given, options.device)
        training.run_epoch(chosen[: 2 * given.batch], 1)
        with timed(options) as elapsed:
            training.run_epoch(chosen, 2)
        return len(chosen) // given.batch * given.batch / elapsed()

    with plain_float32():
        eager = rate_of(spec, pictures[: max(2 * spec.batch, count // 8)])
    with full_precision(options.device):  # as the task trains: the same sums each time
        rate = rate_of(spec.model_copy(update={"precision": "bfloat16"}), pictures)
    share = share_of_limit(options, "dcgan", rate)
    remark = f"an epoch of {COCO_PICTURES:,} pictures in {COCO_PICTURES / rate:.3g} s"
    return Measured("dcgan", f"DCGAN, batch {spec.batch}", rate, "pictures/s", eager, share, remark=remark)


def mobilenet(options: Options) -> Measured:
    """Pictures per second of fine-tuning steps, on pictures that lie on the device as normalised floats."""
    (shape, batch), steps = mobilenet_sizes(options), 1 if options.tiny else 20
    side = shape.side
    pixels = torch.rand(batch, 3, side, side, device=options.device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=options.device) % 5
    trained_here = is_trained(shape, FineTuned(name="measured", unlocked=5))

    def steps_of(half: bool, count: int) -> Callable[[], None]:
        network = MobileNet(shape)
        initialise(network, 0)
        network = channels_last(network).to(options.device)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trained_here(name))
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=1e-4)
        if half and options.compiled:
            network.compile()

        def run() -> None:
            for _ in range(count):
                optimiser.zero_grad()
                with torch.autocast(options.device, dtype=torch.bfloat16, enabled=half):
                    logits = network(pixels)
                torch.nn.functional.cross_entropy(logits.float(), labels).backward()
                optimiser.step()

        return run

    def rate_of(half: bool) -> float:
        steps_of_it = steps_of(half, steps)
        steps_of_it()
        with timed(options) as elapsed:
            steps_of_it()
        return batch * steps / elapsed()

    with plain_float32():
        eager = rate_of(half=False)
    with full_precision(options.device):
        rate = rate_of(half=True)
    share = share_of_limit(options, "mobilenet", rate)
    return Measured("mobilenet", f"MobileNetV2, {side} pixels, batch {batch}", rate, "pictures/s", eager, share)


def busy(options: Options) -> Measured:
    """How much of the time from the first picture to the last the device samples while threads encode."""
    side, steps, batch, batches = (64, 1, 2, 2) if options.tiny else (768, 8, 16, 6)
    spec = DiffusionSpec(model="random", side=side, steps=steps, batch=batch, dtype="bfloat16")
    sampler = fast_sampler(spec, options)
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(batch)]
    sampler.sample(prompts, range(batch))
    sampler.busy_s = 0.0

    def pictures() -> Iterator[Any]:
        limit_threads()
        for number in range(batches):
            for sample in sampler.sample(prompts, range(number * batch, (number + 1) * batch)):
                # A random network may make nothing but noise or black; it is encoded all the same.
                yield np.zeros((side, side, 3), np.uint8) if sample.pixels is None else sample.pixels

    with utilisation(options) as seen, timed(options) as elapsed:
        for _ in in_order(encode_png, pictures(), threads=parallel_tasks(), ahead=4 * batch):
            pass
    rate = batches * batch / elapsed()
    percent = f"driver's utilisation {np.mean(seen):.0%}" if seen else "no driver's utilisation here"
    what = f"sampling and encoding {batches * batch} pictures of {side} pixels, {steps} steps, not compiled"
    return Measured("busy", what, rate, "pictures/s", busy=sampler.busy_s / elapsed(), remark=percent)


@contextmanager
def timed(options: Options) -> Iterator[Callable[[], float]]:
    """The seconds of a block, the device's work included."""
    ended: list[float] = []
    synchronise(options)
    started = time.perf_counter()
    yield lambda: ended[0]
    synchronise(options)
    ended.append(time.perf_counter() - started)


@contextmanager
def utilisation(options: Options) -> Iterator[list[float]]:
    """The driver's utilisation, 0..1, asked twice a second during a block; empty where there is no driver."""
    seen: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.5):
            if (load := gpu_load(options.device)) is not None:
                seen.append(load)

    asking = threading.Thread(target=ask)
    if options.device != "cpu":
        asking.start()
    try:
        yield seen
    finally:
        ended.set()
        if asking.is_alive():
            asking.join()


@contextmanager
def plain_float32() -> Iterator[None]:
    """Float32 as it says, without TF32, and otherwise as fast as torch makes it by itself."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        yield


def synchronise(options: Options) -> None:
    """Wait for the device."""
    if options.device == "cuda":
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[Options], Measured]] = {
    "sd512": lambda options: stable_diffusion(512, 50, 16, options),
    "sd768": lambda options: stable_diffusion(768, 8, 16, options),
    "vgg16": vgg16,
    "dcgan": dcgan,
    "mobilenet": mobilenet,
    "busy": busy,
}

if __name__ == "__main__":
    main()
