"""VGG16's convolutions in integers: activations as uint8, weights as int8, several times as fast on a CPU with VNNI.

Post-training quantisation without a label (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"), in three steps:

1. The pixels are the first layer's integers as they are; the normalisation is part of its weights and biases.
2. Activations have one scale per layer, up to 1.2 times their largest value on calibration pictures; weights one
   per channel.
3. What rounding adds to a channel's mean is taken from its bias (Nagel et al. 2019, "Data-Free Quantization Through
   Weight Equalization and Bias Correction", section 4.2), layer by layer, as the integers before it are.

Clipping the largest activations, and giving channels equal ranges by moving factors into the next layer's weights,
were tried and make it worse here (docs/decisions/0012).

The last convolution gives floats, and the connected layers stay in float. Calibration pictures are made of the
photographs of two wheels that telltale needs anyway, so a quantised network depends on nothing but weights and
versions. Integer sums are exact, whatever their order, and every picture is computed by itself: the features of the
convolutions are the same bits in every batch.

The kernels are oneDNN's, by the operators that torch's own compiler calls (docs/decisions/0012).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import SpecError
from storage.objects import Ref
from storage.weights import read_weights, weight_parts
from tasks.data.pictures import Pixels, decode_own_jpeg, encode_jpeg
from tasks.data.sample import PHOTOGRAPHS, read_photograph
from tasks.detectors.vgg16 import (
    CONVOLUTIONS,
    LAST_CONVOLUTION,
    MEAN,
    POOLED,
    STD,
    prepare_picture,
    random_tensors,
)
from tasks.detectors.vgg16_winograd import ConnectedLayers
from tasks.recipe import Output, StepRun, step
from tasks.spec import Vgg16Spec
from tasks.threads import in_order, limit_threads, parallel_tasks

if TYPE_CHECKING:
    import torch

Tensors = dict[str, npt.NDArray[Any]]
Value = TypeVar("Value")
Made = TypeVar("Made")

# A calibration picture's resolution before it is brought to the network's input size, and its JPEG quality.
_CALIBRATION_VIEWS = ((320, 92), (256, 20), (64, 60))
_CALIBRATION_PIXELS = 40 * 224**2  # of all of them together: one layer's activations of all are in memory at once
_FEWEST_PICTURES = 6

_HEADROOM = 1.2  # other pictures' activations reach higher: to clip these costs more than finer levels gain
_LEVELS = 255  # of an activation
_LARGEST = 127  # of a weight

# Pixels of the border, where the network in float has zeros after the normalisation: the nearest levels.
_BORDER = tuple(round(255 * mean) for mean in MEAN)


def quantize_vgg16(tensors: Tensors, pictures: Sequence[Pixels]) -> Tensors:
    """Weights in 8 bits of weights in float.

    Args:
        tensors: by torchvision's names, float16 or float32 (`vgg16.tensor_shapes`).
        pictures: calibration pictures, uint8 (H, W, 3), of the network's input size.

    Returns:
        `features.<i>.weight` int8 (O, I, 3, 3), `.scale` and `.bias` float32 (O,), and `.input`, the float32 (1,) that
        one level of the layer's input stands for; `classifier.*` as they are.

    Raises:
        SpecError: no pictures, or `check_processor` has something to say.
    """
    if not pictures:
        raise SpecError("quantisation needs at least one calibration picture, got none")
    _require_integers()
    weights, biases = _folded(tensors)
    seen = _observe(weights, biases, pictures)
    quantized = _quantize(weights, biases, seen, pictures)
    return quantized | {name: tensor for name, tensor in tensors.items() if name.startswith("classifier.")}


def calibration_pictures(spec: Vgg16Spec) -> list[Pixels]:
    """Pictures to calibrate on, of the network's input size: uint8 (H, W, 3), the same ones for the same versions.

    Central squares of the photographs that the scikit-image and scikit-learn wheels ship, whole and in a quarter, in
    three views: resolutions and JPEG qualities as an experiment has them.
    """
    pictures = []
    for name in sorted(PHOTOGRAPHS):
        photograph = read_photograph(name)
        for share in (1.0, 0.5):
            for resolution, quality in _CALIBRATION_VIEWS:
                side = share * min(photograph.size)
                left, top = (photograph.width - side) / 2, (photograph.height - side) / 2
                square = photograph.resize(
                    (resolution, resolution), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
                )
                posted = decode_own_jpeg(encode_jpeg(np.array(square), quality))
                pictures.append(prepare_picture(posted, spec))
    most = max(_FEWEST_PICTURES, int(_CALIBRATION_PIXELS / np.mean([one[..., 0].size for one in pictures])))
    # Every so many-th, which is coprime to the number of views, so that a few pictures are of all kinds too.
    return [pictures[index * 7 % len(pictures)] for index in range(min(most, len(pictures)))]


class Int8Vgg16:
    """The quantised network, ready to compute on this processor: uint8 (N, H, W, 3) to float32 (N, D)."""

    def __init__(self, spec: Vgg16Spec, tensors: Tensors) -> None:
        """Pack the weights of `quantize_vgg16`; raises SpecError where this processor's integers are not exact."""
        _require_integers()
        scales = {index: tensors[f"features.{index}.input"].item() for index in CONVOLUTIONS}
        following = dict(zip(CONVOLUTIONS, [*list(scales.values())[1:], None], strict=True))
        self._convolutions = [
            _Convolution(
                weight=tensors[f"features.{index}.weight"],
                scale=tensors[f"features.{index}.scale"],
                bias=tensors[f"features.{index}.bias"],
                input_scale=scales[index],
                output_scale=following[index],
                padded=index != 0,
            )
            for index in CONVOLUTIONS
        ]
        self._connected = ConnectedLayers(spec, tensors)

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Features of pictures of one size."""
        import torch

        with torch.inference_mode():
            return self._connected(torch.cat([self._maps(picture) for picture in pixels]))

    def _maps(self, picture: Pixels) -> torch.Tensor:
        """The pooled activations of one picture, (1, 512, 7, 7): by itself it stays within the processor's caches."""
        import torch

        values = as_integers(picture)
        for index, convolution in zip(CONVOLUTIONS, self._convolutions, strict=True):
            values = convolution(values)
            if index in POOLED:
                values = pool(values)
        return torch.nn.functional.adaptive_avg_pool2d(values, 7)


