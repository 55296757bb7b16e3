"""The report's sections in their order. One is a file, with its tables and its blocks, and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from tasks.report.audit import audit_blocks, audit_table
from tasks.report.blocks import Block, Section
from tasks.report.calibration import calibration_blocks
from tasks.report.controls import controls_blocks, probe_table
from tasks.report.cross import cross_blocks, cross_table
from tasks.report.data import ReportData, ResultIndex
from tasks.report.examples import examples_blocks
from tasks.report.first_project import ablation_blocks, ablation_table, first_project_blocks, first_project_table
from tasks.report.grid import grid_blocks, grid_table
from tasks.report.headline import headline_blocks
from tasks.report.history import history_blocks, history_table
from tasks.report.left_out import left_out_blocks, left_out_table
from tasks.report.network_tables import network_tables
from tasks.report.networks import stage_blocks
from tasks.report.provenance import provenance_blocks
from tasks.report.quality import quality_blocks, quality_table
from tasks.report.quarantine import counts_blocks, counts_table, quarantine_table
from tasks.report.ranking import ranking_blocks, ranking_table
from tasks.report.reconstructions import reconstruction_blocks, reconstruction_table
from tasks.report.rejection import rejection_blocks
from tasks.report.roc import roc_blocks
from tasks.report.second_project import second_project_blocks
from tasks.report.seeds import seeds_blocks, seeds_table
from tasks.report.significance import pairs_table, significance_blocks, significance_table
from tasks.report.training import training_blocks


@dataclass(frozen=True)
class Shown:
    """What a section is made of."""

    data: ReportData
    index: ResultIndex
    tables: Mapping[str, pl.DataFrame]


Blocks = Callable[[Shown], tuple[Block, ...]]
TableOf = Callable[[ReportData, ResultIndex], pl.DataFrame]


@dataclass(frozen=True)
class Kind:
    """A section: its place in the page, its title, what it shows, the tables that it brings, and a word on it."""

    id: str
    title: str
    blocks: Blocks
    tables: Mapping[str, TableOf] = field(default_factory=dict)
    about: str = ""


# The first is open; all others open on a click.
# What stands above the answer.
FOUND = "What was found"

SECTIONS: tuple[Kind, ...] = (
    Kind("headline", FOUND, lambda on: headline_blocks(on.data, on.index, on.tables)),
    Kind(
        "ranking",
        "How hard each generator is to tell",
        lambda on: ranking_blocks(on.data, on.index, on.tables),
        {"ranking": ranking_table},
        "uncompressed, the hardest first",
    ),
    Kind(
        "grid",
        "The full grid",
        lambda on: grid_blocks(on.data, on.index, on.tables),
        {"grid": grid_table},
        "every detector, generator and cell",
    ),
    Kind(
        "significance",
        "Which differences are more than chance",
        lambda on: significance_blocks(on.data, on.tables),
        {"significance": significance_table, "pairs": pairs_table},
        "detectors against the best, cells against the uncompressed one",
    ),
    Kind(
        "controls",
        "Probes and control",
        lambda on: controls_blocks(on.data, on.index, on.tables),
        {"probe": probe_table},
        "what should be at chance",
    ),
    Kind(
        "history",
        "What the history of files is worth",
        lambda on: history_blocks(on.data, on.tables),
        {"history": history_table},
        "matched encodings, and files as they came",
    ),
    Kind(
        "audit",
        "Claims, audited",
        lambda on: audit_blocks(on.tables),
        {"audit": audit_table},
        "container, size and history made equal, one after the other",
    ),
    Kind(
        "matched-pairs",
        "Photographs beside what was made of them",
        lambda on: reconstruction_blocks(on.tables),
        {"reconstructions": reconstruction_table},
        "the same content in both classes",
    ),
    Kind(
        "cross",
        "Trained on one generator, tested on another",
        lambda on: cross_blocks(on.data, on.tables),
        {"cross": cross_table},
    ),
    Kind(
        "left-out",
        "Tested on what was left out of the training",
        lambda on: left_out_blocks(on.data, on.tables),
        {"left_out": left_out_table},
    ),
    Kind(
        "seeds",
        "Training seeds",
        lambda on: seeds_blocks(on.tables),
        {"seeds": seeds_table},
        "what another draw of the training changes",
    ),
    Kind(
        "networks",
        "Networks for a phone",
        lambda on: stage_blocks(on.data.experiment, on.tables, on.index.colour),
        about="accuracy against bytes and milliseconds",
    ),
    Kind("rejection", "When a network should say “unknown source”", lambda on: rejection_blocks(on.tables)),
    Kind("roc", "ROC curves", lambda on: roc_blocks(on.data, on.index)),
    Kind(
        "calibration",
        "Calibration",
        lambda on: calibration_blocks(on.data, on.index),
        {"reliability": lambda data, index: data.reliability},
        "whether p(fake) means what it says",
    ),
    Kind("examples", "Examples", lambda on: examples_blocks(on.data), about="one picture of each source in every view"),
    Kind("quality", "Generator quality", lambda on: quality_blocks(on.tables), {"quality": quality_table}),
    Kind("training", "Training of the generators", lambda on: training_blocks(on.data)),
    Kind(
        "counts",
        "Counts and quarantine",
        lambda on: counts_blocks(on.data, on.tables),
        {"counts": counts_table, "quarantine": quarantine_table},
        "pictures by source and split, and what was set aside",
    ),
    Kind(
        "provenance",
        "Where these numbers come from",
        lambda on: provenance_blocks(on.data),
        about="settings, versions, times",
    ),
    Kind("second-project", "The second project's table", lambda on: second_project_blocks(on.data, on.tables)),
    Kind(
        "first-project",
        "The first project's table",
        lambda on: (*first_project_blocks(on.data, on.index, on.tables), *ablation_blocks(on.data, on.index)),
        {"first_project": first_project_table, "ablation": ablation_table},
        "as reported, reproduced and fair; what each defect is worth",
    ),
)


def report_tables(data: ReportData) -> dict[str, pl.DataFrame]:
    """All tables of the report, flat enough for CSV; one that has no rows keeps its columns."""
    index = ResultIndex(data.experiment, data.results)
    tables = {name: table(data, index) for kind in SECTIONS for name, table in kind.tables.items()}
    return tables if data.networks is None else tables | network_tables(data.experiment, data.networks)


def report_sections(data: ReportData) -> tuple[Section, ...]:
    """All sections that have something to say."""
    on = Shown(data, ResultIndex(data.experiment, data.results), report_tables(data))
    sections = (Section(kind.id, kind.title, kind.blocks(on), kind.about) for kind in SECTIONS)
    return tuple(section for section in sections if section.blocks)
