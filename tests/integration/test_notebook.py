"""The notebook of docs, executed as a reader would, and what is kept of it in the repository."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest

from deployments.processes import marked_processes
from tests.integration.executed_notebook import ROOT, executed

pytestmark = pytest.mark.integration

NOTEBOOK = ROOT / "docs" / "two-folders.ipynb"


def shown(document: Any) -> dict[str, str]:
    """What every code cell shows as text, by the cell's name."""
    return {
        cell.id: "\n".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)
        for cell in document.cells
        if cell.cell_type == "code"
    }


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    temporary, home = tmp_path_factory.mktemp("temporary"), tmp_path_factory.mktemp("home")
    folder = temporary / "two-folders" / ".telltale"
    with pytest.MonkeyPatch.context() as patch:
        # Where the kernel's connection is written down.
        patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        try:
            yield executed(NOTEBOOK, temporary, home)
        finally:
            # A notebook that fails leaves its server running.
            stop = [sys.executable, "-m", "deployments.bootstrap", "stop"]
            subprocess.run(stop, cwd=ROOT, env={**os.environ, "TELLTALE_HOME": str(folder)}, timeout=120, check=True)
    assert marked_processes(folder) == []


def test_it_runs_from_top_to_bottom_and_stops_what_it_started(again: Any) -> None:
    texts = shown(again)
    assert "takes part         80 in 64" in texts["check"]
    assert "64/q60" in texts["answer"]
    assert "none is left" in texts["stop"]


def test_what_was_enlarged_is_told_and_some_pictures_are_wrong(again: Any) -> None:
    texts = shown(again)
    (auroc,) = re.findall(r"│ 64/none ┆ cooccurrence ┆ detector ┆ (\S+)", texts["results"])
    assert 0.7 < float(auroc) < 1
    (wrong, of) = re.findall(r"(\d+) of (\d+) pictures", texts["mistakes"])[0]
    assert 0 < int(wrong) < int(of) / 2
    by_photograph = re.findall(r"│ \w+ +┆ (\d+) +┆ (\d+) +┆ (\d+)", texts["by-photograph"])
    assert len(by_photograph) == 11
    assert sum(int(one) + int(other) for _, one, other in by_photograph) == int(wrong)


def test_the_notebook_is_kept_with_its_outputs_as_they_come(again: Any) -> None:
    """Figures may differ in their last digits between processors; what stands there does not."""
    kept = nbformat.read(NOTEBOOK, as_version=4)

    def kinds(document: Any) -> list[list[str]]:
        code = [cell for cell in document.cells if cell.cell_type == "code"]
        return [sorted(kind for out in cell.outputs for kind in out.get("data", {"stream": ""})) for cell in code]

    assert kinds(kept) == kinds(again)
    assert {key: len(text.splitlines()) for key, text in shown(kept).items()} == {
        key: len(text.splitlines()) for key, text in shown(again).items()
    }


def test_what_is_kept_names_no_folder_but_the_temporary_one() -> None:
    text = "\n".join(shown(nbformat.read(NOTEBOOK, as_version=4)).values())
    assert set(re.findall(r"(?<![\w.~])/[a-z]+/[^\s/]+", text)) == {"/tmp/two-folders"}
    assert "\x1b" not in text
