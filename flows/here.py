"""What an evaluation asks for, computed in this process without Prefect: for what takes seconds, and for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from storage.errors import NotFinished, StoreError
from storage.store import Store
from tasks.elements import element_of
from tasks.facts import Facts, facts_known, library_version
from tasks.planning import Finished, Plan
from tasks.recipe import Pool, planned_by

T = TypeVar("T")


class _Installed(dict[str, str | None]):
    def __missing__(self, library: str) -> str | None:
        return library_version(library)


def computed_here(compute: Callable[[], T], store: Store) -> T:
    """What `compute` returns; every step that it calls is computed here, one after the other, where it is not finished.

    Each travels as JSON first, as to a worker. `store` is the one that the process has as its setting. GPUs are not
    used.

    Raises:
        StoreError: a step reads an object that was asked for elsewhere: no plan knows that it is finished.
    """

    def needs(pool: Pool) -> dict[str, Any]:
        return {"device": "cpu", "versions": _Installed()}

    plan, facts = Plan(Finished(store), needs), Facts()
    found: list[T] = []
    while plan.open or not found:
        if not found:
            try:
                with facts_known(facts), planned_by(plan):
                    found.append(compute())
            except NotFinished:
                pass
        ready = plan.take_ready()
        if not ready and (plan.open or not found):
            raise StoreError("what is asked for here waits for objects that nothing here makes: ask for them together")
        for element in ready:
            made = element_of(json.loads(json.dumps(element.document())))
            refs, _ = made.step.compute(store, **made.arguments)
            for ref in refs if made.step.makes_several else (refs,):
                plan.finish(ref)
    return found[0]
