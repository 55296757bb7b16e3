"""An evaluation on pools with the gpu pool on CUDA, checked; for a machine with a GPU and without a network.

    python benchmarks/gpu_pools.py prepare                                  (where there is a network: fetches wheels)
    python benchmarks/gpu_pools.py install --wheels .wheels/1               (once for each part, where the GPU is)
    python benchmarks/gpu_pools.py run --wheels .wheels/3 --out results     (the last part may be installed with it)
    python benchmarks/gpu_pools.py run --device cpu --out results           (every line of it, on any machine)

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
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = Path(__file__).with_name("gpu_constraints.txt")
WHEELS = ".wheels"
ENVIRONMENT = "/tmp/telltale-gpu"
MIB = 2**20
PYTHON = "3.12"
PLATFORMS = ("manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in (5, 17, 24, 27, 28)))
IMPORTED = ("torch", "torchvision", "prefect", "diffusers", "transformers", "polars", "pyarrow", "ncnn", "onnxruntime")
COSINE = 0.999

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


@dataclass(frozen=True)
class Check:
    """One thing that has to hold."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True)
class LaneRecord:
    """A lane's last status, and all that it noted: place, rows, bytes, seconds (0 where it was found finished)."""

    status: Mapping[str, Any]
    notes: Sequence[Sequence[Any]]

    @property
    def made(self) -> list[str]:
        """The places of the objects that it computed."""
        return [place for place, _, _, seconds in self.notes if seconds > 0]


@dataclass(frozen=True)
class Evidence:
    """What a finished plan left in the store: recipes by place, the pool of every element's place, its lanes."""

    recipes: Mapping[str, Mapping[str, Any]]
    pools: Mapping[str, str]
    lanes: Sequence[LaneRecord]
    failures: Sequence[str] = ()
    claims: Sequence[str] = ()


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


# What is brought along.


def constraints(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Versions that are brought along (`==`), and the least ones of what has to be there (`>=`), by distribution."""
    brought: dict[str, str] = {}
    there: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            for sign, versions in (("==", brought), (">=", there)):
                name, found, version = line.partition(sign)
                if found:
                    versions[name] = version
    return brought, there


def parts_of(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names put into as few parts as the simplest way finds, none larger than `most`: each where it first fits.

    Raises:
        ValueError: one alone is too large.
    """
    parts: list[list[str]] = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] > most:
            raise ValueError(f"{name} has {sizes[name] / MIB:.1f} MiB, a part at most {most / MIB:.1f}")
        for part in parts:
            if sum(sizes[other] for other in part) + sizes[name] <= most:
                part.append(name)
                break
        else:
            parts.append([name])
    return parts


def prepare(into: Path, most: int) -> int:
    """Download what is brought along into numbered folders."""
    brought, there = constraints(CONSTRAINTS.read_text(encoding="utf-8"))
    shutil.rmtree(into, ignore_errors=True)
    fetched = into / "fetched"
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    command += ["--implementation", "cp", "--python-version", PYTHON, "--dest", str(fetched)]
    subprocess.run([*command, *(f"{name}=={version}" for name, version in brought.items())], check=True)
    sizes = {path.name: path.stat().st_size for path in fetched.glob("*.whl")}
    for number, names in enumerate(parts_of(sizes, most), 1):
        (into / str(number)).mkdir()
        for name in names:
            (fetched / name).rename(into / str(number) / name)
        print(f"{into / str(number)}: {len(names)} wheels, {sum(sizes[name] for name in names) / MIB:.1f} MiB")
    fetched.rmdir()
    print(f"together {sum(sizes.values()) / MIB:.1f} MiB")
    print(f"left out, to be there already: {', '.join(f'{name}>={version}' for name, version in there.items())}")
    return 0


