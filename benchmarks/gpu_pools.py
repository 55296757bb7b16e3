"""An evaluation on pools with the gpu pool on CUDA, checked; for a machine with a GPU and without a network.

    python -m benchmarks.gpu_pools prepare                                  (where there is a network: fetches wheels)
    python -m benchmarks.gpu_pools install --wheels .wheels/1               (once for each part, where the GPU is)
    python -m benchmarks.gpu_pools run --wheels .wheels/3 --out results     (the last part may be installed with it)
    python -m benchmarks.gpu_pools run --device cpu --out results           (every line of it, on any machine)

`prepare` puts the wheels of `gpu_constraints.txt` into parts that can be carried one after the other. torch, and what
else is large and usually beside it, has to be there: `run` says what is missing, by name.

`run` starts a Prefect server and workers of all three pools, has `evaluate/all` made of the offline sample, first
reduced and then whole, and checks: whatever the gpu pool made was made on the device, nothing was made twice, no lane
of the cpu pool did the gpu pool's work, features agree with a CPU's. Then parts of `benchmarks/gpu.py` follow, as many
as there is time for. After every part `gpu_pools.json` and `gpu_pools.txt` say what is known; all processes end.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.gpu_evidence import COSINE, Check, checks, evidence_of, least_cosine
from benchmarks.gpu_wheels import CONSTRAINTS, MIB, WHEELS, install, missing, prepare
from benchmarks.served import api_url, bootstrap, run_deployment

ENVIRONMENT = "/tmp/telltale-gpu"

# All of it, and what a part may take at most, in seconds; for more or less time in all, in proportion.
SECONDS = 460.0
SERVE_S, SMALL_S, SAMPLE_S, STOP_S = 90.0, 200.0, 180.0, 25.0
RELEASE_S = 15.0
# With less left than this the whole sample is not begun.
SAMPLE_NEEDS_S = 120.0
# Parts of benchmarks/gpu.py in this order, with their options, and what each may take.
GPU_PARTS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("vgg16", ("--no-compile",), 45.0),
    ("dcgan", ("--no-compile",), 60.0),
    ("mobilenet", ("--no-compile",), 45.0),
    ("busy", ("--no-compile",), 60.0),
    ("sd768", ("--no-compile",), 75.0),
    ("vgg16", (), 75.0),
)
GPU_PART_NEEDS_S = 30.0


@dataclass
class Results:
    """What was found so far; written after every part."""

    folder: Path
    device: str
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    rates: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Both files anew."""
        document = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "gpu_pools.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (self.folder / "gpu_pools.txt").write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """All of it for people."""
        lines = [f"device {self.device}", *(f"{name}: {value}" for name, value in self.machine.items()), ""]
        lines += [f"{'holds' if check.holds else 'FAILS':6}{check.name}: {check.found}" for check in self.checks]
        lines += ["", *(f"{seconds:7.1f} s  {name}" for name, seconds in self.seconds.items()), ""]
        lines += [f"{row['rate']:10.4g} {row['unit']}  {row['what']} {row['options']}; {row}" for row in self.rates]
        return "\n".join([*lines, *self.remarks]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 where everything holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("--into", type=Path, default=ROOT / WHEELS)
    preparing.add_argument("--mib", type=float, default=55.0, help="what a part may be large at most")
    for name in ("install", "run", "measure"):
        command = commands.add_parser(name)
        command.add_argument("--environment", type=Path, default=Path(ENVIRONMENT))
        command.add_argument("--wheels", type=Path, action="append", default=[])
        if name != "install":
            command.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
            command.add_argument("--out", type=Path, required=True)
            command.add_argument("--seconds", type=float, default=SECONDS, help="for all of it")
    given = parser.parse_args(arguments)
    if given.command == "prepare":
        return prepare(given.into, int(given.mib * MIB))
    if given.command == "measure":
        return measure(given.device, given.out, given.environment, given.seconds)
    began = time.monotonic()
    install(given.environment, given.wheels)
    if given.command == "install":
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    left = given.seconds - (time.monotonic() - began)
    return run_in(given.environment, given.device, given.out.resolve(), left)


def run_in(environment: Path, device: str, out: Path, seconds: float) -> int:
    """Measure by the environment's own Python; what is missing there is said first, by name."""
    python = str(environment / "bin" / "python")
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        settings["CUDA_VISIBLE_DEVICES"] = ""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--editable", str(ROOT)], check=True, cwd=ROOT)
    command = [python, "-m", "benchmarks.gpu_pools", "measure", "--device", device, "--out", str(out)]
    command += ["--environment", str(environment), "--seconds", str(seconds)]
    measuring = subprocess.Popen(command, env=settings, cwd=ROOT)
    for sent in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sent, lambda *_: measuring.terminate())
    return measuring.wait()


