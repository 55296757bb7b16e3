"""Pictures as they reach those who ask what they are: whole, scaled by a messenger or a screen, saved once more."""

import numpy as np
from PIL import Image

from storage.digest import hash_fraction
from tasks.data.encoding import decode_own_jpeg, encode_jpeg_exactly, encode_webp
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.resizing import resized
from tasks.spec.published import Delivery


def delivered(picture: Pixels, image_id: str, delivery: Delivery) -> Pixels:
    """A whole picture, uint8 (H, W, 3), after a delivery: uint8 (h, w, 3)."""
    height, width = picture.shape[:2]
    factor = _factor(image_id, min(height, width), delivery)
    if factor != 1:
        picture = resized(picture, max(1, round(height * factor)), max(1, round(width * factor)))
    if delivery.saved_as == "palette":
        return np.asarray(Image.fromarray(picture).quantize(256).convert("RGB"))
    if delivery.quality is None:
        return picture
    if delivery.saved_as == "webp":
        return decode_rgb(encode_webp(picture, delivery.quality))
    return decode_own_jpeg(encode_jpeg_exactly(picture, delivery.quality, "420"))


def _factor(image_id: str, shorter_side: int, delivery: Delivery) -> float:
    if delivery.shorter_side is not None:
        return min(1.0, delivery.shorter_side / shorter_side)
    if delivery.factors is None:
        return 1.0
    smallest, largest = delivery.factors
    return smallest + (largest - smallest) * hash_fraction(f"{delivery.name}:{image_id}")
