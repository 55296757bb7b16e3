"""An ONNX file of anyone's, with everything about its input and its answer declared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from storage.errors import DamagedObject, SpecError
from storage.objects import Ref
from storage.store import Store
from tasks.brought_files import BroughtFiles, files_question, missing_files, read_file
from tasks.brought_models import first_line
from tasks.data.network_input import NetworkInput
from tasks.detectors.pictures import Opened, PictureDetector
from tasks.facts import Question
from tasks.kept_networks import shared_network
from tasks.onnx_sessions import open_session
from tasks.spec.base import LocalPath, Once
from tasks.variables import needed

Float = npt.NDArray[np.float64]
Answer = Literal["softmax", "sigmoid", "probability", "score"]

# Probabilities in float32 end this close to 1.
_NEAREST_TO_ONE = 2.0**-25
_NEAREST_TO_ZERO = 1e-12


class OnnxFile(PictureDetector):
    """A network in an ONNX file, run by ONNX Runtime on the CPU.

    `output` is the one of its outputs that tells, (N, K) or (N,), and `answer` what stands there: `softmax` logits of
    classes, of which a softmax makes probabilities; `sigmoid` a logit by itself; `probability` p, finished; `score` any
    number. `fake` lists the indices of those that mean generated: their probabilities are added. `threshold` is on the
    scale of p(fake), and 0.5 if nothing else is said; a `score` has a published decision only where it is named.

    With `batch` 1 a picture's score cannot depend on others: dynamically quantised networks scale by the whole batch.
    """

    kind: Literal["onnx"] = "onnx"
    model: LocalPath
    input: NetworkInput
    output: Annotated[str, Field(min_length=1)]
    answer: Answer
    fake: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Once] = Field(min_length=1)
    batch: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.answer in ("sigmoid", "score") and len(self.fake) > 1:
            raise ValueError(f"fake: a {self.answer} has one index, got {list(self.fake)}")
        if self.answer != "score" and self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold: expected p(fake) between 0 and 1, got {self.threshold:g}")
        return self

    @property
    def title(self) -> str:
        return f"ONNX file {Path(self.model).name}"

    @property
    def published(self) -> float | None:
        if self.answer == "score":
            return self.threshold
        return float(log_odds(np.array(0.5 if self.threshold is None else self.threshold)))

    @property
    def brings(self) -> BroughtFiles:
        return BroughtFiles.at(self.model, self.pool)

    def facts(self) -> list[Question]:
        return [files_question(self.model, self.pool)]

    def missing(self) -> list[str]:
        lacking = missing_files(self.model, f"{self.name}: its model")
        if lacking:
            return lacking
        path = Path(needed(self.model))
        if not path.is_file():
            return [f"{self.name}: {path} is a folder: name the ONNX file"]
        try:
            self._check(path.read_bytes())
        except (SpecError, DamagedObject, OSError, ValueError) as error:
            return [f"{self.name}: {path.name}: {error}"]
        return []

    def _check(self, model: bytes) -> None:
        """Run it on a few pictures: what its outputs are is known then.

        Raises:
            SpecError: they are not as declared, no numbers, or others when it is asked again.
        """
        session = _Session(self, open_session(model, "the model"))
        side = self.input.side or 224
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        for pixels in (np.zeros_like(noise), np.full_like(noise, 255), noise):
            item = self.input.of(pixels)
            answers = session.answers([item])
            if not np.isfinite(answers).all():
                raise SpecError(
                    f"output: of a picture to try it gives {answers.ravel()[:4].tolist()}, which are no numbers"
                )
            if not np.array_equal(answers, session.answers([item])):
                raise SpecError("output: it gives another answer when it is asked again: its scores would mean nothing")
            shares = answers.ndim == 2 and answers.shape[1] > 1 and (answers >= 0).all()
            if self.answer in ("softmax", "sigmoid") and shares and abs(float(answers.sum()) - 1) < 1e-4:
                raise SpecError(
                    f"answer: declared are logits ({self.answer}), but what it gives adds up to 1: say `probability`"
                )
            session.decide([item])

    def opened(self, store: Store, files: Ref | None, device: str) -> Opened:
        assert files is not None
        # Of one file there may be several detectors, such as one for each of its outputs.
        key = (files.digest, self.model_copy(update={"name": "any", "role": "detector"}))
        return shared_network(key, lambda: self.scorer(read_file(store, files)))

    def scorer(self, model: bytes) -> Opened:
        """What scores pictures by the bytes of an ONNX file; errors as `opened`'s, and `DamagedObject`."""
        session = _Session(self, open_session(model, "the model"))
        return Opened(lambda picture: self.input.of(picture.pixels), session.decide, self.batch)


