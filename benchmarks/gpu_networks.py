"""The networks that `gpu.py` measures: their true sizes, with random weights, which cost what trained ones cost."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tasks.features.vgg16 import Vgg16Spec
from tasks.generators.tiny_model import load_tiny_pipeline, make_scheduler
from tasks.networks.architecture import Architecture, architecture
from tasks.spec.generators import DiffusionSpec, GanSpec

COCO_PICTURES = 118_000


@dataclass(frozen=True)
class Options:
    """How to measure. `tiny` takes small networks and few pictures."""

    device: str
    tiny: bool
    compiled: bool


def diffusion_spec(side: int, steps: int, batch: int, options: Options) -> DiffusionSpec:
    """Half precision, guidance on."""
    if options.tiny:
        side, steps, batch = 64, 1, 2
    return DiffusionSpec(model="random", side=side, steps=steps, batch=batch, dtype="bfloat16")


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


def dcgan_spec(options: Options) -> GanSpec:
    """The first project's sizes."""
    features, batch = (4, 4) if options.tiny else (64, 128)
    return GanSpec(generator_features=features, discriminator_features=features, batch=batch, flip=True)


def mobilenet_sizes(options: Options) -> tuple[Architecture, int]:
    """Five classes, head v3, and a batch."""
    width, side, batch = (0.35, 32, 4) if options.tiny else (1.0, 224, 512)
    return architecture(width, "v3", 5, side), batch
