"""The document shows what was measured."""

import json
from pathlib import Path

from tests.chaos.report import table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_document_has_the_table_of_the_recorded_run() -> None:
    recorded = json.loads((DOCS / "reliability" / "hosts.json").read_text(encoding="utf-8"))
    assert table(recorded) in (DOCS / "RELIABILITY.md").read_text(encoding="utf-8")


def test_a_line_adds_up_the_evaluations_of_a_fault() -> None:
    first = {"fault": "power", "times": 4, "recovered": True, "steps": 40, "tries": 44, "state": "Completed"}
    of_lanes = {"hit": 2, "lanes": 5, "lost_s": 12.4}
    more = of_lanes | {"kept": 30, "finished": 30, "lost": 0, "half_written": 0, "seconds": 120.0}
    given_up = {
        "times": 2,
        "recovered": False,
        "state": "Crashed: it died",
        "tries": 40,
        "seconds": 90.0,
        "lost": 1,
        "lost_s": 61.0,
    }
    second = {**first, **more, **given_up}
    line = table({"outcomes": [{**first, **more}, second]}).splitlines()[-1]
    assert line == "| power | 2 | 6 | 4 | 2 | 4 of 10 | 4 of 80 | 61 s | 60 of 60 | 1 | 0 | 1.5 to 2.0 |"
