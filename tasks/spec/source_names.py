"""What people call the sources of pictures that experiments name in short: `sd14` is Stable Diffusion 1.4."""

import re
from collections.abc import Callable, Mapping

# What cards said of their sources before they had words for them: how an experiment reads each.
_KINDS = frozenset({"coco", "column", "diffusion", "folder", "gan", "reconstruction", "sample"})

_NAMES = {
    "adm": "ADM",
    "biggan": "BigGAN",
    "coco": "COCO",
    "cyclegan": "CycleGAN",
    "dallemini": "DALL-E mini",
    "dcgan": "DCGAN",
    "ddpm": "DDPM",
    "deepfloyd": "DeepFloyd IF",
    "deepfloydif": "DeepFloyd IF",
    "firefly": "Adobe Firefly",
    "flux": "FLUX",
    "gan": "GAN",
    "gaugan": "GauGAN",
    "glide": "GLIDE",
    "ideogram": "Ideogram",
    "imagen": "Imagen",
    "imagenet": "ImageNet",
    "kandinsky": "Kandinsky",
    "latentdiffusion": "Latent Diffusion",
    "ldm": "Latent Diffusion",
    "pixart": "PixArt",
    "progan": "ProGAN",
    "sd": "Stable Diffusion",
    "stablediffusion": "Stable Diffusion",
    "stargan": "StarGAN",
    "tinydiffusion": "tiny diffusion model",
    "vqdm": "VQDM",
    "wukong": "Wukong",
}

# Of names with a version, on what is left without hyphens and dots.
_VERSIONED: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"(?:sd|stablediffusion)v?(\d)(\d)?", lambda found: f"Stable Diffusion {_version(found)}"),
    (
        r"(?:sd|stablediffusion)xl(turbo)?(?:family)?",
        lambda found: "Stable Diffusion XL" + (" Turbo" if found[1] else ""),
    ),
    (r"dalle(\d)?", lambda found: f"DALL-E {found[1] or ''}".strip()),
    (r"midjourney(?:v?(\d)(\d)?)?", lambda found: f"Midjourney {_version(found)}".strip()),
    (r"gptimage(\d)?(\d)?", lambda found: f"GPT Image {_version(found)}".strip()),
    (r"stylegan(\d)", lambda found: f"StyleGAN{found[1]}"),
)


def name_in_words(name: str) -> str:
    """A source as people know it, by the name that an experiment gave it; that name where nobody knows it."""
    squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
    for pattern, words in _VERSIONED:
        if found := re.fullmatch(pattern, squeezed):
            return words(found)
    return _NAMES.get(squeezed, name)


def with_names(sources: Mapping[str, str]) -> dict[str, str]:
    """A card's words for its sources, where older cards have kinds such as `folder`, which say nothing."""
    return {name: name_in_words(name) if words in _KINDS else words for name, words in sources.items()}


def _version(found: re.Match[str]) -> str:
    return ".".join(part for part in found.groups() if part)