def check_int8(spec: Vgg16Spec, device: str) -> list[str]:
    """What keeps an extractor in int8 from being computed on a device (`cpu` or `cuda`), each with its remedy."""
    if spec.precision != "int8":
        return []
    if device != "cpu":
        return [
            f"a CPU for extractor.precision int8, which there is no kernel for on {device}: "
            "set extractor.precision to bfloat16, or hide the GPU (CUDA_VISIBLE_DEVICES=)"
        ]
    problem = check_processor()
    return [problem] if problem else []


@functools.cache
def check_processor() -> str | None:
    """What keeps this process from computing with integers, in one sentence, or None.

    Without VNNI, sums of two products are 16 bits wide and saturate: the largest values are tried, and their sum has
    to come out exactly.
    """
    import torch

    channels = 32
    try:
        weight = np.full((16, channels, 3, 3), _LARGEST, np.int8)
        ones = np.ones(16, np.float32)
        convolution = _Convolution(weight, ones, 0 * ones, input_scale=1.0, output_scale=None, padded=False)
        brightest = torch.full((1, channels, 3, 3), _LEVELS, dtype=torch.uint8)
        sums = convolution(brightest.contiguous(memory_format=torch.channels_last))
    except (AttributeError, RuntimeError) as error:
        return f"torch {torch.__version__} has no convolution of integers here ({error}): {_REMEDY}"
    if not bool((sums == _LEVELS * _LARGEST * 9 * channels).all()):
        return f"this processor's sums of 8-bit products are not exact (it has no VNNI): {_REMEDY}"
    return None


_REMEDY = "set extractor.precision to float32"


@dataclass
class _Seen:
    """What a float layer's output was on calibration pictures."""

    mean: npt.NDArray[np.float64]  # (O,), before the ReLU
    highest: float