def install(environment: Path, wheels: Sequence[Path]) -> None:
    """An environment beside this Python's, in which what is brought along goes before what is there."""
    python = environment / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        # Where this Python is an environment itself, `--system-site-packages` would show those of the system, not its.
        folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        shown = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        (packages / "there.pth").write_text(shown, encoding="utf-8")
    files = [str(file) for folder in wheels for file in sorted(folder.glob("*.whl"))]
    if wheels and not files:
        raise SystemExit(f"no wheels in {', '.join(map(str, wheels))}: run prepare where there is a network")
    if files:
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--ignore-installed", *files], check=True)
        subprocess.run([str(python), "-m", "compileall", "-q", "-q", "-j", "0", str(packages)], check=False)


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


def missing(text: str, version_of: Callable[[str], str], importing: Callable[[str], Any]) -> list[str]:
    """What an environment lacks of the constraints, and what cannot be imported, one sentence each."""
    from packaging.version import Version

    brought, there = constraints(text)
    lacking = []
    for name, least in (brought | there).items():
        try:
            found = version_of(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{name} is not installed: {least if name in brought else f'at least {least}'} is needed")
            continue
        right = Version(found) >= Version(least) if name in there else Version(found) == Version(least)
        if not right:
            lacking.append(f"{name} {found} is installed: {least} {'or later ' * (name in there)}is needed")
    for module in IMPORTED:
        try:
            importing(module)
        except Exception as error:
            lacking.append(f"{module} cannot be imported: {type(error).__name__}: {error}")
    return lacking


# What is measured.


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
        _timed(results, "server and workers", lambda: _bootstrap("serve", within_s=left(SERVE_S)))
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
        _timed(results, "stop", lambda: _bootstrap("stop", within_s=STOP_S + 20))
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


def _bootstrap(command: str, within_s: float) -> None:
    subprocess.run([sys.executable, "-m", "deployments.bootstrap", command], check=True, timeout=max(within_s, 1.0))


def _keep_logs(home: Path, out: Path) -> None:
    """The ends of the logs, in one file."""
    with (out / "logs.txt").open("w", encoding="utf-8") as kept:
        for log in sorted((home / "logs").glob("*.log")):
            kept.write(f"==== {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-200_000:]}\n")


def _evaluated(results: Results, name: str, overrides: Mapping[str, Any], within_s: float) -> None:
    """Have the sample evaluated on the pools, and check what came of it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from deployments import services
    from storage.claims import CLAIMS
    from storage.opening import open_store

    # Prefect has been imported, and has read its settings.
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{services.load_state(services.home()).port}/api"}):
        run, state = _run_flow(overrides, within_s)
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


def _run_flow(overrides: Mapping[str, Any], within_s: float) -> tuple[str, str]:
    """Run `evaluate/all` of the sample on pools; its run's name and how it ended, cancelled when its time is over."""
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment
    from prefect.states import Cancelling

    parameters = {"experiment": "sample", "overrides": dict(overrides), "dispatch": "pools"}
    deadline = time.monotonic() + within_s
    run: Any = run_deployment("evaluate/all", parameters=parameters, timeout=0)
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            state = client.read_flow_run(run.id).state
            if state is not None and state.is_final():
                return str(run.id), state.type.value
            time.sleep(1.0)
        client.set_flow_run_state(run.id, Cancelling(message="its time is over"))
    return str(run.id), f"not finished within {within_s:.0f} s"


def evidence_of(store: Any, plan: str) -> Evidence:
    """What a plan left in its store."""
    from storage.claims import CLAIMS
    from storage.objects import finished_objects, read_manifest
    from storage.plans import PlanFolder

    folder = PlanFolder(store, plan)
    pools = {place: pool for pool, document in _elements(folder) for place in document["places"]}
    lanes = []
    for lane, _ in folder.statuses():
        status = folder.status(lane) or {}
        sealed = [note for number in range(status["sealed"]) for note in folder.notes(lane, number)]
        lanes.append(LaneRecord(status, [*sealed, *status["notes"]]))
    return Evidence(
        recipes={place: read_manifest(store, place).recipe for place in finished_objects(store)},
        pools={place: pool for place, pool in pools.items() if not place.startswith("facts/")},
        lanes=lanes,
        failures=[folder.failure(keys[0])["message"] for keys in folder.failures().values()],
        claims=store.list(CLAIMS),
    )


def _elements(folder: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for pool in ("cpu", "gpu"):
        for segment in folder.segments(pool)[0]:
            for document in folder.segment(pool, segment):
                yield pool, document


def devices_in(value: Any) -> Iterator[str]:
    """Every device that a recipe names, however deep."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name == "device" and isinstance(item, str):
                yield item
            else:
                yield from devices_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from devices_in(item)


def checks(evidence: Evidence, device: str) -> list[Check]:
    """What must hold of a plan whose gpu pool had this device."""
    of_gpu = [place for place, pool in evidence.pools.items() if pool == "gpu"]
    devices = {place: set(devices_in(evidence.recipes.get(place, {}))) for place in of_gpu}
    elsewhere = sorted(place for place, named in devices.items() if named - {device})
    named = Counter(place.split("/")[1] for place, found in devices.items() if found == {device})
    unfinished = sorted(set(evidence.pools) - set(evidence.recipes))
    times = Counter(place for lane in evidence.lanes for place in lane.made)
    twice = sorted(place for place, count in times.items() if count > 1)
    computed = sum(lane.status["computed"] for lane in evidence.lanes)
    lanes = Counter(f"{lane.status['pool']} on {lane.status['device']}" for lane in evidence.lanes)
    wrong_pool = sorted(
        place for lane in evidence.lanes for place in lane.made if evidence.pools.get(place) != lane.status["pool"]
    )
    astray = [name for name in lanes if name not in ("cpu on cpu", f"gpu on {device}")]
    return [
        Check(f"the gpu pool's steps ran on {device}", bool(named) and not elsewhere, _said(named, elsewhere)),
        Check("every element's object is finished", bool(evidence.pools) and not unfinished, _said({}, unfinished)),
        Check(
            "nothing was made twice",
            not twice and computed == len(evidence.pools),
            f"{computed} computed for {len(evidence.pools)} objects; {_said({}, twice)}",
        ),
        Check("lanes have their pool's device", bool(lanes) and not astray, _said(lanes, astray)),
        Check("no lane made another pool's objects", not wrong_pool, _said({}, wrong_pool)),
        Check("nothing failed", not evidence.failures, _said({}, evidence.failures)),
        Check("no claim is left", not evidence.claims, _said({}, evidence.claims)),
    ]


def _said(counts: Mapping[str, int], wrong: Sequence[str]) -> str:
    """Counts by name, then the first of what is wrong."""
    said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return "; ".join(filter(None, [said, f"wrong: {len(wrong)}, such as {wrong[0]}" if wrong else "none wrong"]))


def least_cosine(store: Any, plan: str, device: str) -> tuple[float, int]:
    """The least agreement of a shard's features, in all views, with this CPU's, and how many there are."""
    import numpy as np

    from storage.objects import find
    from storage.plans import PlanFolder
    from storage.tables import embedding_matrix, read_features
    from tasks.elements import element_of

    chosen = next(document for _, document in _elements(PlanFolder(store, plan)) if document["step"] == "embed")
    element = element_of(chosen)
    here, cached = element.step.compute(store, **{**element.arguments, "device": "cpu"})
    assert cached == (device == "cpu")
    least, count = 1.0, 0
    for place, own in zip(element.places, here, strict=True):
        there = find(store, place)
        assert there is not None
        one, other = (embedding_matrix(read_features(store, [ref])).astype(np.float64) for ref in (there, own))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        least = min(least, float(((one * other).sum(axis=1) / norms).min()))
        count += len(one)
    return least, count


def _gpu_part(results: Results, part: str, options: Sequence[str], within_s: float) -> None:
    """One part of benchmarks/gpu.py, in a process of its own."""
    file = results.folder / "part.json"
    tiny = ("--tiny",) if results.device == "cpu" else ()
    command = [sys.executable, "benchmarks/gpu.py", "--part", part, "--device", results.device, "--json", str(file)]
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
