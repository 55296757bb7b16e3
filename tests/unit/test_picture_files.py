"""Pictures of cells as files: what detectors are shown, as it would be posted, and a table to fill in."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.pictures import chosen_cells
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import Ref
from storage.store import STORE_SETTING
from tasks.data.encoding import encode_png
from tasks.data.perturbations.chain import Chain
from tasks.data.perturbations.jpeg import Jpeg, jpeg
from tasks.data.perturbations.kinds import perturbation_named
from tasks.data.pictures import decode_rgb
from tasks.data.views import make_views
from tasks.detectors import picture_files
from tasks.detectors.picture_files import TABLE, write_pictures
from tasks.presets import load_experiment
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import Cell
from tests.unit.network_pictures import CANONICAL, VIEWS, row, shard

CELLS = tuple(Cell(resolution=view.resolution, perturbation=view.perturbation) for view in VIEWS)
PLACES = ("train", "val", "test", "test")


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[LocalStore, tuple[Ref, ...]]:
    return made(tmp_path, PLACES)


def made(folder: Path, places: Any, image_id: str = "{}") -> tuple[LocalStore, tuple[Ref, ...]]:
    store = LocalStore(folder / "store")
    rows = {
        source: [row(source, n, place) | {"image_id": image_id.format(f"{n:03d}")} for n, place in enumerate(places)]
        for source in ("coco", "stable")
    }
    return store, tuple(shard(store, rows[source], source) for source in rows)


def write(
    made: tuple[LocalStore, tuple[Ref, ...]], folder: Path, cells: Any = CELLS, splits: Splits | None = None
) -> int:
    splits = splits or FixedSplits()
    return write_pictures(
        made[0], made[1], cells=cells, threshold_cells=CELLS[:2], path="fair", splits=splits, folder=folder
    )


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_is_the_file_that_would_be_posted(pictures: Any, tmp_path: Path) -> None:
    count = write(pictures, tmp_path / "out")
    found = lines(tmp_path / "out")
    assert {(one["source"], one["image_id"], one["cell"]) for one in found} == {
        (source, f"{number:03d}", cell.name)
        for cell in CELLS
        for source in ("coco", "stable")
        for number, place in enumerate(PLACES)
        if place == "test" or (place == "val" and cell in CELLS[:2])
    }
    assert len(found) == count == 6 + 6 + 4
    views = {cell.name: view for cell, view in zip(CELLS, VIEWS, strict=True)}
    for one in found:
        original: bytes = row(one["source"], int(one["image_id"]), "test")["image"]["bytes"]
        view = views[one["cell"]]
        shown = make_views(original, one["image_id"], [view], CANONICAL)[view]
        data = (tmp_path / "out" / one["file"]).read_bytes()
        assert data == (shown.encoded or encode_png(shown.pixels))
        assert (shown.encoded is not None) == one["file"].endswith(".jpg")
        np.testing.assert_array_equal(decode_rgb(data), shown.pixels)


def test_nothing_but_the_sources_name_tells_the_class(pictures: Any, tmp_path: Path) -> None:
    write(pictures, tmp_path / "out")
    found = lines(tmp_path / "out")
    assert list(found[0]) == ["file", "source", "image_id", "cell", "score"]
    assert {one["score"] for one in found} == {""}
    for cell in CELLS:
        of_cell = [one for one in found if one["cell"] == cell.name]
        assert [one["file"] for one in of_cell] == sorted(one["file"] for one in of_cell)
        # Sources are mixed.
        assert [one["source"] for one in of_cell] != sorted(one["source"] for one in of_cell)
    assert not [one for one in found if one["source"] in one["file"] or one["image_id"] in one["file"]]
    stems = {(one["source"], one["image_id"], Path(one["file"]).stem) for one in found}
    assert len(stems) == len({stem for *_, stem in stems}) == 6


@pytest.mark.parametrize("image_id", ["../../{}", "/etc/{}", "a/b/{}", 'a,"{}\n', "\\{}", "é{}"])
def test_ids_are_data_and_no_paths(tmp_path: Path, image_id: str) -> None:
    store = made(tmp_path / "in", PLACES, image_id)
    write(store, tmp_path / "work" / "out")
    assert {one["image_id"] for one in lines(tmp_path / "work" / "out")} == {
        image_id.format(f"{number:03d}") for number in (1, 2, 3)
    }
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "work" / "out").iterdir()} == {"native", "32", TABLE}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "work"}


def test_names_of_cells_are_no_paths_either(pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jpeg, "name", property(lambda self: "../../q/20"))
    write(pictures, tmp_path / "out", CELLS[2:])
    assert {one["file"].rpartition("/")[0] for one in lines(tmp_path / "out")} == {"32/..%2F..%2Fq%2F20"}


def test_with_folds_every_picture_is_written_once_in_a_cell(tmp_path: Path) -> None:
    count = write(made(tmp_path, (0, 1, 2, 0)), tmp_path / "out", splits=Folds(count=3))
    assert count == 3 * 8


def test_an_empty_folder_is_taken_and_parents_are_made(pictures: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(pictures, tmp_path / "empty")
    write(pictures, tmp_path / "new" / "deep")
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        assert len(lines(folder)) == 16
        assert folder.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("what", ["folder", "file", "link", "export"])
def test_nothing_is_written_over(pictures: Any, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "folder":
        (out / "inner").mkdir(parents=True)
    elif what == "file":
        out.write_text("mine")
    elif what == "link":
        out.symlink_to(tmp_path / "elsewhere")
    else:
        write(pictures, out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpecError, match="out is there and not empty: name a new folder, nothing is written over"):
        write(pictures, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_breaks_off_leaves_nothing(pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fails(data: bytes) -> Any:
        calls.append(data)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return decode_rgb(data)

    monkeypatch.setattr(picture_files, "decode_rgb", fails)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="No space left"):
        write(pictures, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_few_pictures_are_in_memory(tmp_path: Path) -> None:
    """A process of its own writes 30 pictures of a megapixel and 300 of them, and needs as much memory."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from storage.local import LocalStore
