"""From a picture's bytes to its views: what an attacker would post, and what a probe sees of it without its content."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import SpecError
from tasks.data.encoding import decode_own_jpeg, encode_jpeg, encode_jpeg_exactly, encode_png
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import PictureFacts, Pixels, decode_rgb, inspect_picture
from tasks.data.resizing import resized
from tasks.spec.views import Canonical, History, View

T = TypeVar("T")

# What decides whether a picture takes part in a view.
SIZE_COLUMNS = ("width", "height", "jpeg_quality")

_BLOCK = 8  # side of a JPEG block, pixels

PROBE_FEATURE_NAMES = (
    "width",
    "height",
    "aspect",
    "is_jpeg",
    "is_png",
    "is_other_format",
    "file_size",
    "log_bytes_per_pixel",
    "luma_table_mean",
    "chroma_table_mean",
    "jpeg_quality",
    "mean_red",
    "mean_green",
    "mean_blue",
    "blockiness_horizontal",
    "blockiness_vertical",
)


def canonical_quality(image_id: str, canonical: Canonical) -> int:
    """The JPEG quality of a picture's canonical encoding, drawn by hash of its id from the photographs' own qualities.

    The first 64 bits of a sha256 are a uniform number that the histogram's cumulated counts invert, in integers. The
    prefix keeps the draw independent of other hashes of the same id, which decide splits and mixes.
    """
    total = sum(count for _, count in canonical.qualities)
    if total <= 0:
        raise SpecError(
            f"canonical.qualities needs at least one photograph's JPEG quality, got {canonical.qualities!r}"
        )
    return _drawn("canonical-quality", image_id, sorted(canonical.qualities))


def _drawn(purpose: str, image_id: str, counted: Sequence[tuple[T, int]]) -> T:
    digest = hashlib.sha256(f"{purpose}:{image_id}".encode()).digest()
    total = sum(count for _, count in counted)
    rank = (int.from_bytes(digest[:8], "big") * total) >> 64  # uniform in 0..total-1
    for value, count in counted:
        if rank < count:
            return value
        rank -= count
    raise AssertionError("a rank below the total lies in one of the bins")


def with_history(data: bytes, image_id: str, history: History | None) -> bytes:
    """The file that a picture is on the crop path before a window is cut: encoded once more where its history says so.

    It is encoded whole, on its own grid, by Pillow with libjpeg's exact transform as most files of this world are.
    """
    if history is None or not history.encodes(inspect_picture(data).jpeg_quality):
        return data
    rgb = decode_rgb(data)
    if history.control is not None:
        width, height = reduced_size(rgb.shape[1], rgb.shape[0], history)
        rgb = resized(rgb, height, width)
    if history.control == "twice":
        rgb = decode_own_jpeg(_encoded_as("clean", rgb, image_id, history.clean))
    return _encoded_as("history", rgb, image_id, history.encodings)


def reduced_size(width: int, height: int, history: History | None) -> tuple[int, int]:
    """The size that a picture has when windows are cut from it."""
    factor = 1.0 if history is None else history.factor
    return int(width * factor), int(height * factor)


def _encoded_as(purpose: str, rgb: Pixels, image_id: str, encodings: Sequence[tuple[int, str, int]]) -> bytes:
    quality, subsampling = _drawn(purpose, image_id, [((q, s), count) for q, s, count in encodings])
    return encode_jpeg_exactly(rgb, quality, subsampling)


def window_place(image_id: str, index: int, height: int, width: int, side: int) -> tuple[int, int]:
    """Top and left of a picture's window of `side` pixels, uniform over its places by hash of id and index.

    So its phase against the grid of any earlier encoding is random, and the same in every version of a picture.
    """
    assert min(height, width) >= side, f"a picture of {width}x{height} has no window of {side}"
    digest = hashlib.sha256(f"window:{index}:{image_id}".encode()).digest()
    top, left = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    return top * (height - side + 1) >> 64, left * (width - side + 1) >> 64


def window_of(picture: Pixels, image_id: str, view: View, canonical: Canonical) -> Pixels:
    """The window that a view of the crop path is made of: uint8 (side, side, 3), cut, encoded once and decoded.

    `picture`, uint8 (H, W, 3), has at least `view.resolution` pixels a side. The encoding (4:2:0) is at
    `canonical_quality`, with its grid at the window's corner.
    """
    return _window(picture, image_id, view, canonical_quality(image_id, canonical))


def _window(picture: Pixels, image_id: str, view: View, quality: int) -> Pixels:
    return decode_own_jpeg(_window_file(picture, image_id, view, quality))


def window_file(picture: Pixels, row: Mapping[str, Any], view: View) -> bytes:
    """The JPEG file whose pixels a view of the crop path has before its perturbation; `row` in `CROPPED_SCHEMA`."""
    return _window_file(picture, row["image_id"], view, row["quality"])


def _window_file(picture: Pixels, image_id: str, view: View, quality: int) -> bytes:
    side = _side(view)
    height, width = picture.shape[:2]
    top, left = window_place(image_id, view.window, height, width, side)
    return encode_jpeg(picture[top : top + side, left : left + side], quality)


def is_enlarged(width: int, height: int, canonical: Canonical) -> bool:
    """Whether the fair path would enlarge a picture of this size: its square is smaller than the canonical side."""
    return min(width, height) < canonical.side


def fair_canonical(rgb: Pixels, image_id: str, canonical: Canonical) -> Pixels:
    """The form that every picture takes before a fair view: uint8 (side, side, 3).

    `rgb`, uint8 (H, W, 3), upright: its central square, one antialiased bicubic resize, and one JPEG encoding (4:2:0)
    at `canonical_quality`, decoded.
    """
    return decode_own_jpeg(fair_canonical_jpeg(rgb, image_id, canonical))


def decode_for_fair(data: bytes, canonical: Canonical) -> Pixels:
    """The pixels that a file's canonical form is made of: all of them, or fewer by the kernel `scaled`.

    Raises:
        BadImage: the bytes are no usable picture (`decode_rgb`).
    """
    if canonical.kernel == "exact":
        return decode_rgb(data)
    return decode_rgb(data, at_least=canonical.side)


def fair_canonical_jpeg(rgb: Pixels, image_id: str, canonical: Canonical) -> bytes:
    """The JPEG file whose pixels are `fair_canonical`: a tenth of their size, for those who keep many."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    resize = _resize if canonical.kernel == "exact" else _resize_integers
    square = resize(rgb[top : top + side, left : left + side], canonical.side)
    return encode_jpeg(square, canonical_quality(image_id, canonical))


