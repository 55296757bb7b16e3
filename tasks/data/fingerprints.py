"""What pictures that look alike have in common: a thumbnail, and a hash of 64 bits."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.data.pictures import Pixels

Thumbnail = npt.NDArray[np.float32]

DUPLICATE_MAX_DISTANCE = 4
DUPLICATE_MIN_CORRELATION = 0.98


def thumbnail32(rgb: Pixels) -> Thumbnail:
    """The picture's luma (ITU-R BT.601), antialiased down to float32 (32, 32) in 0..255, aspect ratio not kept."""
    luma = Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    return np.array(luma, dtype=np.float32)


def perceptual_hash(rgb: Pixels) -> int:
    """The 64-bit DCT hash of uint8 (H, W, 3): near-duplicates differ in few bits (Zauner 2010, section 3.2.1).

    Bit (u, v) of the 8x8 lowest frequencies of the 32x32 luma thumbnail says whether that coefficient lies above their
    median; row-major, most significant bit first. `f"{hash:016x}"` is its text form, `int(text, 16)` the way back.
    """
    return perceptual_hash_of_thumbnail(thumbnail32(rgb))


def perceptual_hash_of_thumbnail(thumbnail: Thumbnail) -> int:
    """`perceptual_hash` of a picture whose `thumbnail32` is at hand."""
    low = _LOW_COSINES @ thumbnail.astype(np.float64) @ _LOW_COSINES.T  # (8, 8)
    # Rounded, so that in a flat picture, where all but one coefficient are zero, no bit hangs on float noise.
    low = np.round(low, 3)
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


def hash_text(phash: int) -> str:
    """A 64-bit hash as 16 hexadecimal digits, the form in which shards keep it."""
    return f"{phash:016x}"


def hamming(a: int, b: int) -> int:
    """The number of bits, 0..64, in which two hashes differ."""
    return (a ^ b).bit_count()


def thumbnail_correlation(a: Thumbnail, b: Thumbnail) -> float:
    """Pearson's correlation, -1..1, of two thumbnails.

    A flat thumbnail has no correlation; two of them count as 1 where they are of the same grey within one level, and
    all other pairs with a flat one as 0.
    """
    x = a.astype(np.float64).ravel()
    y = b.astype(np.float64).ravel()
    x_centred, y_centred = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x_centred @ x_centred) * (y_centred @ y_centred)))
    if norm == 0.0:
        return 1.0 if np.abs(x - y).max() <= 1.0 else 0.0
    return float(np.clip((x_centred @ y_centred) / norm, -1.0, 1.0))


def are_duplicates(hash_a: int, thumbnail_a: Thumbnail, hash_b: int, thumbnail_b: Thumbnail) -> bool:
    """Whether two pictures are one: hashes at most 4 bits apart, and thumbnails that correlate at 0.98 or more."""
    if hamming(hash_a, hash_b) > DUPLICATE_MAX_DISTANCE:
        return False
    return thumbnail_correlation(thumbnail_a, thumbnail_b) >= DUPLICATE_MIN_CORRELATION


def _low_cosines() -> npt.NDArray[np.float64]:
    """The eight lowest basis functions of the orthonormal DCT-II of length 32: (8, 32)."""
    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    basis: npt.NDArray[np.float64] = np.sqrt(2 / 32) * np.cos(np.pi * frequency * (2 * position + 1) / 64)
    basis[0] = np.sqrt(1 / 32)
    return basis


_LOW_COSINES = _low_cosines()
