"""From a picture's bytes to its views: what an attacker would post, and what a probe sees of it without its content."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.errors import SpecError
from tasks.data.encoding import decode_own_jpeg, encode_jpeg, encode_png
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import PictureFacts, Pixels, decode_rgb, inspect_picture
from tasks.data.resizing import resized
from tasks.spec.views import Canonical, View

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
    digest = hashlib.sha256(f"canonical-quality:{image_id}".encode()).digest()
    rank = (int.from_bytes(digest[:8], "big") * total) >> 64  # uniform in 0..total-1
    for quality, count in sorted(canonical.qualities):
        if rank < count:
            return quality
        rank -= count
    raise AssertionError("a rank below the total lies in one of the bins")


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


def apply_view(picture: Pixels, view: View) -> ViewPicture:
    """Bring uint8 (H, W, 3) to a view: resize to its resolution (`native` stays), then perturb.

    `picture` is the canonical form for a fair view and the decoded, upright original for a raw one, which is stretched
    to a square without a crop.
    """
    return _perturbed(_at_resolution(picture, view), view)


def make_views(data: bytes, image_id: str, views: Sequence[View], canonical: Canonical) -> dict[View, ViewPicture]:
    """Every view in `views` of one image file; each picture is the same whatever other views are asked for.

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
        return fair_canonical(decoded(canonical.kernel == "exact"), image_id, canonical)

    @functools.cache
    def bare(unperturbed: View) -> Pixels:
        return _at_resolution(origin(unperturbed.path), unperturbed)

    return {view: _perturbed(bare(View(path=view.path, resolution=view.resolution)), view) for view in views}


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
    encoded = picture.encoded if picture.encoded is not None else encode_png(picture.pixels)
    return inspect_picture(encoded), len(encoded)


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
