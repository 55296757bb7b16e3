"""An exported network at work: one ONNX file, how it is opened, what it may be given and what it answers."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.digest import sha256_hex
from storage.errors import BadImage, DamagedObject, SpecError, WrongAnswers
from storage.objects import Ref, read_part
from storage.store import Store
from tasks.data.pictures import Pixels
from tasks.data.resizing import sides_within
from tasks.device import processor_name
from tasks.networks.familiarity import SCORES
from tasks.onnx_sessions import open_session, sums_saturate

Float32 = npt.NDArray[np.float32]

MODEL, CARD = "model.onnx", "card.json"
KIND = "telltale-detector"

OUTPUTS = ("logits", "probabilities", "familiarity", "activation")

LONGEST_SIDE = 1024
SHORTEST_SIDE = 16

# A card that lets pass more than this has no self-test.
LARGEST_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Detection:
    """What a network says about one picture, all float32.

    `logits` (k,), uncalibrated; `probabilities` (k,), calibrated; `familiarity` (3,), columns as
    `tasks.networks.familiarity.SCORES`; `activation` (k, h, w): how much each place of the central square speaks for
    each class. A class's activation, averaged over all places, is its logit but for a bias (Zhou et al. 2016, "Learning
    Deep Features for Discriminative Localization"; hidden layers are the linear map that they are at this picture).
    """

    logits: Float32
    probabilities: Float32
    familiarity: Float32
    activation: Float32


class ExportedNetwork:
    """An exported model, ready to run on the CPU with one thread.

    Args:
        model: the bytes of an ONNX file of `build_graph`, quantised or not.
        card: what it must agree with, if given: its `classes`, `sha256` and `self_test`, which is answered here, before
            any picture is.

    Raises:
        DamagedObject: the bytes are no ONNX model, or not those that the card was written for.
        SpecError: a model of another kind or of other inputs and outputs, its classes are not the card's, or the card's
            self-test is none.
        WrongAnswers: this machine computes other answers than the card's.
    """

    def __init__(self, model: bytes, card: Mapping[str, Any] | None = None) -> None:
        if card is not None and sha256_hex(model) != card["sha256"]:
            raise DamagedObject(
                f"{MODEL} is not the network of its card, or is damaged: the card is of sha256 {card['sha256']}, "
                f"the file has {sha256_hex(model)}"
            )
        self._session = open_session(model)
        properties = self._session.get_modelmeta().custom_metadata_map
        if properties.get("kind") != KIND:
            raise SpecError(f"an ONNX model of another kind: expected {KIND}, got {properties.get('kind')!r}")
        try:
            self.classes: tuple[str, ...] = tuple(map(str, json.loads(properties["classes"])))
            self.temperature = float(properties["temperature"])
            self.side = int(properties["side"])
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"{MODEL}: expected classes, temperature and side in its properties: {error!r}") from error
        self._check_ends()
        if card is not None and list(self.classes) != list(card["classes"]):
            raise SpecError(f"the model's classes are not the card's: {list(self.classes)} and {list(card['classes'])}")
        if card is not None:
            self._answer_self_test(card["self_test"])

    @classmethod
    def load(cls, store: Store, ref: Ref) -> ExportedNetwork:
        """The model of an `export` or `quantize` object; errors as for the bytes, and as `read_part`'s."""
        return cls(read_part(store, ref, MODEL), json.loads(read_part(store, ref, CARD)))

    def detect(self, pixels: Pixels) -> Detection:
        """Run it on one picture, uint8 (H, W, 3), RGB, upright; larger ones are reduced by `reduce_picture` first.

        Raises:
            BadImage: `not-rgb`, or `too-narrow` (under 16 pixels in its shorter side, at most 1,024 in its longer).
            SpecError: the graph cannot be run, or its outputs are not as many as there are classes.
        """
        picture = np.ascontiguousarray(checked_picture(pixels))
        try:
            found = Detection(*self._session.run(OUTPUTS, {"picture": picture}))
        except Exception as error:  # as in `open_session`
            raise SpecError(f"{MODEL} cannot be run: {error}") from error
        count = len(self.classes)
        sides = (found.logits.shape, found.probabilities.shape, found.familiarity.shape, found.activation.shape[:1])
        if sides != ((count,), (count,), (len(SCORES),), (count,)):
            raise SpecError(f"{MODEL}: expected outputs for {count} classes and {len(SCORES)} scores, got {sides}")
        return found

    def opinion(self, windows: Sequence[Pixels]) -> Detection:
        """What it says of all windows of a picture: by the mean of their logits, and of their familiarities.

        The activation is that of the first one. Errors as those of `detect`.
        """
        found = [self.detect(pixels) for pixels in windows]
        return found[0] if len(found) == 1 else mean_opinion(found, self.temperature)

    def _check_ends(self) -> None:
        given = {one.name: one.type for one in self._session.get_inputs()}
        made = {one.name: one.type for one in self._session.get_outputs()}
        if given != {"picture": "tensor(uint8)"} or any(made.get(name) != "tensor(float)" for name in OUTPUTS):
            raise SpecError(
                f"{MODEL} is none that telltale exports: expected the input picture in uint8 and the outputs "
                f"{', '.join(OUTPUTS)} in float32, got {given} and {made}"
            )

    def _answer_self_test(self, expected: Mapping[str, Any]) -> None:
        if not 0 < expected["tolerance"] <= LARGEST_TOLERANCE:
            raise SpecError(
                f"the card's self-test: expected a tolerance above 0 and at most {LARGEST_TOLERANCE:g}, "
                f"got {expected['tolerance']:g}"
            )
        # Logits as well: a network that is sure of the picture has the same probabilities for many of them.
        sides = (expected["height"], expected["width"], 3)
        found = self.detect(np.frombuffer(base64.b64decode(expected["pixels"]), dtype=np.uint8).reshape(sides))
        for name, got in (("probabilities", found.probabilities), ("logits", found.logits)):
            card = np.array(expected[name], dtype=np.float64)
            if card.shape != got.shape or not np.isfinite(card).all():
                raise SpecError(
                    f"the card's self-test: expected {len(got)} finite {name}, got {json.dumps(expected[name])}"
                )
            allowed = expected["tolerance"] * max(1.0, float(np.abs(card).max()))
            if not (np.abs(got - card) <= allowed).all():
                raise WrongAnswers(
                    f"this machine computes other answers with this network than its card says: {name} of the "
                    f"self-test: expected {_rounded(card)} within {allowed:.1g}, got {_rounded(got)}, by "
                    f"{_kernels()}; it would be wrong about pictures too, so none is answered. Use "
                    "another kind of processor, the ONNX Runtime of constraints.txt, or a network that is not quantised"
                )


