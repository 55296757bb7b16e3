"""Pictures of the generators' training."""

from __future__ import annotations

from tasks.report.blocks import Block, Gallery, Picture
from tasks.report.data import ReportData
from tasks.report.examples import webp

_SIDE = 640


def training_blocks(data: ReportData) -> tuple[Block, ...]:
    """Sheets and curves that the generators' training left."""
    pictures = [Picture(title, title, webp(png, _SIDE)) for title, png in data.extra_pictures]
    return (Gallery("", tuple(pictures)),) if pictures else ()
