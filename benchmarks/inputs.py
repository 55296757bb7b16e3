"""What is measured on: pictures of a named folder or of the sample, and features of no particular picture."""

from __future__ import annotations

import functools
import io
import os

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import MissingInput
from storage.paths import absolute
from tasks.data.pictures import inspect_picture
from tasks.data.sample_photographs import PHOTOGRAPHS, read_photograph
from tasks.spec.views import Canonical, View

PICTURES_SETTING = "TELLTALE_BENCH_PICTURES"

# The form of every experiment on photographs, and qualities as photographs have them.
CANONICAL = Canonical(side=320, qualities=((85, 1), (90, 2), (95, 3)))
QUALITIES = (None, 60, 40, 20)
SAMPLE_QUALITY = 92


def grid(path: str) -> tuple[View, ...]:
    """The twelve views of the fair or the raw path."""
    return tuple(
        View.model_validate({"path": path, "resolution": resolution, "jpeg_quality": quality})
        for resolution in ("native", 256, 64)
        for quality in QUALITIES
    )


def pictures_named() -> str:
    """Which pictures these are, in words; the folder's own name says nothing to others.

    Raises:
        MissingInput: a folder is named, and holds none.
    """
    folder = os.environ.get(PICTURES_SETTING)
    count = len(_files(folder))
    if folder:
        return f"{count} JPEG files of at least {CANONICAL.side} pixels in the folder that `{PICTURES_SETTING}` names"
    return f"{count} photographs of the scikit-image and scikit-learn wheels, as JPEG of quality {SAMPLE_QUALITY}"


def pictures(count: int) -> list[tuple[str, bytes]]:
    """So many (image id, JPEG file); where there are fewer files they come again under another id."""
    files = _files(os.environ.get(PICTURES_SETTING))
    return [(f"picture-{index}", files[index % len(files)]) for index in range(count)]


def pictures_of_side(count: int, side: int) -> list[tuple[str, bytes]]:
    """The same, brought to a shorter side of so many pixels: photographs of other cameras."""
    return [(image_id, _at_side(data, side)) for image_id, data in pictures(count)]


def features(rows: int, dimensions: int, seed: int) -> npt.NDArray[np.float32]:
    """Features (rows, dimensions) like those after a ReLU: correlated, a half of them zero."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((64, dimensions))
    values = random.standard_normal((rows, 64)) @ mixing / 8 + random.standard_normal((rows, dimensions))
    return np.maximum(values, 0).astype(np.float32)


@functools.cache
def _files(folder: str | None) -> tuple[bytes, ...]:
    if folder:
        candidates = (path.read_bytes() for path in sorted(absolute(folder).glob("*.jpg")))
    else:
        candidates = (_as_jpeg(read_photograph(name), SAMPLE_QUALITY) for name in sorted(PHOTOGRAPHS))
    found = tuple(data for data in candidates if _is_large(data))
    if not found:
        raise MissingInput(f"a *.jpg of at least {CANONICAL.side} pixels in {folder} ({PICTURES_SETTING})")
    return found


def _is_large(data: bytes) -> bool:
    facts = inspect_picture(data)
    return min(facts.width, facts.height) >= CANONICAL.side


def _at_side(data: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        factor = side / min(image.size)
        size = (round(image.width * factor), round(image.height * factor))
        return _as_jpeg(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), SAMPLE_QUALITY)


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
