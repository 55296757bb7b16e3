"""A wheel is all that telltale needs: installed without its working tree, it runs the sample and checks a picture."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployments.interruption import INTERRUPTED, SAID
from deployments.processes import marked_processes
from storage.local import LocalStore
from storage.objects import MANIFEST
from tests.integration.small_sample import SMALL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "tasks", "flows", "deployments", "models")
# What a person reads or a container is built from, and no program asks for.
LEFT_OUT = {"deployments/Dockerfile"}

SDIST = "import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])"
MAIN = "from deployments.cli import main; main()"
FOLDERS = ("--photographs", "{home}/photographs", "--fakes", "{home}/fakes")
SAMPLE = """
import json, sys

opened = set()
sys.addaudithook(lambda event, given: opened.add(str(given[0])) if event == "open" else None)

from flows.evaluate import evaluate_all

place = evaluate_all(experiment="sample", overrides=json.loads(sys.argv[1]), seed=0)
modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"place": place, "modules": modules, "opened": sorted(opened)}))
"""


@dataclass(frozen=True)
class Installed:
    """An unpacked wheel, and an empty folder to work in beside it."""

    folder: Path
    work: Path
    home: Path

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.home / "store")

    def run(self, program: str, *words: str) -> str:
        """What a program prints that succeeds."""
        done = self.tried(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tried(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A program that ran with nothing known of this process's settings, nor of any working tree."""
        command = [sys.executable, "-c", program, *words]
        return subprocess.run(
            command, cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=900, check=False
        )

    def begun(self, program: str, *words: str) -> subprocess.Popen[str]:
        """The same while it runs."""
        command, pipe = [sys.executable, "-u", "-c", program, *words], subprocess.PIPE
        return subprocess.Popen(command, cwd=self.work, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_PROFILE": "ephemeral",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
            "TELLTALE_HOME": str(self.home / "telltale"),
            "TELLTALE_STORE": str(self.store.root),
            "DO_NOT_TRACK": "1",
        }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A wheel built of a source distribution, with what is installed here.

    Without isolation, pip fetches neither backend nor dependencies.
    """
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    # The backend would leave its own folders in the working tree, and take old files from them the next time.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    packed = subprocess.run(
        [sys.executable, "-c", SDIST, str(made)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert packed.returncode == 0, packed.stdout + packed.stderr
    (archive_of_sources,) = made.glob("telltale-*.tar.gz")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(made)]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(archive_of_sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = made.glob("telltale-*.whl")
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return Installed(folder, tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def sample(installed: Installed) -> dict[str, Any]:
    """What a run of the offline sample tells of itself: its place, its modules' files, and all files that it opened."""
    found: dict[str, Any] = json.loads(installed.run(SAMPLE, json.dumps(SMALL)).splitlines()[-1])
    return found


def files_below(folder: Path) -> set[str]:
    """All files of the packages in a folder but hidden and compiled ones."""
    found = [file for name in PACKAGES for file in (folder / name).rglob("*") if file.is_file()]
    places = [file.relative_to(folder) for file in found]
    return {str(place) for place in places if "__pycache__" not in place.parts and not place.name.startswith(".")}


def test_the_wheel_holds_every_file_of_its_packages(installed: Installed) -> None:
    assert files_below(installed.folder) == files_below(ROOT) - LEFT_OUT


def test_the_sample_runs_from_the_wheel_alone(installed: Installed, sample: dict[str, Any]) -> None:
    ours = {name: file for name, file in sample["modules"].items() if name.partition(".")[0] in PACKAGES}
    assert {"storage", "tasks", "flows"} <= ours.keys()
    assert [file for file in ours.values() if not Path(file).is_relative_to(installed.folder)] == []
    assert "<html" in installed.store.read(f"{sample['place']}/report.html").decode()
    assert list(installed.work.iterdir()) == []


def test_no_file_of_the_working_tree_is_opened(installed: Installed, sample: dict[str, Any]) -> None:
    opened = [Path(name) for name in sample["opened"]]
    assert installed.folder / "tasks" / "experiments" / "sample.yaml" in opened
    beside = {path for path in ROOT.iterdir() if path.name != ".venv"}
    assert [path for path in opened if any(path.is_relative_to(each) for each in beside)] == []


