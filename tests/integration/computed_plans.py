"""An evaluation computed in this process, element by element, without Prefect: each one travels as JSON first."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeVar, overload

import polars as pl

from flows import here
from flows.evaluate import Evaluation, evaluation_of
from storage.objects import read_part
from storage.store import Store
from tasks.spec.experiment import Experiment

T = TypeVar("T")


@overload
def computed_here(experiment: Experiment, store: Store) -> Evaluation: ...


@overload
def computed_here(experiment: Experiment, store: Store, compute: Callable[[Experiment], T]) -> T: ...


def computed_here(
    experiment: Experiment, store: Store, compute: Callable[[Experiment], object] = evaluation_of
) -> object:
    """What `compute` gives of an experiment, made here; `store` is the one that the process has as its setting."""
    return here.computed_here(lambda: compute(experiment), store)


def table(store: Store, found: Evaluation, name: str) -> pl.DataFrame:
    """One of the tables of an evaluation's report."""
    return pl.read_parquet(io.BytesIO(read_part(store, found.report, f"{name}.parquet")))
