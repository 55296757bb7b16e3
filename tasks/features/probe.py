"""The features of the probe, a detector that sees no picture content: what a file says about itself."""

import numpy as np
import numpy.typing as npt

from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import inspect_picture
from tasks.data.views import PROBE_FEATURE_NAMES, probe_vector
from tasks.spec.views import View

DIMENSION = len(PROBE_FEATURE_NAMES)

# These span orders of magnitude; a linear detector separates ratios of them, not differences.
_LOGARITHMIC = [PROBE_FEATURE_NAMES.index(name) for name in ("width", "height", "file_size")]


def probe_features(data: bytes, view: View, picture: ViewPicture) -> npt.NDArray[np.float32]:
    """`probe_vector` of a picture in a view with its sizes as natural logarithms: float32 (16,).

    Args:
        data: the original image file, whose facts count where the view leaves it untouched.
        view: the view.
        picture: the picture in that view.
    """
    features = probe_vector(inspect_picture(data), len(data), view, picture)
    features[_LOGARITHMIC] = np.log(features[_LOGARITHMIC])
    return features