class _Convolution:
    """One 3x3 convolution with its ReLU: uint8 (N, I, H, W), channels last, to uint8 (N, O, H, W) or float32.

    Args:
        weight, scale, bias: int8 (O, I, 3, 3), float32 (O,), float32 (O,).
        input_scale, output_scale: what one level of the input and of the output stands for; None gives floats.
        padded: with zeros, by one pixel on each side.
    """

    def __init__(
        self,
        weight: npt.NDArray[np.int8],
        scale: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        *,
        input_scale: float,
        output_scale: float | None,
        padded: bool,
    ) -> None:
        import torch

        outputs = len(weight)
        self.scale, self.bias = torch.from_numpy(np.array(scale)), torch.from_numpy(np.array(bias))
        self.zeros = torch.zeros(outputs, dtype=torch.int64)
        self.input_scale, self.output_scale = input_scale, output_scale
        self.geometry = ([1, 1], [int(padded)] * 2, [1, 1], 1)  # strides, padding, dilation, groups
        self.packed = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(np.array(weight)), self.scale, input_scale, 0, *self.geometry, None
        )

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return self._compute(values, self.output_scale, "relu")

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """What the ReLU would get, in float32."""
        return self._compute(values, None, "none")

    def means(self, values: torch.Tensor) -> npt.NDArray[np.float64]:
        """Their means over the picture, (O,)."""
        return _channel_means(self.sums(values))

    def _compute(self, values: torch.Tensor, output_scale: float | None, then: str) -> torch.Tensor:
        import torch

        computed: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            values,
            self.input_scale,
            0,
            self.packed,
            self.scale,
            self.zeros,
            self.bias,
            *self.geometry,
            output_scale or 1.0,
            0,
            torch.uint8 if output_scale else torch.float32,
            then,
            [],
            "",
        )
        return computed


def as_integers(picture: Pixels) -> torch.Tensor:
    """uint8 (H, W, 3) with a border of the mean colour, one pixel wide: (1, 3, H + 2, W + 2), channels last."""
    import torch

    height, width, _ = picture.shape
    bordered = np.empty((1, height + 2, width + 2, 3), np.uint8)
    bordered[:] = _BORDER
    bordered[:, 1:-1, 1:-1] = picture
    return torch.from_numpy(bordered).permute(0, 3, 1, 2)


def pool(values: torch.Tensor) -> torch.Tensor:
    """The largest of every 2x2 pixels, (N, C, H, W) to (N, C, H // 2, W // 2): torch's own takes no large uint8."""
    import torch

    height, width = values.shape[2] // 2 * 2, values.shape[3] // 2 * 2
    values = torch.maximum(values[:, :, 0:height:2], values[:, :, 1:height:2])
    return torch.maximum(values[..., 0:width:2], values[..., 1:width:2])


def _folded(tensors: Tensors) -> tuple[dict[int, npt.NDArray[np.float32]], dict[int, npt.NDArray[np.float32]]]:
    """Weights and biases of the convolutions in float32; the first one's are for pixels minus the mean colour."""
    weights = {index: np.array(tensors[f"features.{index}.weight"], np.float32) for index in CONVOLUTIONS}
    biases = {index: np.array(tensors[f"features.{index}.bias"], np.float32) for index in CONVOLUTIONS}
    weights[0] /= 255 * np.array(STD, np.float32).reshape(1, 3, 1, 1)
    return weights, biases


def _observe(
    weights: dict[int, npt.NDArray[np.float32]],
    biases: dict[int, npt.NDArray[np.float32]],
    pictures: Sequence[Pixels],
) -> dict[int, _Seen]:
    """What the layers' outputs are in float."""
    import torch

    kernels = {
        index: torch.from_numpy(weight).contiguous(memory_format=torch.channels_last)
        for index, weight in weights.items()
    }
    middle = 255 * torch.tensor(MEAN).view(1, 3, 1, 1)

    def seen_in(picture: Pixels) -> dict[int, _Seen]:
        seen = {}
        values = as_integers(picture).float() - middle
        for index, kernel in kernels.items():
            bias = torch.from_numpy(biases[index])
            values = torch.nn.functional.conv2d(values, kernel, bias, padding=int(index != 0))
            mean = _channel_means(values)
            values = torch.relu_(values)
            seen[index] = _Seen(mean, float(values.max()))
            if index in POOLED:
                values = torch.nn.functional.max_pool2d(values, 2)
        return seen

    found = _of_each(seen_in, pictures)
    return {
        index: _Seen(np.mean([seen[index].mean for seen in found], axis=0), max(seen[index].highest for seen in found))
        for index in weights
    }


