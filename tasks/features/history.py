"""Traces of the encoding before the last one, and of nothing that a picture shows: periods, blocks, chroma, noise.

Coefficients that were quantised once, on the grid that the picture had, still gather at multiples of the old steps
after another encoding on another grid (Bianchi & Piva 2012); where they gather is told apart from what the coefficients
are by comparing each bin of their histograms with its neighbours.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.objects import Ref
from storage.store import Store
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import Pixels
from tasks.features.base import Extractor, ExtractorBase
from tasks.spec.views import View

Float = npt.NDArray[np.float64]

BLOCK = 8
# The first frequencies in JPEG's zigzag order after the mean, (down, right): higher ones are mostly quantised to zero.
FREQUENCIES = (
    (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0),
    (3, 1), (2, 2), (1, 3), (0, 4), (0, 5), (1, 4), (2, 3), (3, 2), (4, 1), (5, 0),
)  # fmt: skip
# Up to this size a coefficient is counted, in bins of one: twice the step of most frequencies at quality 60.
LARGEST = 24
WRONG = 4  # pixels by which the wrong grid is off, down and right
DIMENSION = len(FREQUENCIES) * LARGEST + 2 + 4 + 1

# ITU-R BT.601, as JPEG has it.
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class HistorySpec(ExtractorBase):
    """Features of a probe for the history of files. It does not see content, but sharpness and noise.

    They are taken on the grid of the whole picture, which an earlier encoding had: for windows of the crop path, where
    it is known. Two sources of pictures differ in sharpness as well; with the `phase` "wrong" the same features are
    taken on a grid that no encoding had, so that only what the right one tells beyond it is history.
    """

    kind: Literal["history"] = "history"
    phase: Literal["right", "wrong"] = "right"

    @property
    def name(self) -> str:
        return f"history-{self.phase}"

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        off = 0 if self.phase == "right" else WRONG

        def prepare(data: bytes, view: View, picture: ViewPicture) -> npt.NDArray[np.float32]:
            top, left = picture.place
            return history_features(picture.pixels, (-top + off, -left + off))

        return Extractor(prepare=prepare, embed=np.stack, batch=256, dimension=DIMENSION)


def history_features(pixels: Pixels, grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Traces of an encoding on a grid of 8 pixels: float32 (487,), finite for every picture.

    For each of 20 frequencies and sizes 1 to 24 of a coefficient of the luma: how often it occurs, against the mean of
    its two neighbours (log). Then: how much more the luma jumps across the grid's lines than elsewhere, in rows and in
    columns (log); how much more each chroma plane changes between pairs of pixels that 4:2:0 would store as one than
    within them, right and down (log); and the noise, the median size of what the diagonal neighbours do not predict
    (log).

    Args:
        pixels: uint8 (h, w, 3), RGB, at least 16 pixels a side.
        grid: where the grid's corner is, down and right; multiples of 8 do not matter.
    """
    luma, *chroma = np.moveaxis(pixels.astype(np.float64) @ _TO_YCBCR.T, -1, 0)
    down, right = grid
    features = [_gathering(luma, down % BLOCK, right % BLOCK)]
    features.append(np.array([_jumps(luma, right % BLOCK), _jumps(luma.T, down % BLOCK)]))
    features.append(
        np.array([_pairs(turned, at) for plane in chroma for turned, at in ((plane, right), (plane.T, down))])
    )
    diagonal = luma[1:, 1:] - luma[1:, :-1] - luma[:-1, 1:] + luma[:-1, :-1]
    features.append(np.array([np.log(np.median(np.abs(diagonal)) + 0.1)]))
    return np.concatenate(features).astype(np.float32)


def _gathering(luma: Float, top: int, left: int) -> Float:
    """(20 * 24,) by frequency."""
    from scipy.fft import dctn

    rows, columns = ((side - start) // BLOCK for side, start in zip(luma.shape, (top, left), strict=True))
    whole = luma[top : top + rows * BLOCK, left : left + columns * BLOCK]
    blocks = whole.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    coefficients = dctn(blocks, axes=(2, 3), norm="ortho")
    found = []
    for frequency in FREQUENCIES:
        sizes = np.rint(np.abs(coefficients[..., *frequency])).astype(np.int64).ravel()
        counts = np.bincount(np.minimum(sizes, LARGEST + 2), minlength=LARGEST + 3)[: LARGEST + 2].astype(np.float64)
        # Of 0 there is one where of every other size there are two signs.
        counts[0] *= 2
        beside = (counts[:-2] + counts[2:]) / 2
        found.append(np.log((counts[1:-1] + 1) / (beside + 1)))
    return np.concatenate(found)


def _jumps(luma: Float, start: int) -> float:
    differences = np.abs(np.diff(luma, axis=1)).mean(axis=0)  # (w - 1,), of columns 1 to w - 1 from those before
    on_line = np.arange(1, luma.shape[1]) % BLOCK == start
    return float(np.log((differences[on_line].mean() + 0.1) / (differences[~on_line].mean() + 0.1)))


def _pairs(plane: Float, start: int) -> float:
    changes = (np.diff(plane, axis=1) ** 2).mean(axis=0)
    between = np.arange(1, plane.shape[1]) % 2 == start % 2
    return float(np.log((changes[between].mean() + 0.1) / (changes[~between].mean() + 0.1)))
