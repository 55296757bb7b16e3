"""Somebody's own Python as a detector: found, called with lists of pictures, and told apart by its installed files."""

import json
import os
import py_compile
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from storage.errors import OtherVersion, SpecError
from storage.local import LocalStore
from storage.objects import Ref, notes_of, read_table
from tasks.data.perturbations.base import ViewPicture
from tasks.data.pictures import decode_rgb
from tasks.detectors import kinds as _kinds  # noqa: F401 - fills in which kinds there are
from tasks.detectors import python_function
from tasks.detectors.base import Detector
from tasks.detectors.pictures import score_pictures
from tasks.detectors.python_function import PythonFunction, installation
from tasks.facts import as_json
from tasks.kept_networks import networks_kept
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits
from tests.unit.network_pictures import VIEWS, row, shard

ROOT = Path(__file__).parents[2]
PLACES = ("train", "val", "val", "test", "test", "test")
BLUE = "def score(pictures):\n    return [float(one[..., 2].mean()) - float(one[..., 0].mean()) for one in pictures]\n"

Install = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a module below a folder that this process imports from; what it imported is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(python_function, "_imported", {})

    def installed(code: str, file: str = "theirs.py", site: str = "site") -> Path:
        path = tmp_path / site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        if str(tmp_path / site) not in sys.path:
            monkeypatch.syspath_prepend(tmp_path / site)
        return path

    yield installed
    for name in set(sys.modules) - before:
        if name.startswith(("theirs", "space")):
            del sys.modules[name]


def detector(function: str = "theirs:score", **fields: Any) -> PythonFunction:
    return PythonFunction(name="mine", function=function, **fields)


def scored(store: LocalStore, one: PythonFunction, name: str = "mixed") -> tuple[Ref, ...]:
    rows = [row(source, number, place) for source in ("coco", "stable") for number, place in enumerate(PLACES)]
    refs, _ = score_pictures.compute(store, **arguments(one.keyed(), shard(store, rows, name)))
    return tuple(refs)


def arguments(keyed: PythonFunction, pictures: Ref) -> dict[str, Any]:
    shared = {"views": VIEWS, "val_views": VIEWS[:2], "splits": FixedSplits(), "source": "coco", "shard": 0}
    return shared | {
        "detector": keyed,
        "files": None,
        "fit": Fit(detector="mine"),
        "pictures": pictures,
        "device": "cpu",
    }


def decisions(store: LocalStore, ref: Ref) -> list[float | None]:
    found: list[float | None] = read_table(store, ref)["decision"].to_pylist()
    return found


def test_it_is_read_and_written() -> None:
    adapter = TypeAdapter(tuple[Detector, ...])
    named = {"kind": "callable", "name": "mine", "function": "theirs:score"}
    assert adapter.validate_python([named]) == (detector(),)
    assert adapter.validate_json(adapter.dump_json((detector(takes="file"),))) == (detector(takes="file"),)


@pytest.mark.parametrize("function", ["", "theirs:", ":score", "the irs:score", "theirs:score()", "a:b:c"])
def test_what_is_no_name_of_a_function_is_refused(function: str) -> None:
    with pytest.raises(ValueError, match="function"):
        detector(function)


@pytest.mark.parametrize("batch", [1, 4])
def test_it_is_given_lists_of_pictures_and_gives_as_many_scores(
    store: LocalStore, install: Install, batch: int
) -> None:
    install("sizes = []\n" + BLUE.replace("    return", "    sizes.append(len(pictures))\n    return"))
    refs = scored(store, detector(batch=batch))
    sizes = sys.modules["theirs"].sizes
    assert max(sizes) == batch
    # Ten val and test pictures in two views, six test pictures in the third.
    assert sum(sizes) == 10 + 10 + 6
    found = decisions(store, refs[0])
    assert len(found) == 10
    assert None not in found


def test_files_are_the_views_own_encoding_else_png(install: Install) -> None:
    install("def score(files):\n    return [len(one) for one in files]\n")
    opened = detector(takes="file").keyed().opened(LocalStore(Path("nowhere")), None, "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    png = opened.prepare(ViewPicture(pixels, None))
    assert png.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode_rgb(png), pixels)
    assert opened.prepare(ViewPicture(pixels, b"its own")) == b"its own"
    assert list(opened.decide([b"12", b"123"])) == [2, 3]


