"""The command line: every row in a process of its own for each number of threads, then the table.

    python -m benchmarks [--full] [--row NAME ...] [--threads 1,2] [--markdown FILE] [--json FILE]

Reduced sizes with five alternating pairs, or with `--full` full sizes with one plain run each. Pictures are those of
the folder that TELLTALE_BENCH_PICTURES names (JPEG, sorted by name, photographs of at least 320 pixels), else
photographs from the scikit-image and scikit-learn wheels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks import ROOT
from benchmarks.harness import PAIRS, Plan, RowResult, measure_row
from benchmarks.inputs import pictures_named
from benchmarks.rows import ROWS
from benchmarks.table import machine_facts, markdown
from storage.errors import TelltaleError
from tasks.threads import threads_environment

RESULT = TypeAdapter(RowResult)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; 1 where a row failed."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="full sizes, one plain run each: hours")
    parser.add_argument("--row", action="append", choices=sorted(ROWS), help="default: all")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, for example 1,2")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in-this-process", type=Path, metavar="RESULT", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    threads = [int(number) for number in given.threads.split(",")]
    names = given.row or list(ROWS)
    if given.in_this_process:
        measured = _measured_here(names[0], threads[0], _plan(names[0], given.full, given.pairs))
        given.in_this_process.write_text(json.dumps(asdict(measured)), encoding="utf-8")
        return 0
    try:
        inputs = pictures_named()
    except TelltaleError as error:
        parser.error(str(error))
    libraries = [library for name in names for library in ROWS[name].libraries]
    facts = machine_facts(libraries)
    command = " ".join(["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    results: list[RowResult] = []
    table = ""
    for name, count in itertools.product(names, threads):
        if count not in ROWS[name].threads:
            continue
        results.append(_measured_apart(name, count, given.full, given.pairs))
        results.sort(key=lambda result: names.index(result.row))
        table = markdown(ROWS, results, facts, command, inputs)
        # After each process: what took an hour is not lost to what comes after it.
        _write(given.markdown, table)
        _write(given.json, json.dumps([asdict(result) for result in results], indent=1) + "\n")
    print(table)
    failed = [result for result in results if result.error is not None]
    for result in failed:
        print(f"FAILED: {result.row}, {result.threads} thread(s): {result.error}", file=sys.stderr)
    return 1 if failed else 0


def _write(path: Path | None, text: str) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _plan(name: str, full: bool, pairs: int) -> Plan:
    row = ROWS[name]
    return Plan(pairs=pairs, plain_once=full, sizes=(row.full_sizes if full else ()) or row.sizes)


def _measured_here(name: str, threads: int, plan: Plan) -> RowResult:
    try:
        return measure_row(ROWS[name], threads, plan, say=lambda line: print(line, file=sys.stderr, flush=True))
    except TelltaleError as error:
        return RowResult(name, threads, error=str(error))


def _measured_apart(name: str, threads: int, full: bool, pairs: int) -> RowResult:
    """Libraries read their number of threads when they are imported: hence a process for each."""
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        written = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", "--threads", str(threads), "--pairs", str(pairs)]
        command += ["--row", name, *(["--full"] if full else []), "--in-this-process", str(written)]
        done = subprocess.run(command, env=os.environ | threads_environment(threads), cwd=ROOT, check=False)
        if not written.exists():
            return RowResult(name, threads, error=f"its process ended with status {done.returncode}")
        return RESULT.validate_json(written.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
