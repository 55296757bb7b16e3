"""The features of the probe, a detector that sees no picture content: what a file says about itself."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.objects import Ref
from storage.store import Store
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import inspect_picture
from tasks.data.views import PROBE_FEATURE_NAMES, probe_vector
from tasks.features.base import Extractor, ExtractorBase
from tasks.spec.views import View

DIMENSION = len(PROBE_FEATURE_NAMES)

# These span orders of magnitude; a linear detector separates ratios of them, not differences.
_LOGARITHMIC = [PROBE_FEATURE_NAMES.index(name) for name in ("width", "height", "file_size")]


class ProbeSpec(ExtractorBase):
    """The features of a detector that sees no picture content."""

    kind: Literal["probe"] = "probe"

    @property
    def name(self) -> str:
        return "probe"

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        return Extractor(prepare=probe_features, embed=np.stack, batch=256, dimension=DIMENSION)


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
