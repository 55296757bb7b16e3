"""Image models of others as small as they get: of transformers in folders, and ONNX files, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.torch_vision_schema import define_missing_torchvision_schemas

SIDE = 32
_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 9,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
KINDS = ("clip", "clip-vision", "siglip", "siglip-vision", "vit", "vit-classifier", "dinov2", "convnext", "resnet")


def transformers_model(kind: str) -> Any:
    """A model with seeded random weights, in evaluation mode."""
    define_missing_torchvision_schemas()
    import torch
    import transformers as tr

    made: dict[str, Callable[[], torch.nn.Module]] = {
        "clip": lambda: tr.CLIPModel(tr.CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=8)),
        "clip-vision": lambda: tr.CLIPVisionModel(tr.CLIPVisionConfig(**_VISION)),
        "siglip": lambda: tr.SiglipModel(tr.SiglipConfig(text_config=_TEXT, vision_config=_VISION)),
        "siglip-vision": lambda: tr.SiglipVisionModel(tr.SiglipVisionConfig(**_VISION)),
        "vit": lambda: tr.ViTModel(tr.ViTConfig(**_VISION)),
        "vit-classifier": lambda: tr.ViTForImageClassification(tr.ViTConfig(**_VISION)),
        "dinov2": lambda: tr.Dinov2Model(
            tr.Dinov2Config(**{name: value for name, value in _VISION.items() if name != "intermediate_size"})
        ),
        "convnext": lambda: tr.ConvNextModel(tr.ConvNextConfig(hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1])),
        "resnet": lambda: tr.ResNetModel(
            tr.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1], layer_type="basic")
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return made[kind]().eval()


def saved_model(folder: Path, kind: str) -> Path:
    """A folder as `save_pretrained` writes it."""
    transformers_model(kind).save_pretrained(folder)
    return folder


def onnx_kernel() -> npt.NDArray[np.float32]:
    """The convolution of `onnx_model`."""
    return np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def onnx_model(
    side: int | str = "side",
    *,
    count: int | str = "count",
    element: str = "FLOAT",
    channels_last: bool = False,
    inputs: int = 1,
    domain: str = "",
) -> bytes:
    """A model with the outputs `maps` (N, 4, side, side), or (N, side, side, 4), and `pooled` (N, 4).

    Args:
        side, count: a name stands for any number.
        element: the type of its numbers.
        domain: whose operator `Relu` is.
    """
    from onnx import TensorProto, helper, numpy_helper

    kind = getattr(TensorProto, element)
    dtype = {"FLOAT": np.float32, "FLOAT16": np.float16}[element]
    kernel = onnx_kernel().astype(dtype)
    sides = [count, side, side] if channels_last else [count, 3, side, side]
    given = [
        helper.make_tensor_value_info(f"pixels{number or ''}", kind, [*sides, 3] if channels_last else sides)
        for number in range(inputs)
    ]
    nodes = [helper.make_node("Conv", ["first", "kernel"], ["convolved"], pads=[1, 1, 1, 1])]
    if channels_last:
        nodes.insert(0, helper.make_node("Transpose", ["pixels"], ["first"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["convolved"], ["moved"], perm=[0, 2, 3, 1]))
    else:
        nodes.insert(0, helper.make_node("Identity", ["pixels"], ["first"]))
        nodes.append(helper.make_node("Identity", ["convolved"], ["moved"]))
    nodes.append(helper.make_node("Relu", ["moved"], ["maps"], domain=domain))
    axes = numpy_helper.from_array(np.array([1, 2] if channels_last else [2, 3]), "axes")
    nodes.append(helper.make_node("ReduceMean", ["maps", "axes"], ["pooled"], keepdims=0))
    nodes.append(helper.make_node("Shape", ["pooled"], ["shape"]))
    maps = [count, side, side, 4] if channels_last else [count, 4, side, side]
    made = [
        helper.make_tensor_value_info("maps", kind, maps),
        helper.make_tensor_value_info("pooled", kind, [count, 4]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
    ]
    graph = helper.make_graph(nodes, "tiny", given, made, [numpy_helper.from_array(kernel, "kernel"), axes])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    serialised: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return serialised