def _of_each(function: Callable[[Value], Made], values: Sequence[Value]) -> list[Made]:
    """`function` of every value, in order, by all threads: quantisation goes before everything else."""
    import torch

    def without_gradients(value: Value) -> Made:
        with torch.inference_mode():
            return function(value)

    threads = parallel_tasks()
    return list(in_order(without_gradients, values, threads=threads, ahead=2 * threads))


def _quantize(
    weights: dict[int, npt.NDArray[np.float32]],
    biases: dict[int, npt.NDArray[np.float32]],
    seen: dict[int, _Seen],
    pictures: Sequence[Pixels],
) -> Tensors:
    """Integers of all convolutions, each layer's biases corrected for the integers that it really gets."""
    quantized: Tensors = {}
    values = [as_integers(picture) for picture in pictures]
    input_scale = 1.0
    for index, weight in weights.items():
        scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / _LARGEST
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        levels = np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        convolution = _Convolution(
            levels, scale, biases[index], input_scale=input_scale, output_scale=None, padded=index != 0
        )
        means = np.mean(_of_each(convolution.means, values), axis=0)
        bias = (biases[index] + seen[index].mean - means).astype(np.float32)
        quantized |= {
            f"features.{index}.weight": levels,
            f"features.{index}.scale": scale,
            f"features.{index}.bias": bias,
            f"features.{index}.input": np.array([input_scale], np.float32),
        }
        if index == LAST_CONVOLUTION:
            break
        output_scale = float(np.float32(_HEADROOM * seen[index].highest / _LEVELS or 1.0))
        convolution = _Convolution(
            levels, scale, bias, input_scale=input_scale, output_scale=output_scale, padded=index != 0
        )
        made = _of_each(convolution, values)
        values = [pool(value) for value in made] if index in POOLED else made
        input_scale = output_scale
    return quantized


def _channel_means(values: torch.Tensor) -> npt.NDArray[np.float64]:
    """(1, O, H, W) to (O,)."""
    import torch

    means: npt.NDArray[np.float64] = values.mean(dim=(0, 2, 3), dtype=torch.float64).numpy()
    return means


def _require_integers() -> None:
    problem = check_processor()
    if problem:
        raise SpecError(problem)


def _label(*, extractor: Vgg16Spec, **_: object) -> str:
    return f"{extractor.layer}-{extractor.side or 'as-is'}/{extractor.weights.removeprefix('sha256:')[:12]}"


@step(
    "weights/vgg16-int8",
    version=1,
    label=_label,
    libraries=("torch", "pillow", "simplejpeg", "scikit-image", "scikit-learn"),
)
def import_int8(run: StepRun, *, weights: Ref | None, extractor: Vgg16Spec) -> Output:
    """Quantise the imported tensors of a layer, or random ones, for pictures of the extractor's input size."""
    limit_threads()
    tensors = read_weights(run.store, weights)[0] if weights else random_tensors(extractor)
    pictures = calibration_pictures(extractor)
    quantized = quantize_vgg16(tensors, pictures)
    card = {
        "model": "vgg16",
        "precision": "int8",
        "layer": extractor.layer,
        "side": extractor.side,
        "from": extractor.weights,
        "calibration_pictures": len(pictures),
    }
    notes = {"pictures": len(pictures), "bytes": sum(tensor.nbytes for tensor in quantized.values())}
    return Output(weight_parts(quantized, card), notes)


def int8_weights(extractor: Vgg16Spec, weights: Ref | None) -> Ref:
    """The quantised form of a resolved extractor's weights (None for random ones), made where it is missing."""
    calibrated = Vgg16Spec(
        layer=extractor.layer, side=extractor.side, weights=extractor.weights, precision=extractor.precision
    )
    quantized: Ref = import_int8(weights=weights, extractor=calibrated)
    return quantized
