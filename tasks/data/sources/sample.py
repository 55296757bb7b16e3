"""The offline sample as a source."""

from typing import ClassVar, Literal

from pydantic import Field

from tasks.data.coco import coco_content, index_coco
from tasks.data.sample import SPLIT, sample_name
from tasks.data.sources.base import Deployment, DiskSource, Indexed
from tasks.facts import Question


class SampleSource(DiskSource):
    """Crops of the photographs that installed packages ship, written as a COCO directory first."""

    made_by: ClassVar[Deployment | None] = "shard/coco"
    can_be_unseen: ClassVar[bool] = False

    kind: Literal["sample"] = "sample"
    crops_per_photograph: int = Field(default=12, ge=2)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["real"] = "real"

    def facts(self) -> list[Question]:
        return [(coco_content, (sample_name(self.crops_per_photograph), SPLIT))]

    def index(self) -> Indexed:
        directory = sample_name(self.crops_per_photograph)
        entries = index_coco(
            source=self.name,
            inventory=coco_content(directory, SPLIT),
            split=SPLIT,
            first=0,
            limit=self.limit,
            directory=directory,
        )
        return Indexed(entries, directory)
