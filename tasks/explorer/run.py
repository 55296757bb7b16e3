"""What a person looks at: the explorer's data, and the table of pictures that opens anywhere."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from storage.objects import Ref, read_table
from storage.tables import PAIR_SCHEMA
from tasks.explorer.files import explorer_files
from tasks.explorer.pictures import ShownScores, ShownSource, projection, shown_pictures
from tasks.explorer.table import CARD, TABLE, data_card, pictures_table
from tasks.features.kinds import ExtractorSpec
from tasks.recipe import Output, StepRun, step
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell
from tasks.spec.views import Path as PicturePath

# What the parts of the explorer's own folder are called before their names.
DATA = "data-"
# The page as `explorer/` builds it.
PAGE = Path(__file__).parent / "page"


@step("explorer", version=3, label=lambda *, experiment, **_: experiment, libraries=("scikit-learn",))
def write_explorer(
    run: StepRun,
    *,
    experiment: str,
    path: PicturePath,
    cells: tuple[Cell, ...],
    said: tuple[ShownScores, ...],
    sources: tuple[ShownSource, ...],
    mixes: tuple[Mix, ...],
    pairs: tuple[Ref, ...],
    extractor: ExtractorSpec,
    features: tuple[Ref, ...],
    seed: int,
    views: Ref,
) -> Output:
    """Every tested picture with what all detectors said of it: for the explorer, and as one table.

    `features`, of `extractor`, place the pictures in a plane; `views` (`VIEW_SCHEMA`) are a closer look at some.
    """
    pictures = shown_pictures(run.store, sources, said)
    tables = [PAIR_SCHEMA.empty_table(), *(read_table(run.store, ref) for ref in pairs)]
    paired = pl.concat([pl.DataFrame(table) for table in tables])
    closer = pl.DataFrame(read_table(run.store, views))
    files = explorer_files(pictures, closer, cells, sources, mixes, paired, path, experiment)
    placed = projection(run.store, pictures, features, seed)
    card = data_card(experiment, pictures, cells, extractor.name)
    parts = {TABLE: pictures_table(pictures, cells, placed, path, mixes, seed), CARD: card.encode()}
    return Output(
        parts | {f"{DATA}{name}": content for name, content in files.items()}, {"pictures": len(pictures.rows)}
    )
