"""Where a network looks: its class-activation map over the picture, in the colours of the app's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.data.pictures import Pixels
from tasks.networks.exported import Detection

# As in `mobile/src/picture/heatmap.ts`: what speaks for a generated picture, and against it.
FOR, AGAINST = (245, 130, 32), (40, 110, 235)
STRONGEST = 0.68


def evidence(found: Detection) -> npt.NDArray[np.float64]:
    """How much each place speaks for a generated picture: float64 (h, w) in -1..1, the largest magnitude 1.

    It speaks for the generator that the network finds likeliest, against a photograph; the map's mean is the difference
    of their logits, but for a bias and this scale.
    """
    likeliest = 1 + int(np.argmax(found.logits[1:]))
    places: npt.NDArray[np.float64] = found.activation[likeliest].astype(np.float64) - found.activation[0]
    largest = float(np.abs(places).max())
    if largest > 0:
        places /= largest
    return places


def shaded(rgb: Pixels, places: npt.NDArray[np.float64]) -> Pixels:
    """A square picture, uint8 (side, side, 3), with the evidence (h, w) of its places as colours over it."""
    height, width = rgb.shape[:2]
    enlarged = Image.fromarray(places.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    over = np.asarray(enlarged, dtype=np.float64)[..., None]  # (side, side, 1)
    strength = STRONGEST * np.abs(over).clip(max=1.0)
    colours = np.where(over >= 0, np.array(FOR, dtype=np.float64), np.array(AGAINST, dtype=np.float64))
    mixed: Pixels = np.rint((1 - strength) * rgb + strength * colours).astype(np.uint8)
    return mixed
