"""The offline sample as a source."""

import operator
from typing import ClassVar, Literal

from pydantic import Field

from tasks.data.coco import coco_content, index_coco
from tasks.data.sample import SPLIT, sample_name
from tasks.data.sources.base import Deployment, DiskSource, Indexed
from tasks.facts import Question
from tasks.spec.base import Truth


class SampleSource(DiskSource):
    """Crops of the photographs that installed packages ship, written as a COCO directory first."""

    made_by: ClassVar[Deployment | None] = "shard/coco"
    can_be_unseen: ClassVar[bool] = False

    kind: Literal["sample"] = "sample"
    crops_per_photograph: int = Field(default=12, ge=2)
    # Also of those photographs that the preset `sample` does without.
    every_photograph: Truth = Field(default=False, exclude_if=operator.not_)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["real"] = "real"

    @property
    def _directory(self) -> str:
        return sample_name(self.crops_per_photograph, self.every_photograph)

    def facts(self) -> list[Question]:
        return [(coco_content, (self._directory, SPLIT))]

    def index(self) -> Indexed:
        entries = index_coco(
            source=self.name,
            inventory=coco_content(self._directory, SPLIT),
            split=SPLIT,
            first=0,
            limit=self.limit,
            directory=self._directory,
        )
        return Indexed(entries, self._directory)
