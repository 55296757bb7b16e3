"""A toy kind of detector, as somebody would add one."""

from __future__ import annotations

from typing import Literal

from storage.objects import Ref
from storage.store import Store
from tasks.detectors.pictures import Opened, PictureDetector


class Blueness(PictureDetector):
    """Takes blue pictures for generated ones."""

    kind: Literal["blueness"] = "blueness"

    @property
    def title(self) -> str:
        return "how blue a picture is"

    def opened(self, store: Store, files: Ref | None, device: str) -> Opened:
        return Opened.one_by_one(lambda pixels: float(pixels[..., 2].mean() - pixels[..., 0].mean()))
