"""A folder of tables of scores as detectors: each once, whole, and of the files that were given out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.submissions import with_submissions
from storage.errors import MissingInput, SpecError
from tasks.detectors.scores_table import ScoresTable
from tasks.presets import load_unfilled

EXPERIMENT = load_unfilled("demo")[0]
NAMED = "file,source,image_id,cell,score\n64/none/00112233445566778899.png,town,a,64/none,0.5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Team A.csv", "team-b.parquet", "notes.txt", ".hidden.csv"):
        (tmp_path / name).write_text(NAMED)
    return tmp_path


def test_every_table_is_a_sealed_detector_beside_those_of_the_experiment(folder: Path) -> None:
    found = with_submissions(EXPERIMENT, folder)
    own = [one.name for one in EXPERIMENT.all_detectors]
    assert [one["name"] for one in found] == [*own, "team-a", "team-b"]
    changed = load_unfilled("demo", {"detectors": found})[0]
    assert changed.all_detectors[: len(own)] == EXPERIMENT.all_detectors
    assert [one.sealed for one in changed.all_detectors if isinstance(one, ScoresTable)] == [True, True]


def test_two_submissions_of_one_name_are_refused(folder: Path) -> None:
    (folder / "TEAM a.csv").write_text(NAMED)
    with pytest.raises(SpecError, match=r"is called 'team-a', as TEAM a\.csv is"):
        with_submissions(EXPERIMENT, folder)


def test_a_submission_cannot_take_the_name_of_a_detector(folder: Path) -> None:
    (folder / "spectrum.csv").write_text(NAMED)
    with pytest.raises(SpecError, match="as a detector of the experiment is"):
        with_submissions(EXPERIMENT, folder)


def test_a_folder_without_tables_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="submissions in"):
        with_submissions(EXPERIMENT, tmp_path)
    with pytest.raises(MissingInput, match="the folder of submissions"):
        with_submissions(EXPERIMENT, tmp_path / "nowhere")


def test_a_sealed_table_that_does_not_say_which_files_it_scored_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("source,image_id,cell,score\ntown,a,64/none,0.5\n")
    given: dict[str, Any] = {"name": "a", "table": str(table)}
    assert ScoresTable(**given).missing() == []
    (reason,) = ScoresTable(**given, sealed=True).missing()
    assert "1 of 1 rows do not name the file that was scored" in reason
    table.write_text(NAMED)
    assert ScoresTable(**given, sealed=True).missing() == []
