"""An evaluation computed in this process, element by element, without Prefect: each one travels as JSON first."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, TypeVar

import polars as pl

from flows.evaluate import Evaluation, evaluation_of
from storage.errors import NotFinished
from storage.objects import read_part
from storage.store import Store
from tasks.elements import element_of
from tasks.facts import Facts, facts_known, library_version
from tasks.planning import Finished, Plan
from tasks.recipe import Pool, planned_by
from tasks.spec.experiment import Experiment

T = TypeVar("T")


class _Installed(dict[str, str | None]):
    def __missing__(self, library: str) -> str | None:
        return library_version(library)


def computed_here(experiment: Experiment, store: Store, compute: Callable[[Experiment], T] = evaluation_of) -> T:
    """What `compute` gives of an experiment, made here; `store` is the one that the process has as its setting."""

    def needs(pool: Pool) -> dict[str, Any]:
        return {"device": "cpu", "versions": _Installed()}

    plan, facts, found = Plan(Finished(store), needs), Facts(), None
    while plan.open or found is None:
        if found is None:
            try:
                with facts_known(facts), planned_by(plan):
                    found = compute(experiment)
            except NotFinished:
                pass
        for element in plan.take_ready():
            made = element_of(json.loads(json.dumps(element.document())))
            refs, _ = made.step.compute(store, **made.arguments)
            for ref in refs if made.step.makes_several else (refs,):
                plan.finish(ref)
    return found


def table(store: Store, found: Evaluation, name: str) -> pl.DataFrame:
    """One of the tables of an evaluation's report."""
    return pl.read_parquet(io.BytesIO(read_part(store, found.report, f"{name}.parquet")))