def test_a_class_is_made_once_with_the_device(store: LocalStore, install: Install) -> None:
    install(
        "made = []\nclass Score:\n    def __init__(self, device):\n        made.append(device)\n"
        "    def __call__(self, pictures):\n        return [one.mean() for one in pictures]\n"
    )
    with networks_kept():
        scored(store, detector("theirs:Score"))
        scored(store, detector("theirs:Score"), "another")
    assert sys.modules["theirs"].made == ["cpu"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "class Score:\n    def __init__(self, device):\n        open('/no/weights')\n",
            r"Score\('cpu'\) failed: FileNot",
        ),
        ("class Score:\n    def __init__(self):\n        pass\n", r"Score\('cpu'\) failed: TypeError"),
        ("class Score:\n    def __init__(self, device):\n        pass\n", "cannot be called: give it a __call__"),
    ],
)
def test_a_class_that_makes_no_function_is_named(store: LocalStore, install: Install, code: str, message: str) -> None:
    install(code)
    with pytest.raises(SpecError, match=message):
        scored(store, detector("theirs:Score"))


def test_one_thread_calls_it_at_a_time(install: Install) -> None:
    install(
        "import threading\nfree = threading.Lock()\nwas_free = []\ndef score(pictures):\n"
        "    was_free.append(free.acquire(blocking=False))\n    sum(range(10_000))\n    free.release()\n"
        "    return [0.0] * len(pictures)\n"
    )
    keyed = detector().keyed()
    opened = [keyed.opened(LocalStore(Path("nowhere")), None, "cpu") for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one: [one.decide([1]) for _ in range(50)]) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.modules["theirs"].was_free == [True] * 200


def entry_point(site: Path, distribution: str, name: str, value: str) -> None:
    folder = site / f"{distribution}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[telltale.detectors]\n{name} = {value}\n")


def test_an_entry_point_is_found_by_its_name(store: LocalStore, install: Install) -> None:
    site = install(BLUE).parent
    entry_point(site, "bluish", "blue", "theirs:score")
    installed = installation("blue")
    assert (installed.distribution, installed.version) == ("bluish", "1.0")
    by_name = scored(store, detector("blue"))
    assert decisions(store, by_name[0]) == decisions(store, scored(store, detector())[0])


def test_an_entry_point_that_is_there_twice_is_refused(install: Install) -> None:
    site = install(BLUE).parent
    entry_point(site, "bluish", "blue", "theirs:score")
    entry_point(site, "bluer", "blue", "theirs:other")
    (line,) = detector("blue").missing()
    assert line == (
        "mine: the entry point 'blue' of the group telltale.detectors is there twice, "
        "as theirs:other and theirs:score: remove one"
    )


@pytest.mark.parametrize(
    ("code", "function", "line"),
    [
        (None, "theirs:score", "mine: the module theirs: install its package, or name its folder in PYTHONPATH"),
        (None, "theirs.inner:score", "mine: the module theirs.inner: install its package, or name its folder"),
        (BLUE, "theirs.inner:score", "mine: importing theirs.inner:score failed: ModuleNotFoundError"),
        (BLUE, "theirs:scores", "mine: importing theirs:scores failed: AttributeError: module 'theirs' has no attrib"),
        ("score = 3", "theirs:score", "mine: theirs:score cannot be called: expected a function or a class, got int"),
        ("1 / 0", "theirs:score", "mine: importing theirs:score failed: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')", "theirs:score", "mine: importing theirs:score failed: SystemExit: no"),
        ("import no_such_one", "theirs:score", "mine: importing theirs:score failed: ModuleNotFoundError: No module"),
        ("score = (", "theirs:score", "mine: importing theirs:score failed: SyntaxError"),
        (None, "blue", "mine: an entry point 'blue' of the group telltale.detectors (there is none, "),
        (None, "sys:exit", "mine: the code of sys is in no file of its own (built-in)"),
    ],
)
def test_what_is_missing_of_it_is_said_before_any_work(
    install: Install, code: str | None, function: str, line: str
) -> None:
    if code is not None:
        install(code)
    (said,) = detector(function).missing()
    assert said.startswith(line)


def test_a_function_that_is_there_lacks_nothing(install: Install) -> None:
    install(BLUE)
    assert detector().missing() == []


def test_a_picture_that_it_fails_on_is_left_out_and_counted(store: LocalStore, install: Install) -> None:
    install(
        "calls = []\ndef score(pictures):\n    calls.append(1)\n"
        "    if len(calls) in (4, 5):  # and once more, alone\n        raise IndexError('no such place')\n"
        "    return [pictures[0].mean()]\n"
    )
    refs = scored(store, detector(batch=1))
    notes = [notes_of(store, ref) for ref in refs]
    assert sum(each["unscored"] for each in notes) == 1
    assert [each["reasons"] for each in notes if each["unscored"]] == [{"IndexError: no such place": 1}]


def test_a_function_that_ends_the_process_fails_like_any_other(store: LocalStore, install: Install) -> None:
    install("import sys\ndef score(pictures):\n    sys.exit('no weights')\n")
    (reason,) = notes_of(store, scored(store, detector())[0])["reasons"]
    assert reason.startswith("RuntimeError: it called sys.exit(no weights")


