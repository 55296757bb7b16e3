"""A toy kind of extractor, as somebody would add one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from storage.objects import Ref
from storage.store import Store
from tasks.data.perturbations.base import ViewPicture
from tasks.features.base import Extractor, ExtractorBase
from tasks.spec.views import View


class Colours(ExtractorBase):
    """The mean colours of the fields of a grid that is laid over a picture, so many to a side."""

    kind: Literal["colours"] = "colours"
    fields: int = Field(default=4, ge=1, le=32)

    @property
    def name(self) -> str:
        return f"colours-{self.fields}"

    def load(self, store: Store, weights: Ref | None, device: str) -> Extractor:
        return Extractor(prepare=self._colours, embed=np.stack, batch=64, dimension=self.fields**2 * 3)

    def _colours(self, data: bytes, view: View, picture: ViewPicture) -> npt.NDArray[Any]:
        """In 0..255, row by row: float32 (fields * fields * 3,)."""
        means = Image.fromarray(picture.pixels).resize((self.fields, self.fields), Image.Resampling.BOX)
        return np.asarray(means, np.float32).reshape(-1)
