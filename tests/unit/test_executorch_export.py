import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.errors import MissingInput, ObjectMissing
from storage.objects import commit
from storage.store import STORE_SETTING, LocalStore
from tasks.detectors.architecture import architecture
from tasks.detectors.executorch_export import _answering, executorch_program, main
from tasks.detectors.export import ExportedNetwork, build_graph
from tasks.detectors.mobilenet_network import (
    MobileNet,
    initialise,
    load_network,
    network_tensors,
    prepare_picture,
)
from tasks.detectors.rejection import fit_familiarity
from tasks.detectors.trained import TrainedNetwork

CLASSES = ("real", "gan", "stable")
SIDE = 64


@functools.cache
def network() -> TrainedNetwork:
    shape = architecture(0.1, "v1", len(CLASSES), SIDE)
    module = MobileNet(shape)
    initialise(module, 0)
    features = np.random.default_rng(0).random((30, shape.last))
    familiarity = fit_familiarity(features, np.arange(30) % 3, 3, components=4)
    return TrainedNetwork(shape, network_tensors(module), CLASSES, 1.7, familiarity)


def pictures() -> list[np.ndarray]:
    """uint8 (SIDE, SIDE, 3): of these the network's input is the picture itself, without a resize."""
    return list(np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8))


def by_torch(pixels: np.ndarray) -> np.ndarray:
    module = load_network(network().shape, network().tensors)
    with torch.inference_mode():
        return torch.softmax(module(prepare_picture(pixels, SIDE)[None])[0] / network().temperature, 0).numpy()


# ExecuTorch reads its own schema files in a way that Python calls deprecated.
@pytest.mark.filterwarnings("ignore:read_binary is deprecated:DeprecationWarning")
def test_the_program_of_a_stored_network_answers_as_torch_and_the_onnx_graph_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("executorch.runtime", reason="ExecuTorch is not installed (extra `executorch`)")
    monkeypatch.setenv(STORE_SETTING, str(tmp_path))
    uri = "objects/train/mobilenet/dense"
    commit(LocalStore(tmp_path), uri, step="train/mobilenet", digest="dense", recipe={}, parts=network().parts())
    main(uri, str(tmp_path / "dense.pte"))
    program = runtime.Runtime.get().load_program(tmp_path / "dense.pte")
    assert program.load_method("side").execute([]) == [SIDE]
    forward = program.load_method("forward")
    graph = ExportedNetwork(build_graph(network()))
    for pixels in pictures():
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().contiguous()
        probabilities, familiarity = (found.numpy() for found in forward.execute([planes]))
        assert np.abs(probabilities[0] - by_torch(pixels)).max() <= 1e-4
        detected = graph.detect(pixels)
        assert np.abs(probabilities[0] - detected.probabilities).max() <= 1e-4
        assert familiarity[0] == pytest.approx(detected.familiarity, rel=1e-3)


def test_it_normalises_as_a_picture_is_prepared() -> None:
    module = _answering(network())
    for pixels in pictures():
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            probabilities, familiarity = module(planes)
        assert np.abs(probabilities[0].numpy() - by_torch(pixels)).max() <= 1e-5
        assert familiarity.shape == (1, 3)


def test_without_executorch_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(MissingInput, match=r"telltale\[executorch\]"):
        executorch_program(network())


def test_an_object_that_there_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_SETTING, str(tmp_path))
    with pytest.raises(ObjectMissing, match="objects/train/mobilenet/nothing"):
        main("objects/train/mobilenet/nothing", str(tmp_path / "nothing.pte"))