def has_window(width: int, height: int, view: View) -> bool:
    """Whether a window of the crop path's view lies within a picture of this size."""
    return view.resolution != "native" and min(width, height) >= view.resolution


def apply_view(picture: Pixels, view: View) -> ViewPicture:
    """Bring uint8 (H, W, 3) to a view: resize to its resolution (`native` stays), then perturb.

    `picture` is the canonical form for a fair view and the decoded, upright original for a raw one, which is stretched
    to a square without a crop.
    """
    return _perturbed(_at_resolution(picture, view), view)


def shown_picture(rgb: Pixels, row: Mapping[str, Any], view: View) -> ViewPicture:
    """A view of one window of a canonical picture: `apply_view`, or on the crop path the window that is cut from it.

    `rgb` are the pixels of the `row` (`CANONICAL_SCHEMA`, or `CROPPED_SCHEMA` for the crop path).
    """
    if view.path != "crop":
        return apply_view(rgb, view)
    return _perturbed(_window(rgb, row["image_id"], view, row["quality"]), view)


def make_views(data: bytes, image_id: str, views: Sequence[View], canonical: Canonical) -> dict[View, ViewPicture]:
    """Every view in `views`, of one window each, of an image file; each is the same whatever others are asked for.

    The file is decoded once (once for each path with the kernel `scaled`, which the raw path never takes), its
    canonical form made once, each resolution resized once. Views may share pixels: do not write into them.

    Raises:
        BadImage: the bytes are no usable picture (`decode_rgb`).
    """

    @functools.cache
    def decoded(in_full: bool) -> Pixels:
        return decode_rgb(data) if in_full else decode_for_fair(data, canonical)

    @functools.cache
    def origin(path: str) -> Pixels:
        if path == "raw":
            return decoded(True)
        if path == "crop":
            return decode_rgb(with_history(data, image_id, canonical.history))
        return fair_canonical(decoded(canonical.kernel == "exact"), image_id, canonical)

    @functools.cache
    def bare(unperturbed: View) -> Pixels:
        picture = origin(unperturbed.path)
        if unperturbed.path == "crop":
            return window_of(picture, image_id, unperturbed, canonical)
        return _at_resolution(picture, unperturbed)

    def place(view: View) -> tuple[int, int]:
        if view.path != "crop":
            return 0, 0
        height, width = origin(view.path).shape[:2]
        return window_place(image_id, view.window, height, width, _side(view))

    return {
        view: replace(_perturbed(bare(view.model_copy(update={"perturbation": None})), view), place=place(view))
        for view in views
    }


