"""Sources are called as people know them."""

import pytest

from tasks.presets import PRESETS, load_unfilled
from tasks.spec.source_names import name_in_words, with_names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sd14", "Stable Diffusion 1.4"),
        ("stable-diffusion-1-4", "Stable Diffusion 1.4"),
        ("stable-diffusion-v1-5", "Stable Diffusion 1.5"),
        ("SD2.1", "Stable Diffusion 2.1"),
        ("sd3", "Stable Diffusion 3"),
        ("stable-diffusion", "Stable Diffusion"),
        ("sdxl-family", "Stable Diffusion XL"),
        ("sdxl-turbo", "Stable Diffusion XL Turbo"),
        ("dalle", "DALL-E"),
        ("dalle3", "DALL-E 3"),
        ("midjourney", "Midjourney"),
        ("midjourney-v6", "Midjourney 6"),
        ("gpt-image-2", "GPT Image 2"),
        ("deepfloyd-if", "DeepFloyd IF"),
        ("stylegan2", "StyleGAN2"),
        ("gan", "GAN"),
        ("imagenet", "ImageNet"),
        ("my-own-set", "my-own-set"),
        ("dalleigh", "dalleigh"),
    ],
)
def test_a_name_is_put_in_words_where_people_have_some(name: str, words: str) -> None:
    assert name_in_words(name) == words


def test_kinds_are_no_words() -> None:
    sources = {"sd14": "folder", "gan": "gan", "other": "column", "stable": "a latent diffusion model"}
    assert with_names(sources) == {
        "sd14": "Stable Diffusion 1.4",
        "gan": "GAN",
        "other": "other",
        "stable": "a latent diffusion model",
    }


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_no_source_of_a_preset_is_described_by_how_it_is_read(preset: str) -> None:
    for source in load_unfilled(preset)[0].sources:
        assert source.in_words not in ("folder", "column", "gan", "diffusion", "sample", "coco", "reconstruction")