class _Session:
    """An ONNX session that answers as its detector declares.

    Raises:
        SpecError: its inputs or outputs are not as declared.
    """

    def __init__(self, declared: OnnxFile, session: Any) -> None:
        self._declared = declared
        self._session = session
        inputs, outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            given = ", ".join(f"{one.name} ({one.type})" for one in inputs)
            raise SpecError(f"expected one input, tensor(float), got {given or 'none'}")
        if declared.output not in outputs:
            raise SpecError(f"output: it has none called {declared.output!r}, expected one of {outputs}")
        self._input = inputs[0].name
        side = declared.input.side
        sides = (3, side, side) if declared.input.layout == "channels-first" else (side, side, 3)
        wanted = (declared.batch, *sides)
        got = list(inputs[0].shape)
        # What is no number may be any size.
        fits = [a == b or not isinstance(a, int) or b is None for a, b in zip(got, wanted, strict=False)]
        if len(got) != 4 or not all(fits):
            raise SpecError(f"input: declared are {_sides(wanted)} (batch first), the model takes {_sides(got)}")
        fixed = isinstance(got[0], int)
        self._pad_to = declared.batch if fixed else 1

    def decide(self, items: Sequence[npt.NDArray[np.float32]]) -> Float:
        """Decision values (N,) of prepared pictures; NaN stays NaN."""
        if len({item.shape for item in items}) > 1:
            return np.concatenate([self.decide([item]) for item in items])
        return decision_values(self.answers(items), self._declared.answer, self._declared.fake, len(items))

    def answers(self, items: Sequence[npt.NDArray[np.float32]]) -> Float:
        """What stands in the declared output, (N, K) or (N,), for prepared pictures of one size."""
        batch = np.stack(items)
        if len(batch) < self._pad_to:
            # A network of a fixed batch: what fills it up is thrown away.
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._pad_to - len(batch), axis=0)])
        try:
            (answers,) = self._session.run([self._declared.output], {self._input: batch})
            answered = np.asarray(answers, dtype=np.float64)
        except Exception as error:  # ONNX Runtime has one exception class per status and no root but Exception
            shape = " x ".join(map(str, batch.shape))
            said = f"it cannot be run on the declared input, {shape}: {first_line(error)}"
            # Of a network that gets pictures as they are it may be this one's size.
            raise (ValueError if self._declared.input.side is None else SpecError)(said) from error
        if answered.ndim not in (1, 2):
            raise SpecError(f"output: expected (pictures, classes), got {answered.shape}")
        return answered[: len(items)]


def decision_values(answers: npt.NDArray[Any], answer: Answer, fake: Sequence[int], count: int) -> Float:
    """Decision values (N,) of a network's answers (N, K), or (N,) for one each: log-odds of p(fake), or plain scores.

    Raises:
        SpecError: they are not what is declared.
    """
    if answers.shape == (count,):
        answers = answers[:, None]
    if answers.ndim != 2 or len(answers) != count:
        raise SpecError(f"output: expected ({count}, classes), got {answers.shape}")
    classes = answers.shape[1]
    if max(fake) >= classes:
        raise SpecError(f"fake: index {max(fake)} is beyond the {classes} of the output")
    values = answers.astype(np.float64)
    chosen = values[:, list(fake)]  # (N, F)
    if answer == "softmax":
        others = np.delete(values, list(fake), axis=1)
        if not others.shape[1]:
            raise SpecError(f"fake: all {classes} classes of the output mean fake: nothing is left for a photograph")
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            odds: npt.NDArray[np.float64] = np.logaddexp.reduce(chosen, axis=1) - np.logaddexp.reduce(others, axis=1)
            return odds
    if answer != "probability":
        return chosen[:, 0]
    p = chosen.sum(axis=1)
    if np.any((p < -1e-3) | (p > 1 + 1e-3)):
        raise SpecError(f"answer: declared is a probability, got {p.min():g} to {p.max():g}")
    return log_odds(p)


def log_odds(p: Float) -> Float:
    """Of probabilities; those that are 0 or 1 by rounding stay finite."""
    p = np.clip(p, _NEAREST_TO_ZERO, 1 - _NEAREST_TO_ONE)
    return np.log(p) - np.log1p(-p)


def _sides(shape: Sequence[Any]) -> str:
    return " x ".join("any" if side is None or not isinstance(side, int) else str(side) for side in shape)
