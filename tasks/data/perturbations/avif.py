"""An AVIF encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tasks.data.perturbations.base import ViewPicture, missing_codec
from tasks.data.perturbations.jpeg import Quality
from tasks.data.perturbations.one_number import OneNumber

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Avif(OneNumber):
    """One encoding (AV1, 4:2:0) at a quality of libavif's scale: `avif-50`.

    It takes ten times as long as WebP, which takes ten times as long as JPEG.
    """

    kind: Literal["avif"] = "avif"
    quality: Quality

    @property
    def title(self) -> str:
        return f"AVIF (4:2:0) of quality {self.quality}"

    def missing(self) -> list[str]:
        return missing_codec("avif", "AVIF", self.name)

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.encoding import encode_avif
        from tasks.data.pictures import decode_rgb

        encoded = encode_avif(pixels, self.quality)
        return ViewPicture(decode_rgb(encoded), encoded)
