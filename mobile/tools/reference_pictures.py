"""The app's own reference pictures (`public/pictures`): free photographs, and pictures by the tiny diffusion model.

    python mobile/tools/reference_pictures.py

Photographs are central squares of those in the scikit-image wheel that are in the public domain or under CC0 1.0. The
tiny model ships with telltale and was trained on such photographs (`tasks/generators/tiny_diffusion.py`). They show
that the app works and how fast it is: too few, and too easy, to say how good a network is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from storage.digest import digest_of
from tasks.app_files import picture_files
from tasks.data.encoding import encode_jpeg
from tasks.data.sample import captions_of
from tasks.data.sample_photographs import LICENCES, PHOTOGRAPHS, read_photograph
from tasks.generators.diffusion import PictureRequest, generate_images, load_pipeline
from tasks.generators.sampling import Sampler
from tasks.spec.generators import DiffusionSpec

FREE = ("CC0 1.0", "Public domain")
SIDE = 320
QUALITY = 90
GENERATED = "tiny-diffusion"
TINY = DiffusionSpec(model="tiny", guidance=2.5, steps=20, side=64, batch=16)


def free_photographs() -> list[str]:
    """Names of the sample's photographs whose licence asks for nothing."""
    free = [licence["id"] for licence in LICENCES if licence["name"] in FREE]
    return sorted(name for name, photograph in PHOTOGRAPHS.items() if photograph.licence in free)


def photograph(name: str) -> np.ndarray:
    """The central square of a photograph, uint8 (SIDE, SIDE, 3) or smaller."""
    picture = read_photograph(name)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.array(square if side <= SIDE else square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def generated(names: list[str]) -> Iterator[np.ndarray]:
    """One picture by the tiny model for each photograph's subject, uint8 (64, 64, 3)."""
    requests = []
    for name in names:
        width, height = read_photograph(name).size
        requests.append(PictureRequest(name, captions_of(PHOTOGRAPHS[name], (0, 0, width, height), (width, height))[0]))
    sampler = Sampler(load_pipeline(TINY, "cpu"), TINY)
    for picture in generate_images(sampler, digest_of(TINY.model_dump(mode="json")), requests):
        if picture.pixels is not None:
            yield picture.pixels


def main(app: Path) -> None:
    """Write them into the app's folder `public/pictures`, in place of those that were there."""
    names = free_photographs()
    pictures = [("real", ".jpg", encode_jpeg(photograph(name), QUALITY)) for name in names]
    pictures += [(GENERATED, ".jpg", encode_jpeg(pixels, QUALITY)) for pixels in generated(names)]
    folder = app / "public" / "pictures"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for path, data in picture_files(pictures).items():
        (app / "public" / path).write_bytes(data)
    print(f"{json.dumps(names)}: {len(pictures)} pictures, {sum(len(data) for *_, data in pictures)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