def posted_file(picture: ViewPicture) -> bytes:
    """The file of a picture in a view: its own encoding where it has one, else PNG, without loss."""
    return encode_png(picture.pixels) if picture.encoded is None else picture.encoded


def probe_vector(
    original: PictureFacts, original_size: int, view: View, picture: ViewPicture
) -> npt.NDArray[np.float32]:
    """What the probe sees of a posted picture, float32 (16,), in the order of `PROBE_FEATURE_NAMES`.

    The posted file is the view's own, where its perturbation encodes one; the untouched original (`original_size`
    bytes) for `raw/native/none`; else the pixels as PNG. Its size is in bytes, `log_bytes_per_pixel` natural; table
    means and the estimated quality are 0 where the file has no quantisation table, and a grey JPEG's only table stands
    for both. Colour means lie in 0..255. Blockiness is `blockiness` of the posted pixels.
    """
    posted, size = _posted_file(original, original_size, view, picture)
    height, width = picture.pixels.shape[:2]
    table_means = [float(np.mean(table)) for table in posted.quantization_tables] or [0.0]
    red, green, blue = picture.pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    horizontal, vertical = blockiness(picture.pixels)
    features = {
        "width": width,
        "height": height,
        "aspect": width / height,
        "is_jpeg": posted.format == "JPEG",
        "is_png": posted.format == "PNG",
        "is_other_format": posted.format not in ("JPEG", "PNG"),
        "file_size": size,
        "log_bytes_per_pixel": np.log(size / (width * height)),
        "luma_table_mean": table_means[0],
        "chroma_table_mean": table_means[min(1, len(table_means) - 1)],
        "jpeg_quality": posted.jpeg_quality or 0,
        "mean_red": red,
        "mean_green": green,
        "mean_blue": blue,
        "blockiness_horizontal": horizontal,
        "blockiness_vertical": vertical,
    }
    return np.array([features[name] for name in PROBE_FEATURE_NAMES], dtype=np.float32)


def blockiness(rgb: Pixels) -> tuple[float, float]:
    """How much more luma jumps across the borders of the 8-pixel grid than elsewhere, along rows and along columns.

    The ratio of the mean absolute differences of neighbours, each plus 0.01 levels so that a flat picture has 1; about
    1 without JPEG blocks, above 1 with them, and 1 where the picture has no such border. `rgb` is uint8 (h, w, 3).
    """
    luma = np.array(Image.fromarray(rgb).convert("L"), dtype=np.int16)  # (h, w)
    return _border_ratio(luma), _border_ratio(luma.T)


def _border_ratio(luma: npt.NDArray[np.int16]) -> float:
    differences = np.abs(np.diff(luma, axis=1)).mean(axis=0)  # (w - 1,)
    is_border = np.arange(1, luma.shape[1]) % _BLOCK == 0
    if not is_border.any():
        return 1.0
    return float((differences[is_border].mean() + 0.01) / (differences[~is_border].mean() + 0.01))


def _posted_file(
    original: PictureFacts, original_size: int, view: View, picture: ViewPicture
) -> tuple[PictureFacts, int]:
    if view == View(path="raw", resolution="native"):
        return original, original_size
    encoded = posted_file(picture)
    return inspect_picture(encoded), len(encoded)


def _side(view: View) -> int:
    assert view.resolution != "native", "a window has a side"
    return view.resolution


def _perturbed(picture: Pixels, view: View) -> ViewPicture:
    return ViewPicture(picture, None) if view.perturbation is None else view.perturbation.apply(picture)


def _at_resolution(picture: Pixels, view: View) -> Pixels:
    return picture if view.resolution == "native" else _resize(picture, view.resolution)


def _resize(picture: Pixels, side: int) -> Pixels:
    return resized(picture, side, side)


def _resize_integers(picture: Pixels, side: int) -> Pixels:
    """`_resize` by torch, whose weights have 16 bits and Pillow's 22: four times as fast, at most a level off."""
    if picture.shape[:2] == (side, side):
        return picture
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]  # (1, 3, H, W) of interleaved pixels
    resized = interpolate(planes, (side, side), mode="bicubic", align_corners=False, antialias=True)
    pixels: Pixels = resized[0].permute(1, 2, 0).contiguous().numpy()
    return pixels
