"""Pixels as JPEG, PNG, WebP and AVIF."""

import io

import numpy as np
import simplejpeg
from PIL import Image

from tasks.data.pictures import Pixels


def encode_jpeg(rgb: Pixels, quality: int, subsampling: str = "420") -> bytes:
    """`rgb`, uint8 (H, W, 3), as baseline JPEG at the IJG `quality` 1..100, chroma subsampled "420", "422" or "444"."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality must lie in 1..100, got {quality}")
    pixels = np.ascontiguousarray(rgb)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling=subsampling)
    return encoded


def encode_jpeg_exactly(rgb: Pixels, quality: int, subsampling: str = "420") -> bytes:
    """`encode_jpeg` by libjpeg's exact integer transform, which most files of others are made by."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality, subsampling=":".join(subsampling))
    return buffer.getvalue()


def decode_own_jpeg(encoded: bytes) -> Pixels:
    """`decode_rgb` of what `encode_jpeg` made: the same pixels, without asking what a stranger's file needs asking."""
    rgb: Pixels = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
    return rgb


def encode_png(rgb: Pixels) -> bytes:
    """`rgb`, uint8 (H, W, 3), as PNG without loss.

    At zlib's fastest level: a third of the time of Pillow's default for 4 % more bytes (photographs of 320x320).
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_webp(rgb: Pixels, quality: int) -> bytes:
    """`rgb`, uint8 (H, W, 3), as lossy WebP (chroma 4:2:0) at libwebp's `quality` 0..100.

    Everything that decides pixels is said here or decided by libwebp, whose version is that of Pillow's wheel: recipes
    name Pillow.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="WEBP", lossless=False, quality=quality, method=4)
    return buffer.getvalue()


def encode_avif(rgb: Pixels, quality: int) -> bytes:
    """`rgb`, uint8 (H, W, 3), as AVIF by libaom (chroma 4:2:0, full range) at libavif's `quality` 0..100.

    As for WebP, its libraries come with Pillow. Left to itself Pillow takes as many threads as there are cores, and
    libavif as many tiles as there are threads: another file on every machine.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer,
        format="AVIF",
        quality=quality,
        subsampling="4:2:0",
        range="full",
        codec="aom",
        speed=6,
        max_threads=1,
        autotiling=False,
    )
    return buffer.getvalue()
