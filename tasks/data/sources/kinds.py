"""All kinds of sources, and how one is read."""

from typing import Annotated

from pydantic import SerializeAsAny

from tasks.data.sources.base import SourceBase
from tasks.data.sources.coco import CocoSource
from tasks.data.sources.column import ColumnSource
from tasks.data.sources.diffusion import DiffusionSource
from tasks.data.sources.folder import FolderSource
from tasks.data.sources.gan import GanSource
from tasks.data.sources.reconstruction import ReconstructionSource
from tasks.data.sources.sample import SampleSource
from tasks.spec.base import of_kind

KINDS: dict[str, type[SourceBase]] = {
    "coco": CocoSource,
    "sample": SampleSource,
    "folder": FolderSource,
    "column": ColumnSource,
    "gan": GanSource,
    "diffusion": DiffusionSource,
    "reconstruction": ReconstructionSource,
}


Source = Annotated[SerializeAsAny[SourceBase], of_kind(KINDS, "source")]
