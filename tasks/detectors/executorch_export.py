"""A trained network as an ExecuTorch program for XNNPACK, for apps that run torch's own runtime.

    python -m tasks.detectors.executorch_export OBJECT FILE.pte

OBJECT is a finished object of `train/mobilenet` or `compress/*` in the store (`objects/train/mobilenet/...`). Needs the
extra `executorch`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import MissingInput, ObjectMissing, TelltaleError
from storage.objects import find
from storage.store import open_store
from tasks.detectors.trained import TrainedNetwork

if TYPE_CHECKING:
    import torch


def executorch_program(network: TrainedNetwork) -> bytes:
    """The network as the bytes of a `.pte` file.

    Its method `forward` takes float32 (1, 3, side, side), RGB, 0..255: the picture's central square, resized with the
    antialiased bilinear kernel of `prepare_picture`. (The program has one fixed size, so that step stays outside.) It
    returns float32 `probabilities` (1, k), calibrated, and `familiarity` (1, 3), columns as
    `tasks.detectors.rejection.SCORES`: what the thresholds of the network's card are compared with. The method `side`
    returns that side in pixels. Probabilities agree with the torch module within 1e-4.

    Raises:
        MissingInput: ExecuTorch is not installed.
        SpecError: tensors are missing, or have other shapes than the architecture says.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise MissingInput("ExecuTorch (`pip install 'telltale[executorch]'`)") from error
    import torch

    side = network.shape.side
    example = (torch.zeros(1, 3, side, side),)
    with warnings.catch_warnings():
        # torch's exporter copies its own trees in a way that torch calls deprecated.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning)
        exported = torch.export.export(_answering(network), example)
        lowered = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods={"side": side}
        )
        return bytes(lowered.to_executorch().buffer)


def _answering(network: TrainedNetwork) -> torch.nn.Module:
    """From values 0..255 to probabilities and familiarity, as the exported graph computes them."""
    import torch

    from tasks.detectors.mobilenet_network import DEVIATION, MEAN, load_network

    rejection = network.familiarity

    class Answering(torch.nn.Module):
        mean: torch.Tensor
        deviation: torch.Tensor
        centre: torch.Tensor
        projection: torch.Tensor
        class_means: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            # `load_network` orders weights for torch's own convolutions; the example's order has to be the weights'.
            self.network = load_network(network.shape, network.tensors)
            self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None])
            self.register_buffer("deviation", 255 * torch.tensor(DEVIATION)[:, None, None])
            self.register_buffer("centre", torch.tensor(rejection.mean))
            self.register_buffer("projection", torch.tensor(rejection.projection))
            self.register_buffer("class_means", torch.tensor(rejection.class_means))

        def forward(self, resized: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.network.pooled((resized - self.mean) / self.deviation)  # (1, D)
            logits = self.network.head(features)  # (1, k)
            probabilities = torch.softmax(logits / network.temperature, dim=1)
            projected = (features - self.centre) @ self.projection  # (1, d)
            distances = ((projected - self.class_means) ** 2).sum(dim=1, keepdim=True)  # (k, 1)
            scores = (
                probabilities.amax(dim=1, keepdim=True),
                torch.logsumexp(logits, dim=1, keepdim=True),
                -distances.amin(dim=0, keepdim=True),
            )
            return probabilities, torch.cat(scores, dim=1)

    return Answering().eval()


def main(uri: str, file: str) -> None:
    """Write an object of the store (`TELLTALE_STORE`) as a `.pte` file."""
    store = open_store()
    ref = find(store, uri)
    if ref is None:
        raise ObjectMissing(f"no finished object at {uri} in {store.url}")
    Path(file).write_bytes(executorch_program(TrainedNetwork.load(store, ref)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (TelltaleError, OSError) as error:
        sys.exit(f"error: {error}")
