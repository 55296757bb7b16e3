"""The whole-table benchmark as it runs: in a process with a Prefect server of its own, which ends with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import RowResult
from tasks.threads import threads_environment

ROOT = Path(__file__).parents[2]
CODE = """
import json, os, sys
from benchmarks.harness import Plan, measure_row
from benchmarks.rows import ROWS
result = measure_row(ROWS["table-added"], 1, Plan(sizes=(2,))).document()
json.dump({"result": result, "home": os.environ["TELLTALE_HOME"]}, open(sys.argv[1], "w"))
"""


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_row_is_added_to_the_table_and_both_ways_decide_alike(tmp_path: Path) -> None:
    written = tmp_path / "result.json"
    environment = os.environ | threads_environment(1) | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", CODE, str(written)], env=environment, cwd=ROOT, check=True, timeout=840)
    document = json.loads(written.read_text())
    result = RowResult.of_document(document["result"])
    assert result.error is None
    # Ten rows of two photographs and two fakes each, and the one that was added.
    assert result.compared.equality.startswith("44 decisions, 0 with another sign")
    assert "differ by at most 0.0000" in result.compared.equality
    assert not Path(document["home"]).exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("telltale-bench-")) == []
