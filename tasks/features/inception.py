"""The 2015 Inception network, whose features alone make FID, KID and IS.

Its weights are torch-fidelity's conversion of the original TensorFlow graph, named by path; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from storage.digest import file_sha256
from storage.errors import SpecError, TelltaleError
from storage.objects import Ref, read_part
from storage.store import Store
from tasks.facts import Fact, fact
from tasks.features.base import Extractor, ExtractorBase
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import LocalPath
from tasks.threads import limit_threads
from tasks.variables import located

Images = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# The file's name carries the start of its sha256.
INCEPTION_2015_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_2015_SHA256_START = "6726825d"
FEATURES, CLASSES = 2048, 1008
FILE = "inception.pth"


class InceptionSpec(ExtractorBase):
    """The 2015 Inception network, for FID, KID and IS; `weights` is the path of its file."""

    kind: Literal["inception"] = "inception"
    weights: LocalPath
    batch: int = Field(default=32, ge=1)

    @property
    def name(self) -> str:
        return "inception-2015"

    def missing(self) -> list[str]:
        return check_inception(located(self.weights))

    def facts(self) -> list[tuple[Fact[..., Any], tuple[Any, ...]]]:
        return [(inception_weights, (self.weights,))]

    def keyed(self) -> Self | None:
        sha256 = inception_weights(self.weights)
        return None if sha256 is None else self.model_copy(update={"weights": f"sha256:{sha256}"})

    def import_weights(self) -> Ref | None:
        sha256 = inception_weights(self.weights)
        ref: Ref | None = None if sha256 is None else import_inception(sha256=sha256, path=self.weights)
        return ref

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        """Features and class probabilities, on the CPU."""
        if weights is None:
            raise SpecError("the Inception network needs its weights' object")
        limit_threads()
        network = load_inception_bytes(read_part(store, weights, FILE))
        return Extractor(
            prepare=lambda data, view, picture: picture.pixels,
            embed=partial(embed_pictures, network),
            batch=self.batch,
            dimension=FEATURES + CLASSES,
        )


class InceptionUnavailable(TelltaleError):
    """The 2015 Inception network cannot be loaded; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Inception:
    """The 2015 Inception network; `digest` is the sha256 of its weights, to be printed beside every value."""

    digest: str
    _forward: Callable[[Images], tuple[Float32, Float64]]

    def features(self, images: Images) -> tuple[Float32, Float64]:
        """Pooled features (N, 2048) and class probabilities (N, 1008) of images (N, 3, height, width), uint8 RGB."""
        return self._forward(images)


def load_inception(path: Path | str) -> Inception:
    """The 2015 Inception network from a local file of torch-fidelity's conversion of its weights; on the CPU.

    Only that file is accepted, by its sha256: other Inception weights (torchvision's, say) give other values under the
    same name. Raises InceptionUnavailable where the file is missing or another one, or torch-fidelity is not installed.
    """
    digest = inception_digest(path)
    FeatureExtractorInceptionV3 = _require_torch_fidelity()
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )

    def forward(images: Images) -> tuple[Float32, Float64]:
        import torch

        with torch.inference_mode():
            pooled, logits = network(torch.from_numpy(np.ascontiguousarray(images)))
            return pooled.numpy(), torch.softmax(logits.double(), dim=1).numpy()

    return Inception(digest, forward)


def inception_digest(path: Path | str) -> str:
    """The sha256 of the weights' file; `InceptionUnavailable` where it is missing or another one."""
    path = Path(path)
    if not path.is_file():
        raise InceptionUnavailable(
            f"{path} does not exist: download {INCEPTION_2015_FILE} from the releases of toshas/torch-fidelity, "
            "or leave the path out to get distances on VGG16 features under their own names"
        )
    digest = file_sha256(path)
    if not digest.startswith(INCEPTION_2015_SHA256_START):
        raise InceptionUnavailable(
            f"{path} is not {INCEPTION_2015_FILE}: expected a sha256 that starts with {INCEPTION_2015_SHA256_START}, "
            f"got {digest}"
        )
    return digest


@fact(pool="gpu")
def inception_weights(path: str) -> str | None:
    """The sha256 of the weights that an experiment names; None where an optional variable leaves nothing of the name.

    Raises:
        MissingInput: variables are not set.
        InceptionUnavailable: as `inception_digest`.
    """
    here = located(path)
    return None if here is None else inception_digest(here)


def _require_torch_fidelity() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise InceptionUnavailable("FID, KID and IS need torch-fidelity: pip install torch-fidelity") from error
    return FeatureExtractorInceptionV3


def check_inception(path: str | None) -> list[str]:
    """What is missing for `load_inception`, with its remedy; nothing where no weights are named."""
    if path is None:
        return []
    try:
        inception_digest(path)
        _require_torch_fidelity()
    except InceptionUnavailable as error:
        return [f"Inception weights: {error}"]
    return []


def embed_pictures(inception: Inception, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Features and class probabilities side by side, float32 (N, 2048 + 1008), of pictures (height, width, 3).

    Pictures of one view have one size; of several sizes each goes by itself. The network resizes to 299 as in 2015.
    """
    equal = len({picture.shape for picture in pictures}) == 1
    batches = [list(pictures)] if equal else [[picture] for picture in pictures]
    rows = [np.hstack(inception.features(np.stack(batch).transpose(0, 3, 1, 2))) for batch in batches]
    return np.concatenate(rows).astype(np.float32)


def load_inception_bytes(data: bytes) -> Inception:
    """`load_inception` of weights that lie in a store: torch-fidelity reads files only."""
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        file.write(data)
        file.flush()
        return load_inception(file.name)


@step(
    "weights/inception",
    version=1,
    label=lambda sha256, **_: sha256[:12],
    unkeyed=("path",),
    paths=("path",),
    pool="gpu",
)
def import_inception(run: StepRun, *, sha256: str, path: str) -> Output:
    """Take the 2015 Inception weights into the store, where every worker finds them."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SpecError(f"Inception weights: {Path(path).name} changed while it was read")
    return Output({FILE: data})
