"""The pictures of a grid's cells as files, for detectors that run elsewhere, with the table that takes their scores."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from storage.errors import SpecError
from storage.objects import Ref
from storage.store import Store
from tasks.data.canonical import name_in_cell, picture_name, picture_rows
from tasks.data.pictures import decode_rgb, inspect_picture
from tasks.data.views import posted_file, shown_picture
from tasks.detectors.base import shown_as
from tasks.detectors.scores_table import COLUMNS, FILE, folder_of
from tasks.progress import Progress
from tasks.spec.splits import Splits
from tasks.spec.views import Cell
from tasks.spec.views import Path as ViewPath
from tasks.threads import in_order, parallel_tasks

TABLE = "pictures.csv"

Line = tuple[str, str, str, str, str]  # file, source, image_id, cell, score


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder for pictures in which something lies: `SpecError`."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise SpecError(f"{folder} is there and not empty: name a new folder, nothing is written over")


def write_pictures(
    store: Store,
    pictures: Sequence[Ref],
    *,
    cells: Sequence[Cell],
    threshold_cells: Sequence[Cell],
    path: ViewPath,
    splits: Splits,
    folder: Path,
) -> int:
    """Write every picture that detectors are shown in some cells as the file that would be posted, and their table.

    `pictures.csv` has a line per file: `file`, relative to the folder, `source`, `image_id`, `cell`, and an empty
    `score`. Nothing else tells the class: names are digests, and lines are in the order of names. All or nothing: the
    folder gets its name when everything is in it.

    Args:
        store: where the pictures lie.
        pictures: canonical ones, shard by shard (`CANONICAL_SCHEMA`). A few at a time are in memory.
        cells: whose pictures are written.
        threshold_cells: all those of the grid that give thresholds: val pictures are shown in these alone.
        path: how pictures are brought to the cells.
        splits: which pictures are val and test.
        folder: a new or empty one.

    Returns:
        The number of files.

    Raises:
        SpecError: the folder is not empty.
    """
    refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress("write pictures", sum(ref.rows for ref in pictures))
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        made = Path(beside) / "made"
        for cell in cells:
            (made / folder_of(cell.name)).mkdir(parents=True)
        writing = _Writing(made, tuple(cells), tuple(threshold_cells), path, splits)
        threads = parallel_tasks()
        lines: list[Line] = []
        rows = chain.from_iterable(picture_rows(store, ref) for ref in pictures)
        with closing(in_order(writing.write, rows, threads=threads, ahead=2 * threads)) as made_in_order:
            for written in made_in_order:
                lines += written
                progress.advance()
        ranks = {cell.name: rank for rank, cell in enumerate(cells)}
        lines.sort(key=lambda line: (ranks[line[3]], line[0]))
        with (made / TABLE).open("x", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([(FILE, *COLUMNS), *lines])
        made.rename(folder)
    return len(lines)


@dataclass(frozen=True)
class _Writing:
    folder: Path
    cells: tuple[Cell, ...]
    threshold_cells: tuple[Cell, ...]
    path: ViewPath
    splits: Splits

    def write(self, row: dict[str, Any]) -> list[Line]:
        """The files of one canonical picture in the cells in which it is shown, and their lines."""
        val_views = [cell.view(self.path) for cell in self.threshold_cells]
        shown = [cell for cell in self.cells if shown_as(row, cell.view(self.path), val_views, self.splits)]
        if not shown:
            return []
        rgb = decode_rgb(row["canonical"])
        name = picture_name(row)
        lines = []
        for cell in shown:
            data = posted_file(shown_picture(rgb, row, cell.view(self.path)))
            file = f"{folder_of(cell.name)}/{name_in_cell(name, cell)}{_suffix(data)}"
            with (self.folder / file).open("xb") as opened:
                opened.write(data)
            lines.append((file, row["source"], row["image_id"], cell.name, ""))
        return lines


def _suffix(data: bytes) -> str:
    kind = inspect_picture(data).format.lower()
    return ".jpg" if kind == "jpeg" else f".{kind}"