def test_pictures_cannot_be_written_into(store: LocalStore, install: Install) -> None:
    install("def score(pictures):\n    pictures[0][:] = 0\n    return [0.0] * len(pictures)\n")
    (reason,) = notes_of(store, scored(store, detector())[0])["reasons"]
    assert "read-only" in reason


def test_its_files_decide_what_it_is_and_caches_do_not(install: Install) -> None:
    install("", "theirs/__init__.py")
    module = install(BLUE, "theirs/scores.py")
    before = installation("theirs.scores:score")
    assert detector("theirs.scores:score").missing() == []
    py_compile.compile(str(module))  # as an import may have done, or not: a module is imported once in a process
    assert (module.parent / "__pycache__").is_dir()
    assert installation("theirs.scores:score") == before
    install("weights", "theirs/weights.txt")
    assert installation("theirs.scores:score").digest != before.digest


def test_hidden_files_and_those_behind_links_count_and_what_editors_leave_does_not(
    install: Install, tmp_path: Path
) -> None:
    package = install(BLUE, "theirs/__init__.py").parent
    linked = tmp_path / "elsewhere"
    linked.mkdir()
    (package / "weights").symlink_to(linked)
    (package / "above").symlink_to(package.parent)
    (linked / "round").symlink_to(linked)
    before = installation("theirs:score")
    for name in (".git/HEAD", ".scores.py.swp", "scores.py~", ".#scores.py", "#scores.py#", "__pycache__/a.pyc"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("mine")
    (package / "__init__.pyc").write_text("never imported: its source lies beside it")
    (package.parent / "unasked.txt").write_text("beside the package, to which a link of its leads")
    assert installation("theirs:score") == before
    for path in (linked / "a.bin", package / ".weights", package / ".hidden" / "a"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("weights")
        assert installation("theirs:score") != before
        before = installation("theirs:score")


@pytest.mark.parametrize(
    ("file", "line", "beside"),
    [
        ("theirs.py", "import theirs_help", "theirs_help.py"),
        ("theirs.py", "import theirs_help", "theirs_help/__init__.py"),
        ("theirs.py", "from theirs_help import lower", "theirs_help/weights.txt"),
        ("theirs.py", "import theirs_help.lower", "theirs_help/lower.py"),
        ("theirs.py", "from theirs_space import lower", "theirs_space/lower.py"),
        ("theirs.py", "from theirs_space.lower import *", "theirs_space/lower.py"),
        ("theirs.py", "import theirs_help", "theirs_deeper.py"),
        ("theirs/__init__.py", "import theirs_help", "theirs_help.py"),
        ("theirs/inner.py", "from . import lower", "theirs/lower.py"),
        ("theirs/inner.py", "from .lower import BLUE", "theirs/lower.py"),
        ("theirs/inner.py", "def f():\n    from theirs.lower import BLUE", "theirs/lower.py"),
    ],
)
def test_what_lies_beside_a_module_and_is_imported_is_part_of_it(
    install: Install, file: str, line: str, beside: str
) -> None:
    site = install(f"{line}\n{BLUE}", file).parents[file.count("/")]
    if "theirs_help/" in beside:
        install("", "theirs_help/__init__.py")
    if beside == "theirs_deeper.py":
        # In a circle, and over a file that is no Python.
        install("import theirs, theirs_deeper, theirs_broken", "theirs_help.py")
        install("no python", "theirs_broken.py")
    install("", beside)
    install("", "theirs_unasked.py")
    function = "theirs.inner:score" if "inner" in file else "theirs:score"
    before = installation(function)
    (site / "theirs_unasked.py").write_text("other")
    assert installation(function) == before
    (site / beside).write_text("# other")
    assert installation(function).digest != before.digest


def test_a_module_that_changed_after_another_function_had_imported_it_is_not_run(install: Install) -> None:
    install("BLUE = 2", "theirs_help.py")
    install(f"import theirs_help\n{BLUE}")
    install(f"import theirs_help\n{BLUE}", "theirs_too.py")
    assert detector().missing() == []
    install("BLUE = 1", "theirs_help.py")
    for function in ("theirs:score", "theirs_too:score"):
        (line,) = detector(function).missing()
        assert "changed after this process had imported them: start it anew" in line


def test_other_distributions_in_the_same_folder_are_no_part_of_it(install: Install) -> None:
    site = install(f"import theirs_help\n{BLUE}").parent
    install("", "theirs_help.py")
    entry_point(site, "bluish", "blue", "theirs:score")
    entry_point(site, "helpful", "none", "theirs_help:none")
    before = installation("blue")
    (site / "helpful-1.0.dist-info" / "top_level.txt").write_text("theirs_help\n")
    without = installation("blue")
    assert without.digest != before.digest
    install("other", "theirs_help.py")
    assert installation("blue") == without


def test_bytecode_of_other_source_is_never_run(install: Install) -> None:
    """Bytecode goes by its source's size and time, which copies of an older file may share with a newer one."""
    paths = {
        name: install(code, name)
        for name, code in (("theirs.py", f"import theirs_help\n{BLUE}"), ("theirs_help.py", "WHICH = 'old'"))
    }
    for path in paths.values():
        at = path.stat()
        py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        path.write_text(path.read_text().replace("old", "new").replace("[..., 2]", "[..., 1]"))
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    settings = sys.pycache_prefix, sys.dont_write_bytecode
    opened = detector().keyed().opened(LocalStore(Path("nowhere")), None, "cpu")
    assert (sys.pycache_prefix, sys.dont_write_bytecode) == settings
    assert sys.modules["theirs_help"].WHICH == "new"
    assert list(opened.decide([np.array([[[0, 3, 200]]])])) == [3.0]


def test_an_entry_point_that_names_no_function_is_refused(install: Install) -> None:
    site = install(BLUE).parent
    entry_point(site, "bluish", "blue", "theirs")
    (line,) = detector("blue").missing()
    assert line == (
        "mine: the entry point 'blue' of the group telltale.detectors names the module theirs alone: write it as "
        'blue = "theirs:FUNCTION" where its package declares it'
    )


def test_a_namespace_is_told_by_the_package_within_it(install: Install) -> None:
    install("", "space/theirs/__init__.py")
    install(BLUE, "space/theirs/scores.py")
    before = installation("space.theirs.scores:score")
    install("", "space/another/__init__.py")
    assert installation("space.theirs.scores:score") == before
    assert detector("space.theirs.scores:score").missing() == []


def test_other_files_are_scored_anew_by_a_process_that_has_imported_none_before(
    store: LocalStore, install: Install
) -> None:
    path = install(BLUE)
    rows = [row("coco", number, place) for number, place in enumerate(PLACES)]
    pictures = shard(store, rows, "coco")
    first = detector().keyed()
    places = score_pictures.places(arguments(first, pictures))
    score_pictures.compute(store, **arguments(first, pictures))
    path.write_text(BLUE.replace("2", "1"))
    second = detector().keyed()
    assert not set(score_pictures.places(arguments(second, pictures))) & set(places)
    with pytest.raises(OtherVersion, match="the files of theirs:score changed after this process had imported them"):
        score_pictures.compute(store, **arguments(second, pictures))
    (line,) = detector().missing()
    assert "start it anew" in line


def test_a_worker_with_another_installation_refuses(install: Install, tmp_path: Path) -> None:
    """The plan is made with one installation; the worker, a process of its own, has another."""
    install(BLUE)
    planned = json.dumps(as_json(detector().keyed()))
    other = tmp_path / "other"
    other.mkdir()
    code = (
        "import sys, pathlib; from tasks.detectors.python_function import PythonFunction as P; "
        "from storage.local import LocalStore as L; "
        "P.model_validate_json(sys.argv[1]).opened(L(pathlib.Path('x')), None, 'cpu'); print('scores')"
    )

    def worker() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, planned],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{other}:{ROOT}", "PATH": "/usr/bin:/bin"},
            check=False,
        )
        return done.returncode, done.stdout + done.stderr.strip().rpartition("\n")[2]

    assert "mine: this worker cannot call it: the module theirs" in worker()[1]
    (other / "theirs.py").write_text(BLUE.replace("2", "1"))
    status, said = worker()
    assert status == 1
    assert "OtherVersion: mine: theirs:score is expected of files without a version (sha256 " in said
    assert "install the same on every worker of the pool cpu" in said
    (other / "theirs.py").write_text(BLUE)
    assert worker() == (0, "scores\n")


def test_an_experiment_may_name_the_installation_that_it_means(install: Install) -> None:
    install(BLUE)
    pinned = detector(installed=installation("theirs:score"))
    assert pinned.missing() == []
    assert pinned.facts() == []
    other = detector(installed=installation("theirs:score").model_copy(update={"digest": "0" * 64}))
    (line,) = other.missing()
    assert "is expected of files without a version (sha256 000000000000)" in line


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_it_is_asked_about_and_called_where_it_runs(install: Install, store: LocalStore, pool: Any) -> None:
    install(BLUE)
    one = detector(runs_on=pool)
    assert [asked.pool for asked, _ in one.facts()] == [pool]
    assert score_pictures.pool(**arguments(one.keyed(), shard(store, [row("coco", 0, "val")], "coco"))) == pool
