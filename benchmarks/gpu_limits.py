"""What a GPU can reach at most with the sizes at which `gpu.py` measures, by counting.

Of a picture: operations as torch's FLOP counter counts them (multiplications and additions both), and bytes moved in
half precision. The networks have their true sizes; they lie on torch's `meta` device, which computes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from tasks.features.vgg16 import load_vgg16
from tasks.generators.dcgan import build_discriminator, build_generator
from tasks.generators.tiny_model import load_tiny_pipeline, make_scheduler
from tasks.networks.architecture import Architecture, architecture
from tasks.networks.mobilenet import is_trained
from tasks.networks.mobilenet_network import MobileNet
from tasks.spec.detectors import FineTuned, Vgg16Spec
from tasks.spec.sources import DiffusionSpec, GanSpec

COCO_PICTURES = 118_000
HALF_BYTES = 2


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

    def limit(self, board: Board) -> tuple[float, str]:
        """Pictures per second at most, and what limits them."""
        rates = {"arithmetic": board.operations / self.operations}
        if self.bytes:
            rates["bandwidth"] = board.bytes / self.bytes
        name = min(rates, key=lambda name: rates[name])
        return rates[name], name


@dataclass(frozen=True)
class Options:
    """How to measure. `tiny` takes small networks and few pictures."""

    device: str
    tiny: bool
    compiled: bool


# What is to be reached on one H100, in pictures per second.
TARGETS = {"sd512": 4.0, "sd768": 8.0, "vgg16": 15_000.0, "dcgan": COCO_PICTURES / 6, "mobilenet": 8_000.0}


def on_paper(options: Options) -> str:
    """What a picture costs, what an H100 can do at most, and which share of that is to be reached."""
    works = {
        "sd512": diffusion_work(diffusion_spec(512, 50, 16, options), options),
        "sd768": diffusion_work(diffusion_spec(768, 8, 16, options), options),
        "vgg16": vgg16_work(vgg16_spec(options)),
        "dcgan": dcgan_work(dcgan_spec(options)),
        "mobilenet": mobilenet_work(*mobilenet_sizes(options)),
    }
    lines = [
        "| part | operations per picture | bytes per picture | limit on an H100 | limited by | to reach | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for part, work in works.items():
        rate, limited_by = work.limit(BOARDS["H100"])
        moved = f"{_rounded(work.bytes / 1e6)} M" if work.bytes else "not counted"
        lines.append(
            f"| {part} | {_rounded(work.operations / 1e9)} G | {moved} | {_rounded(rate)} pictures/s | {limited_by} "
            f"| {_rounded(TARGETS[part])} pictures/s | {TARGETS[part] / rate:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _rounded(value: float) -> str:
    """Three digits, and commas between thousands."""
    return f"{float(f'{value:.3g}'):,.10g}"


class _Moved(TorchDispatchMode):
    """Counts the elements of operands and results of the operations that torch's FLOP counter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            moved = tree_leaves((args, kwargs, made))
            self.elements += sum(one.numel() for one in moved if isinstance(one, torch.Tensor))
        return made


def work_of(compute: Callable[[], object], pictures: int) -> Work:
    """What one of so many pictures costs, counted while they are computed."""
    with FlopCounterMode(display=False) as counter, _Moved() as moved:
        compute()
    return Work(counter.get_total_flops() / pictures, moved.elements * HALF_BYTES / pictures)


def diffusion_spec(side: int, steps: int, batch: int, options: Options) -> DiffusionSpec:
    """Half precision, guidance on."""
    if options.tiny:
        side, steps, batch = 64, 1, 2
    return DiffusionSpec(model="random", side=side, steps=steps, batch=batch, dtype="bfloat16")


