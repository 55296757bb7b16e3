"""The photographs that the wheels of scikit-image, scikit-learn and matplotlib contain: where they lie, what they show,
their splits.

Drawings, text pages, test patterns and medical pictures are left out, and so is what scikit-image fetches over a
network. The two halves of scikit-image's stereo pair show one scene, so only the left one is used.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from storage.errors import MissingInput

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""

# COCO's own identifiers, names and supercategories, as far as the photographs show them.
CATEGORIES: tuple[tuple[int, str, str], ...] = (
    (1, "person", "person"),
    (4, "motorcycle", "vehicle"),
    (15, "bench", "outdoor"),
    (17, "cat", "animal"),
    (47, "cup", "kitchen"),
    (50, "spoon", "kitchen"),
    (64, "potted plant", "furniture"),
    (67, "dining table", "furniture"),
)

LICENCES: tuple[dict[str, int | str], ...] = (
    {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"},
    {"id": 2, "name": "Public domain", "url": "https://creativecommons.org/publicdomain/mark/1.0/"},
    {"id": 3, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
    {"id": 4, "name": "No known copyright restrictions", "url": "https://www.flickr.com/commons/usage/"},
)


@dataclass(frozen=True)
class Photograph:
    """One photograph of a wheel: where it lies, what it shows, and where in the picture that is."""

    package: str
    path: str
    licence: int
    subject: str
    setting: str
    colours: str
    parts: tuple[tuple[str, Box], ...] = ()
    categories: tuple[tuple[str, Box], ...] = ()


PHOTOGRAPHS: dict[str, Photograph] = {
    "astronaut": Photograph(
        "skimage",
        "data/astronaut.png",
        2,
        "an astronaut",
        "in front of a flag",
        "orange and white",
        parts=(
            ("the smiling face of a woman", (150, 0, 320, 180)),
            ("an american flag", (0, 0, 150, 250)),
            ("a model of a space shuttle", (345, 0, 480, 290)),
            ("an orange space suit", (20, 170, 360, 512)),
            ("a black and white helmet", (285, 330, 512, 512)),
        ),
        categories=(("person", (20, 5, 365, 512)),),
    ),
    "brick": Photograph(
        "skimage",
        "data/brick.png",
        1,
        "a brick wall",
        "with light joints between the bricks",
        "grey",
        parts=(("rows of long bricks", (0, 0, 512, 256)), ("bricks and mortar", (0, 256, 512, 512))),
    ),
    "camera": Photograph(
        "skimage",
        "data/camera.png",
        1,
        "a man with a camera",
        "on a lawn",
        "black and white",
        parts=(
            ("the head of a man", (145, 55, 260, 200)),
            ("a camera on a tripod", (225, 120, 405, 512)),
            ("towers and low buildings under a pale sky", (325, 60, 512, 225)),
            ("short grass", (330, 225, 512, 512)),
            ("a dark coat", (0, 200, 250, 512)),
            ("an empty sky", (0, 0, 512, 100)),
        ),
        categories=(("person", (0, 60, 335, 512)),),
    ),
    "chelsea": Photograph(
        "skimage",
        "data/chelsea.png",
        1,
        "a tabby cat",
        "looking to the side",
        "brown and pink",
        parts=(
            ("the green eyes of a cat", (140, 75, 350, 165)),
            ("the nose and the whiskers of a cat", (160, 175, 370, 300)),
            ("the striped fur of a cat", (0, 0, 170, 300)),
            ("the forehead of a cat", (150, 0, 330, 80)),
        ),
        categories=(("cat", (0, 0, 385, 300)),),
    ),
    "china": Photograph(
        "sklearn",
        "datasets/images/china.jpg",
        3,
        "a pagoda",
        "above a lake",
        "red and green",
        parts=(
            ("the roofs of a pagoda", (80, 20, 365, 280)),
            ("a hazy lake", (340, 200, 525, 350)),
            ("trees and bushes", (0, 300, 640, 427)),
            ("a tree against the sky", (510, 80, 640, 320)),
            ("an empty sky", (330, 0, 640, 180)),
        ),
    ),
    "coffee": Photograph(
        "skimage",
        "data/coffee.png",
        1,
        "a cup of coffee",
        "on a wooden table",
        "red and brown",
        parts=(
            ("coffee in a white and red cup", (170, 15, 400, 250)),
            ("a spoon on a red saucer", (290, 180, 480, 385)),
            ("the rim of a red saucer", (80, 200, 300, 385)),
            ("the wood of a table", (470, 0, 600, 400)),
            ("a dark wooden table", (0, 0, 150, 400)),
        ),
        categories=(
            ("cup", (170, 15, 400, 300)),
            ("spoon", (315, 65, 415, 335)),
            ("dining table", (0, 0, 600, 400)),
        ),
    ),
    "coins": Photograph(
        "skimage",
        "data/coins.png",
        4,
        "old coins",
        "in rows on a dark cloth",
        "grey",
        parts=(
            ("a large coin beside small ones", (250, 0, 384, 200)),
            ("worn coins with portraits", (0, 0, 250, 150)),
            ("coins of different sizes", (0, 150, 384, 303)),
        ),
    ),
    "flower": Photograph(
        "sklearn",
        "datasets/images/flower.jpg",
        3,
        "a dahlia flower",
        "in front of dark leaves",
        "orange and green",
        parts=(
            ("the petals of an orange flower", (165, 80, 450, 360)),
            ("dark green leaves", (0, 0, 165, 427)),
            ("blurred leaves", (450, 0, 640, 427)),
            ("a second bloom", (280, 360, 470, 427)),
        ),
        categories=(("potted plant", (165, 80, 470, 427)),),
    ),
    "moon": Photograph(
        "skimage",
        "data/moon.png",
        2,
        "the surface of the moon",
        "with craters and hills",
        "grey",
        parts=(
            ("a round crater", (60, 30, 190, 150)),
            ("a bright hill", (260, 30, 410, 170)),
            ("a dark pit", (180, 360, 310, 512)),
            ("a dusty plain", (0, 150, 180, 512)),
        ),
    ),
    "motorcycle": Photograph(
        "skimage",
        "data/motorcycle_left.png",
        4,
        "a red motorcycle",
        "in a garage",
        "red and grey",
        parts=(
            ("the front wheel of a motorcycle", (480, 230, 660, 430)),
            ("the rear wheel of a motorcycle", (100, 210, 285, 400)),
            ("the engine of a motorcycle", (265, 200, 480, 390)),
            ("shelves full of boxes", (340, 0, 741, 190)),
            ("a wooden bench", (0, 100, 190, 320)),
            ("a concrete floor", (0, 400, 741, 500)),
        ),
        categories=(("motorcycle", (115, 50, 650, 430)), ("bench", (0, 110, 190, 310))),
    ),
    "rocket": Photograph(
        "skimage",
        "data/rocket.jpg",
        1,
        "a rocket",
        "on its launch pad at dusk",
        "dark blue",
        parts=(
            ("a white rocket", (270, 110, 375, 400)),
            ("a steel tower", (0, 0, 110, 415)),
            ("steel towers", (450, 0, 640, 400)),
            ("bright lamps at night", (0, 330, 640, 427)),
            ("a dark blue sky", (110, 0, 450, 120)),
        ),
    ),
}

# Those that the preset `sample` does not name, because its splits were made before them.
FURTHER_PHOTOGRAPHS: dict[str, Photograph] = {
    "grass": Photograph(
        "skimage",
        "data/grass.png",
        1,
        "a meadow",
        "seen from above",
        "grey",
        parts=(("blades of grass", (0, 0, 512, 256)), ("grass and small leaves", (0, 256, 512, 512))),
    ),
    "gravel": Photograph(
        "skimage",
        "data/gravel.png",
        1,
        "gravel",
        "seen from above",
        "grey",
        parts=(("light stones", (0, 0, 512, 256)), ("stones of all sizes", (0, 256, 512, 512))),
    ),
    "hopper": Photograph(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        2,
        "an officer in uniform",
        "in front of a flag",
        "dark blue and red",
        parts=(
            ("the face of a woman with glasses", (180, 60, 350, 300)),
            ("a white cap with a badge", (150, 0, 340, 110)),
            ("a flag with stars and stripes", (0, 0, 170, 330)),
            ("ribbons and a name plate on a dark uniform", (60, 400, 470, 600)),
            ("a blue wall", (340, 0, 512, 280)),
        ),
        categories=(("person", (20, 0, 512, 600)),),
    ),
    "stars": Photograph(
        "skimage",
        "data/hubble_deep_field.jpg",
        2,
        "a field of galaxies",
        "through a space telescope",
        "black and orange",
        parts=(("small galaxies on a black sky", (0, 0, 1000, 436)), ("stars and galaxies", (0, 436, 1000, 872))),
    ),
}
EVERY_PHOTOGRAPH: dict[str, Photograph] = PHOTOGRAPHS | FURTHER_PHOTOGRAPHS

# Colour and greyscale, near things and far ones on every side. The tiny diffusion model is trained on "train" only, so
# moving a photograph means training the shipped weights again.
SAMPLE_SPLITS: dict[str, str] = {
    "astronaut": "train",
    "brick": "train",
    "camera": "train",
    "chelsea": "val",
    "china": "val",
    "coffee": "train",
    "coins": "test",
    "flower": "test",
    "moon": "test",
    "motorcycle": "train",
    "rocket": "train",
}


def photograph_path(name: str) -> Path:
    """Where a photograph lies in the installed wheel; raises `MissingInput` where the wheel does not hold it."""
    photograph = EVERY_PHOTOGRAPH[name]
    # find_spec locates the package without importing it: scikit-learn alone takes seconds.
    spec = importlib.util.find_spec(photograph.package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / photograph.path
        if path.is_file():
            return path
    raise MissingInput(
        f"the sample's photograph {photograph.path!r} is not in the installed package {photograph.package!r}; "
        "install the wheels that constraints.txt names: "
        "pip install -c constraints.txt scikit-image scikit-learn matplotlib"
    )


def read_photograph(name: str) -> Image.Image:
    """One photograph in full size as RGB; greyscale photographs have three equal channels."""
    with Image.open(photograph_path(name)) as image:
        return image.convert("RGB")