from storage.objects import ROWS, commit
from storage.tables import CANONICAL_SCHEMA
from tasks.data.encoding import encode_jpeg
from tasks.detectors.picture_files import write_pictures
from tasks.spec.splits import FixedSplits
from tasks.spec.views import Cell
count, folder = int(sys.argv[1]), Path(sys.argv[2])
noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
one = {"group_id": "g", "source": "s", "label": 0, "split": "test", "fold": None, "canonical": encode_jpeg(noise, 95)}
rows = [one | {"image_id": str(number)} for number in range(count)]
table = pa.Table.from_pylist(rows, schema=CANONICAL_SCHEMA)
store = LocalStore(folder / "store")
ref = commit(store, "objects/canonical/a", step="canonical", digest="a", recipe={}, parts={ROWS: table})
del table, rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cell = Cell(resolution=64)
out, splits = folder / "out", FixedSplits()
write_pictures(store, [ref], cells=[cell], threshold_cells=[cell], path="fair", splits=splits, folder=out)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""

    def grown(count: int) -> int:
        (tmp_path / str(count)).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(count), str(tmp_path / str(count))],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        return int(done.stdout)

    # The files of 300 such pictures have 90 MB.
    assert grown(300) - grown(30) < 60_000


def test_cells_are_chosen_by_name_in_the_grids_order() -> None:
    experiment = load_experiment("sample")
    assert chosen_cells(experiment, []) == experiment.cells
    assert [cell.name for cell in chosen_cells(experiment, ["64/q20", "native/none"])] == ["native/none", "64/q20"]
    with pytest.raises(SpecError, match="sample has no cell 64/q21, expected one of native/none, "):
        chosen_cells(experiment, ["64/q21"])


def test_a_cell_of_an_experiments_own_chain_is_chosen_like_any_other() -> None:
    shop = {"kind": "chain", "name": "shop", "steps": ["q60"]}
    experiment = load_experiment("sample", {"perturbations": [shop]})
    (cell,) = chosen_cells(experiment, ["64/shop"])
    assert cell.name == "64/shop"
    assert isinstance(cell.perturbation, Chain)


def test_files_are_called_alike_in_all_cells_but_those_of_own_chains(pictures: Any, tmp_path: Path) -> None:
    """What happens in a cell such as 64/q20 its name says; a chain's name may mean other steps tomorrow."""
    given = [Cell(resolution=32, perturbation=perturbation_named(name)) for name in ("q40", "q60", "messenger")]
    shops = [
        Cell(resolution=32, perturbation=Chain(name="shop", steps=(jpeg(quality),)))  # type: ignore[arg-type]
        for quality in (60, 20)
    ]

    def stems(name: str, cells: list[Cell]) -> dict[str, set[str]]:
        write(pictures, tmp_path / name, cells)
        return {
            cell.name: {Path(one["file"]).stem for one in lines(tmp_path / name) if one["cell"] == cell.name}
            for cell in cells
        }

    before, after = stems("before", [*given, shops[0]]), stems("after", [*given, shops[1]])
    assert before["32/q40"] == before["32/q60"] == before["32/messenger"] == after["32/q40"]
    assert len(before["32/shop"] | after["32/shop"] | before["32/q40"]) == 3 * len(before["32/q40"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such", "--to", "out"), "no experiment 'no-such'"),
        (("sample", "--to", "out", "--cells", "q20"), "sample has no cell q20, expected one of native/none, "),
        (("sample", "--to", "full"), "full is there and not empty"),
        (("sample", "--to", "out", "--set", "count"), "--set: expected KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_said_before_a_server_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    result = CliRunner().invoke(app, ["pictures", *arguments], env={STORE_SETTING: str(tmp_path / "store")})
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert not (tmp_path / "out").exists()
