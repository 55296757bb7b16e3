"""Pixels at another size."""

import numpy as np
from PIL import Image

from tasks.data.pictures import Pixels


def resized(rgb: Pixels, height: int, width: int) -> Pixels:
    """uint8 (H, W, 3) as uint8 (height, width, 3), stretched; the same array where it has that size.

    Pillow's bicubic, whose kernel widens with the reduction: antialiased, as the first project's was.
    """
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def sides_within(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) within `longest`: the longer side becomes `longest`, the other is rounded, halves up."""
    larger = max(height, width)
    if larger <= longest:
        return height, width
    reduced = [max(1, (2 * side * longest + larger) // (2 * larger)) for side in (height, width)]
    return reduced[0], reduced[1]