def measure(device: str, out: Path, environment: Path, seconds: float) -> int:
    """Everything, within so many seconds; 0 where all of it holds."""
    deadline = time.monotonic() + seconds
    results = Results(out, device)

    def left(most: float = math.inf) -> float:
        """Seconds until the last process must be gone, at most so many of the usual ones."""
        return min(most * seconds / SECONDS, deadline - time.monotonic() - STOP_S)

    lacking = missing(CONSTRAINTS.read_text(encoding="utf-8"), importlib.metadata.version, importlib.import_module)
    if lacking:
        results.remarks = lacking
        results.write()
        print("cannot run:\n" + "\n".join(lacking), file=sys.stderr)
        return 2
    results.machine = machine()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = environment / "home"
    shutil.rmtree(home, ignore_errors=True)
    os.environ |= {"TELLTALE_HOME": str(home), "TELLTALE_STORE": str(home / "store"), "DATABASE": "sqlite"}
    os.environ |= {"SCHEDULES": "off", "GPU_DEVICES": "0" if device == "cuda" else ""}
    try:
        _timed(results, "server and workers", lambda: bootstrap("serve", within_s=left(SERVE_S)))
        small = runpy.run_path(str(ROOT / "tests" / "integration" / "small_sample.py"))["SMALL"]
        _timed(results, "small", lambda: _evaluated(results, "small", small, left(SMALL_S)))
        if left() > SAMPLE_NEEDS_S:
            _timed(results, "sample", lambda: _evaluated(results, "sample", {}, left(SAMPLE_S)))
        else:
            results.remarks.append(f"the whole sample was not begun: {left():.0f} s were left")
    except BaseException as error:
        results.checks.append(Check("the run", False, f"{type(error).__name__}: {error}"))
        if not isinstance(error, Exception):
            raise
    finally:
        # Nothing of it goes on beside what is measured next.
        _timed(results, "stop", lambda: bootstrap("stop", within_s=STOP_S + 20))
        _keep_logs(home, out)
    for part, options, most in GPU_PARTS:
        if left() < GPU_PART_NEEDS_S:
            results.remarks.append(f"{part} {' '.join(options)} was not begun: {left():.0f} s were left")
            continue
        title = " ".join([part, *options])
        _timed(results, title, partial(_gpu_part, results, part, options, left(most)))
    print(results.text())
    return 0 if all(check.holds for check in results.checks) else 1


def machine() -> dict[str, Any]:
    """What computes."""
    import torch

    names = (
        "torch",
        "torchvision",
        "numpy",
        "transformers",
        "diffusers",
        "prefect",
        "pyarrow",
        "scikit-learn",
        "onnxruntime",
    )
    return {
        "python": sys.version.split()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def _timed(results: Results, name: str, act: Callable[[], None]) -> None:
    began = time.monotonic()
    try:
        act()
    finally:
        results.seconds[name] = round(time.monotonic() - began, 1)
        results.write()


def _keep_logs(home: Path, out: Path) -> None:
    """The ends of the logs, in one file."""
    with (out / "logs.txt").open("w", encoding="utf-8") as kept:
        for log in sorted((home / "logs").glob("*.log")):
            kept.write(f"==== {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-200_000:]}\n")


def _evaluated(results: Results, name: str, overrides: Mapping[str, Any], within_s: float) -> None:
    """Have the sample evaluated on the pools, and check what came of it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from storage.claims import CLAIMS
    from storage.opening import open_store

    # Prefect has been imported, and has read its settings.
    parameters = {"experiment": "sample", "overrides": dict(overrides)}
    with temporary_settings({PREFECT_API_URL: api_url()}):
        run, state = run_deployment("evaluate/all", parameters, within_s)
    results.checks.append(Check(f"{name}: the evaluation completes", state == "COMPLETED", f"{state} ({run})"))
    if state != "COMPLETED":
        return
    store = open_store()
    # The evaluation knows of the last object before the lane that made it has given its claim back.
    until = time.monotonic() + RELEASE_S
    while store.list(CLAIMS) and time.monotonic() < until:
        time.sleep(0.5)
    evidence = evidence_of(store, f"{run}-0")
    results.checks += [
        Check(f"{name}: {each.name}", each.holds, each.found) for each in checks(evidence, results.device)
    ]
    if name == "small":
        cosine, pictures = least_cosine(store, f"{run}-0", results.device)
        found = f"least cosine {cosine:.6f} of {pictures} pictures"
        results.checks.append(Check("features agree with the CPU's", pictures > 0 and cosine > COSINE, found))


def _gpu_part(results: Results, part: str, options: Sequence[str], within_s: float) -> None:
    """One part of benchmarks/gpu.py, in a process of its own."""
    file = results.folder / "part.json"
    tiny = ("--tiny",) if results.device == "cpu" else ()
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--device", results.device, "--json", str(file)]
    try:
        done = subprocess.run(
            [*command, *options, *tiny], capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        results.remarks.append(f"{part} {' '.join(options)} was not finished within {within_s:.0f} s")
        return
    if done.returncode != 0:
        results.remarks.append(f"{part} {' '.join(options)} failed: {done.stderr.strip()[-600:]}")
        return
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    results.rates += [{**row, "options": " ".join(options)} for row in rows]
    with suppress(FileNotFoundError):
        file.unlink()


if __name__ == "__main__":
    sys.exit(main())
