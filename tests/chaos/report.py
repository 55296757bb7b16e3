"""The table of docs/RELIABILITY.md, from what `make chaos` has measured: `python -m tests.chaos.report hosts.json`."""

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

COLUMNS = (
    "fault",
    "evaluations",
    "faults",
    "recovered",
    "given up, saying why",
    "lanes hit",
    "recomputed",
    "longest work lost",
    "finished objects kept",
    "lost",
    "half-written",
    "minutes",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|\n"


def table(document: dict[str, Any]) -> str:
    """One line per kind of fault, in the order in which they were tried."""
    groups = groupby(document["outcomes"], key=lambda outcome: str(outcome["fault"]))
    return HEADER + "".join(_line(fault, list(outcomes)) for fault, outcomes in groups)


def _line(fault: str, outcomes: Sequence[dict[str, Any]]) -> str:
    def total(name: str) -> int:
        return sum(int(outcome[name]) for outcome in outcomes)

    recovered = sum(outcome["times"] for outcome in outcomes if outcome["recovered"])
    given_up = sum(outcome["times"] for outcome in outcomes if outcome["state"].startswith(("Crashed: ", "Failed: ")))
    minutes = sorted(outcome["seconds"] / 60 for outcome in outcomes)
    span = f"{minutes[0]:.1f}" if len(minutes) == 1 else f"{minutes[0]:.1f} to {minutes[-1]:.1f}"
    cells = [
        fault,
        f"{len(outcomes)}",
        f"{total('times')}",
        f"{recovered}",
        f"{given_up}",
        f"{total('hit')} of {total('lanes')}",
        f"{total('tries') - total('steps')} of {total('steps')}",
        f"{max(float(outcome['lost_s']) for outcome in outcomes):.0f} s",
        f"{total('kept')} of {total('finished')}",
        f"{total('lost')}",
        f"{total('half_written')}",
        span,
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