def mean_opinion(found: Sequence[Detection], temperature: float) -> Detection:
    """One opinion of several windows: the probabilities are those of the mean logits."""
    from scipy.special import softmax

    logits = np.stack([one.logits for one in found]).astype(np.float64).mean(axis=0)  # (k,)
    return Detection(
        logits=logits.astype(np.float32),
        probabilities=softmax(logits / temperature).astype(np.float32),
        familiarity=np.stack([one.familiarity for one in found]).mean(axis=0),
        activation=found[0].activation,
    )


def checked_picture(pixels: Pixels) -> Pixels:
    """The picture as the graph may get it: uint8 (H, W, 3), sides of 16..1,024 pixels.

    Raises:
        BadImage: `not-rgb` or `too-narrow`.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImage("not-rgb", f"expected uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    if min(sides_within(height, width, LONGEST_SIDE)) < SHORTEST_SIDE:
        raise BadImage(
            "too-narrow",
            f"expected at least {SHORTEST_SIDE} pixels in the shorter side with at most {LONGEST_SIDE} in the longer, "
            f"got {width}x{height}",
        )
    return reduce_picture(pixels)


def reduce_picture(pixels: Pixels, longest: int = LONGEST_SIDE) -> Pixels:
    """uint8 (H, W, 3) with no side above `longest`: as it is, or reduced to `sides_within`.

    The kernel is Pillow's `BILINEAR` (an antialiased triangle in integers), which the app repeats bit by bit. For one
    side, from n to m pixels, in double precision: `scale` = n / m, `support` = max(scale, 1). Output pixel i lies at
    c = (i + 0.5) * scale and reads the pixels j from max(0, trunc(c - support + 0.5)) to
    min(n, trunc(c + support + 0.5)), exclusive. Their weights are max(0, 1 - |j - c + 0.5| / support) over their sum,
    each times 2^22, plus 0.5, truncated. A value is (2^21 + sum of weight * pixel) >> 22, clipped to 0..255. Rows are
    reduced first, to bytes, then columns; a side that keeps its length is left alone.
    """
    height, width = pixels.shape[:2]
    sides = sides_within(height, width, longest)
    if sides == (height, width):
        return pixels
    # In two calls: in one, Pillow reduces the columns of tall pictures first.
    narrowed = Image.fromarray(pixels).resize((sides[1], height), Image.Resampling.BILINEAR)
    return np.array(narrowed.resize((sides[1], sides[0]), Image.Resampling.BILINEAR))


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _kernels() -> str:
    """What computed an answer, for an error."""
    import onnxruntime

    sums = "8-bit sums saturate without its exact kernels" if sums_saturate() else "8-bit sums are exact"
    return f"ONNX Runtime {onnxruntime.__version__} on {processor_name()} ({platform.machine()}, where {sums})"
