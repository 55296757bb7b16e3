"""The rows of the table. Pictures and features are made anew for every size; a row never extrapolates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from benchmarks.embedding import exact_case
from benchmarks.feature_store import reading_case, writing_case
from benchmarks.first_table import added_case, again_case, cold_case
from benchmarks.frechet import frechet_case
from benchmarks.harness import Case, Row, reported
from benchmarks.memory import memory_case
from benchmarks.orchestration import AGAIN_S, sample_case
from benchmarks.planning import assigning_case, elements_case, planning_case
from benchmarks.support_vectors import svm_case
from benchmarks.views import fair_case, raw_case, scaled_case

_PICTURES = ("pillow", "simplejpeg", "numpy")


def _table_row(
    name: str,
    which: str,
    case: Callable[..., AbstractContextManager[Case]],
    reach: float,
    threads: tuple[int, ...] = (2,),
) -> Row:
    """A row of the first project's whole table; all of them share the plain way's measurements."""
    table = "the first project's table from picture files; beside it one fair cell, the control and the report"
    return Row(
        name=name,
        what=f"{table}, {which}",
        plainly="its method row by row: one picture at a time, one SVM per row",
        unit="pictures per source and split",
        sizes=(2, 3, 4, 6),
        full_sizes=(8, 12, 16, 32),
        case=case,
        reach=reach,
        threads=threads,
        pairs=0,
        meter=reported,
        group="table",
        libraries=("torch", "ncnn", "scikit-learn", "prefect", "pillow", "simplejpeg", "numpy"),
    )


ROWS = {
    row.name: row
    for row in (
        Row(
            name="views",
            what="all 12 views of a picture, exact, fair path",
            plainly="Pillow, one decode per view",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(25, 50, 100, 200),
            case=fair_case,
            reach=4,
            libraries=_PICTURES,
        ),
        Row(
            name="views-raw",
            what="all 12 views of a picture, exact, raw path",
            plainly="Pillow, one decode per view",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(25, 50, 100, 200),
            case=raw_case,
            reach=4,
            libraries=_PICTURES,
        ),
        Row(
            name="views-scaled",
            what="all 12 views of a picture, scaled decoding, fair path",
            plainly="Pillow, one decode per view",
            unit="pixels on the shorter side",
            sizes=(480, 720, 1440, 2880),
            full_sizes=(480, 720, 1440, 2880),
            case=scaled_case,
            reach=8,
            libraries=_PICTURES,
        ),
        Row(
            name="embed",
            what="VGG16 features on a CPU, exact",
            plainly="torch, float32, picture by picture",
            unit="pictures",
            sizes=(2, 4, 8, 16),
            full_sizes=(16, 32, 64, 128),
            case=exact_case,
            reach=1.3,
            libraries=("torch", "torchvision", "ncnn", "numpy"),
        ),
        Row(
            name="svm",
            what="SVM, C chosen among 8 by validation, 4,096 dimensions",
            plainly='`SVC(kernel="linear")` fitted 8 times',
            unit="training rows",
            sizes=(80, 160, 320, 640),  # even: telltale weighs classes, the plain way does not
            full_sizes=(500, 1_000, 2_000, 4_000),
            case=svm_case,
            reach=50,
            pairs=3,
            libraries=("scikit-learn", "numpy"),
        ),
        Row(
            name="frechet",
            what="Fréchet distance, cached reference",
            plainly="`scipy.linalg.sqrtm`",
            unit="dimensions",
            sizes=(128, 256, 512, 1_024),
            full_sizes=(256, 512, 1_024, 2_048),
            case=frechet_case,
            reach=40,
            libraries=("scipy", "numpy"),
        ),
        Row(
            name="feature-store-read",
            what="feature store, 1,000 rows read to NumPy",
            plainly="pyarrow's defaults for a list column",
            unit="dimensions",
            sizes=(512, 1_024, 2_048, 4_096),
            full_sizes=(512, 1_024, 2_048, 4_096),
            case=reading_case,
            reach=5,
            libraries=("pyarrow", "polars", "numpy"),
        ),
        Row(
            name="feature-store-write",
            what="feature store, 1,000 rows written",
            plainly="pyarrow's defaults for a list column",
            unit="dimensions",
            sizes=(512, 1_024, 2_048, 4_096),
            full_sizes=(512, 1_024, 2_048, 4_096),
            case=writing_case,
            reach=2.5,
            libraries=("pyarrow", "polars", "numpy"),
        ),
        Row(
            name="memory",
            what="memory of embedding a shard in 12 views, stub model with 4,096 features",
            plainly="holding all decoded pictures",
            unit="pictures",
            sizes=(64, 125, 250, 500),
            full_sizes=(1_250, 2_500, 5_000, 10_000),
            case=partial(memory_case, network="stub"),
            at_most=1.5e9,
            meter=reported,
            costs="bytes",
            threads=(1,),
            pairs=0,
            libraries=("pyarrow", "numpy"),
        ),
        Row(
            name="memory-vgg16",
            what="memory of embedding a shard in 12 views, VGG16 fc7",
            plainly="holding all decoded pictures",
            unit="pictures",
            sizes=(1, 2, 4, 8),
            full_sizes=(62, 125, 250, 500),
            case=partial(memory_case, network="vgg16"),
            at_most=1.5e9,
            meter=reported,
            costs="bytes",
            threads=(1,),
            pairs=0,
            libraries=("torch", "ncnn", "pyarrow", "numpy"),
        ),
        Row(
            name="planning",
            what="groups, splits and the recipes of all shards, planned for synthetic ids",
            plainly="",
            unit="pictures",
            sizes=(10_000, 100_000, 1_000_000, 4_000_000),
            full_sizes=(100_000, 1_000_000, 10_000_000, 100_000_000),
            case=planning_case,
            meter=reported,
            threads=(1,),
            pairs=1,
            libraries=("numpy",),
        ),
        Row(
            name="plan",
            what="elements of the preset `coco` planned over made-up inputs, and their documents",
            plainly="",
            unit="elements",
            sizes=(1_000, 2_000, 5_000, 10_000),
            full_sizes=(10_000, 20_000, 50_000, 100_000),
            case=elements_case,
            at_most=60,
            meter=reported,
            threads=(1,),
            pairs=1,
            libraries=("pydantic", "prefect"),
        ),
        Row(
            name="assign",
            what="memory of the step that assigns groups and splits, over made-up scans",
            plainly="",
            unit="pictures",
            sizes=(10_000, 20_000, 40_000, 80_000),
            full_sizes=(125_000, 250_000, 500_000, 1_000_000),
            case=assigning_case,
            meter=reported,
            costs="bytes",
            threads=(1,),
            pairs=1,
            libraries=("numpy", "pyarrow"),
        ),
        _table_row("table", "cold", cold_case, 2.5, threads=(1, 2)),
        _table_row("table-added", "one row more", added_case, 20),
        _table_row("table-again", "nothing changed", again_case, 200),
        Row(
            name="orchestration",
            what="orchestration: wall time of the offline sample without a step at work; all is there from run 2 on",
            plainly="",
            unit="runs of one store",
            sizes=(1, 2, 3, 4),
            full_sizes=(1, 2, 3, 4),
            case=sample_case,
            at_most=AGAIN_S,
            meter=reported,
            threads=(2,),
            pairs=1,
            libraries=("prefect", "torch"),
        ),
    )
}
