"""COCO photographs as a source."""

from typing import ClassVar, Literal

from pydantic import Field

from tasks.data.coco import check_coco, coco_content, index_coco
from tasks.data.sources.base import Deployment, DiskSource, Indexed
from tasks.facts import Question
from tasks.spec.base import LocalPath, on_this_machine


class CocoSource(DiskSource):
    """An official-layout COCO directory: `<split>/*.jpg` and `annotations/{captions,instances}_<split>.json`.

    `first` and `limit` select a range of the images, sorted by id.
    """

    made_by: ClassVar[Deployment | None] = "shard/coco"
    can_be_unseen: ClassVar[bool] = False

    kind: Literal["coco"] = "coco"
    directory: LocalPath
    split: str = "val2017"
    first: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    label: Literal["real"] = "real"

    def missing(self) -> list[str]:
        return check_coco(on_this_machine(self).directory, self.split)

    def facts(self) -> list[Question]:
        return [(coco_content, (self.directory, self.split))]

    def index(self) -> Indexed:
        entries = index_coco(
            source=self.name,
            inventory=coco_content(self.directory, self.split),
            split=self.split,
            first=self.first,
            limit=self.limit,
            directory=self.directory,
        )
        return Indexed(entries, self.directory)
