"""A lossy WebP encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tasks.data.perturbations.base import ViewPicture, missing_codec
from tasks.data.perturbations.jpeg import Quality
from tasks.data.perturbations.one_number import OneNumber

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Webp(OneNumber):
    """One lossy encoding at a quality of libwebp's scale: `webp-50`."""

    kind: Literal["webp"] = "webp"
    quality: Quality

    @property
    def title(self) -> str:
        return f"WebP (lossy) of quality {self.quality}"

    def missing(self) -> list[str]:
        return missing_codec("webp", "WebP", self.name)

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.encoding import encode_webp
        from tasks.data.pictures import decode_rgb

        encoded = encode_webp(pixels, self.quality)
        return ViewPicture(decode_rgb(encoded), encoded)
