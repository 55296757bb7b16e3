"""Pictures of the generators' training."""

from __future__ import annotations

from tasks.report.blocks import Block, Gallery, Picture
from tasks.report.data import ReportData


def training_blocks(data: ReportData) -> tuple[Block, ...]:
    """Sheets and curves that the generators' training left."""
    pictures = [Picture(title, title, png) for title, png in data.extra_pictures]
    return (Gallery("", tuple(pictures)),) if pictures else ()