@pytest.fixture(scope="module")
def folders(installed: Installed) -> Callable[[str], str]:
    """Folders of pictures, and one without any; gives words of a command with their places filled in."""
    for place, name in enumerate(("photographs", "fakes")):
        folder = installed.home / name
        folder.mkdir()
        for number in range(6):
            pixels = np.random.default_rng([place, number]).integers(0, 256, (80, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (installed.home / "texts").mkdir()
    (installed.home / "texts" / "no.jpg").write_text("no picture")
    return lambda word: word.replace("{home}", str(installed.home))


def test_the_console_script_checks_folders_of_pictures(installed: Installed, folders: Callable[[str], str]) -> None:
    printed = installed.run(MAIN, "check", *map(folders, FOLDERS))
    assert "windows of 64 original pixels" in printed
    assert "fakes has 6 groups of pictures" in printed
    assert list(installed.work.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ("check", "--photographs", "{home}/photographs", "--fakes", "{home}/photographs"),
            2,
            "one picture cannot be both",
        ),
        (("evaluate", "--photographs", "{home}/photographs", "--fakes", "{home}/texts"), 2, "none can be read as one"),
        (("check", *FOLDERS, "--detectors", "spectrun"), 2, "did you mean spectrum?"),
        (("check", *FOLDERS, "--cells", "512/none"), 2, "large enough for 512"),
        (("evaluate", "dmeo"), 2, "did you mean demo?"),
        (("check", *FOLDERS, "--set", "sources.nose.limit=5"), 2, "nose"),
        (("report", "nothing"), 2, "no run 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(
    installed: Installed, folders: Callable[[str], str], words: tuple[str, ...], status: int, said: str
) -> None:
    done = installed.tried(MAIN, *map(folders, words))
    assert done.returncode == status, done.stdout + done.stderr
    # What check finds stands in its page; what keeps it from looking is said beside it.
    assert len(done.stderr.splitlines()) == (0 if "takes part" in done.stdout else 1)
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_store_of_a_newer_version_is_one_sentence_and_stays(
    installed: Installed, folders: Callable[[str], str]
) -> None:
    words = ("check", *map(folders, FOLDERS))
    installed.run(MAIN, *words)
    (place, *_) = [key for key in installed.store.list("objects/scan/fakes") if key.endswith(MANIFEST)]
    ours = installed.store.read(place)
    newer = json.dumps(json.loads(ours) | {"format": 2}).encode()
    installed.store.write(place, newer)
    try:
        done = installed.tried(MAIN, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert "a newer version of telltale finished this object (its manifest has format): use that version" in line
        assert installed.store.read(place) == newer
    finally:
        installed.store.write(place, ours)


@pytest.fixture
def served(installed: Installed) -> Iterator[Installed]:
    """At the end nothing runs any more that commands have started."""
    try:
        yield installed
    finally:
        installed.run("from deployments.bootstrap import main; main()", "stop")
        assert marked_processes(installed.home / "telltale") == []


def interrupted(process: subprocess.Popen[str], reached: Callable[[], object]) -> tuple[int, str]:
    """Status and sentence of a command that gets Ctrl-C three times at a moment."""
    try:
        while not reached():
            assert process.poll() is None, "it ended before"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, said


def test_an_evaluation_goes_on_after_ctrl_c_and_two_of_the_same_end_with_one_run(
    served: Installed, folders: Callable[[str], str]
) -> None:
    words = ("evaluate", *map(folders, FOLDERS), "--detectors", "spectrum", "--cells", "64/none")
    stopped = (INTERRUPTED, f"{SAID}\n")
    first = served.begun(MAIN, *words)
    assert first.stdout is not None
    printed = first.stdout
    assert interrupted(first, lambda: "starting the Prefect server" in printed.readline()) == stopped

    def finished() -> dict[str, bytes]:
        return {key: served.store.read(key) for key in served.store.list("objects") if key.endswith(MANIFEST)}

    before = finished()
    # As soon as the first pictures are described; the report is far.
    again = served.begun(MAIN, *words)
    assert interrupted(again, lambda: any("spectrum" in key for key in finished().keys() - before.keys())) == stopped
    in_between = finished()
    assert not any(key.startswith("objects/report/") for key in in_between.keys() - before.keys())

    both = [served.begun(MAIN, *words) for _ in range(2)]
    ended = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    runs = [line for out, _ in ended for line in out.splitlines() if line.startswith("report: ")]
    assert len(runs) == 2
    assert len(set(runs)) == 1
    assert in_between.items() <= finished().items(), "what was finished was made again"


def test_the_console_script_checks_a_picture_with_the_network_that_comes_with_it(installed: Installed) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(buffer, "PNG")
    picture = installed.home / "large.png"
    picture.write_bytes(buffer.getvalue())
    said = json.loads(installed.run(MAIN, "detect", "--json", str(picture)))
    card = json.loads((ROOT / "models" / "traces.json").read_text(encoding="utf-8"))
    assert (said["model"]["name"], said["model"]["sha256"]) == ("traces", card["sha256"])


def test_the_console_script_checks_a_picture_with_a_network_of_that_run(
    installed: Installed, sample: dict[str, Any]
) -> None:
    (metadata,) = installed.folder.glob("telltale-*.dist-info")
    assert "telltale = deployments.cli:main" in (metadata / "entry_points.txt").read_text()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    picture = installed.home / "picture.png"
    picture.write_bytes(buffer.getvalue())
    printed = installed.run(MAIN, "detect", "--json", "--experiment", "sample", str(picture))
    assert json.loads(printed)["kind"]["tested_as"]["cell"] == "64/none"
    assert sample["place"] in installed.store.read("refs/latest.json").decode()