def diffusion_work(spec: DiffusionSpec, options: Options) -> Work:
    """With guidance: two rows of the UNet per step, one decoding; prompts are embedded before."""
    pipeline = random_pipeline(spec.model_copy(update={"dtype": "float32"}), Options("meta", options.tiny, False))
    unet, autoencoder = pipeline.unet, pipeline.vae
    side = spec.side // pipeline.vae_scale_factor
    with torch.inference_mode(), torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        latents = torch.empty(2, unet.config.in_channels, side, side)
        text = torch.empty(2, pipeline.tokenizer.model_max_length, unet.config.cross_attention_dim)
        step = work_of(lambda: unet(latents, torch.ones(()), text), 1)
        decoding = work_of(lambda: autoencoder.decode(latents[:1]), 1)
    # Without its bytes: attention, taken apart to be counted, would move what its kernels never write.
    return Work(spec.steps * step.operations + decoding.operations, 0)


def random_pipeline(spec: DiffusionSpec, options: Options) -> Any:
    """Stable Diffusion 2.1's networks, made from their sizes with random weights; the tokenizer is the tiny model's."""
    dtype = getattr(torch, spec.dtype)
    tiny = load_tiny_pipeline()
    if options.tiny:
        return tiny.to(options.device) if dtype == torch.float32 else tiny.to(device=options.device, dtype=dtype)
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    with torch.device(options.device):
        unet: Any = diffusers.UNet2DConditionModel(
            sample_size=spec.side // 8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
        autoencoder: Any = diffusers.AutoencoderKL(
            sample_size=spec.side,
            latent_channels=4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                max_position_embeddings=77,
                hidden_act="gelu",
                projection_dim=512,
            )
        )
    tokenizer = tiny.tokenizer
    tokenizer.model_max_length = 77
    pipeline: Any = diffusers.StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(options.device) if dtype == torch.float32 else pipeline.to(device=options.device, dtype=dtype)


def vgg16_spec(options: Options) -> Vgg16Spec:
    """Half precision, random weights."""
    side, batch = (32, 2) if options.tiny else (224, 512)
    layer: Literal["pool5-avg", "fc7"] = "pool5-avg" if options.tiny else "fc7"
    return Vgg16Spec(layer=layer, side=side, weights="random:0", batch=batch, precision="bfloat16")


def vgg16_work(spec: Vgg16Spec) -> Work:
    """Of whole batches: their pictures share the weights' way through memory."""
    assert spec.side is not None
    network = load_vgg16(spec, None).to("meta")
    pixels = torch.empty(spec.batch, 3, spec.side, spec.side, device="meta")
    with torch.no_grad():  # in inference mode layers come to the counter whole, as none of the operations that it knows
        return work_of(lambda: network(pixels), spec.batch)


def dcgan_spec(options: Options) -> GanSpec:
    """The first project's sizes."""
    features, batch = (4, 4) if options.tiny else (64, 128)
    return GanSpec(generator_features=features, discriminator_features=features, batch=batch, flip=True)


def dcgan_work(spec: GanSpec) -> Work:
    """A step of each network, as `_Training` takes them."""

    def step() -> None:
        with torch.device("meta"):
            generator, discriminator = build_generator(spec), build_discriminator(spec)
            fake = generator(torch.empty(spec.batch, spec.latent, 1, 1))
            real = torch.empty(spec.batch, 3, spec.side, spec.side)
            (discriminator(real) + discriminator(fake.detach())).sum().backward()
            discriminator(fake).sum().backward()

    return work_of(step, spec.batch)


def mobilenet_sizes(options: Options) -> tuple[Architecture, int]:
    """Five classes, head v3, and a batch."""
    width, side, batch = (0.35, 32, 4) if options.tiny else (1.0, 224, 512)
    return architecture(width, "v3", 5, side), batch


def mobilenet_work(shape: Architecture, batch: int) -> Work:
    """A step of fine-tuning: forward through all layers, backward through the last five."""
    trained_here = is_trained(shape, FineTuned(name="measured", unlocked=5))

    def step() -> None:
        with torch.device("meta"):
            network = MobileNet(shape)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(trained_here(name))
            network(torch.empty(batch, 3, shape.side, shape.side)).sum().backward()

    return work_of(step, batch)
