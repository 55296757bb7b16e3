"""The brightness of pixels in integers, for features that must not depend on how a machine rounds."""

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.int16]


def luminance(red: Plane, green: Plane, blue: Plane) -> Plane:
    """BT.601 of planes of 0..255, rounded, of their shape; a grey pixel keeps its value."""
    # Sums are up to 65,408, which 16 bits hold without a sign.
    red, green, blue = red.view(np.uint16), green.view(np.uint16), blue.view(np.uint16)
    weighed: Plane = ((77 * red + 150 * green + 29 * blue + 128) >> 8).view(np.int16)
    return weighed
