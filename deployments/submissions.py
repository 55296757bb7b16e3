"""A leaderboard: a folder of tables of scores, each of which becomes a detector of an experiment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from storage.errors import MissingInput, SpecError
from storage.paths import absolute
from tasks.spec.base import LONGEST_NAME
from tasks.spec.experiment import Experiment

SUFFIXES = (".parquet", ".csv")


def with_submissions(experiment: Experiment, folder: Path) -> list[dict[str, Any]]:
    """The detectors of an experiment, and one for every table in a folder, called as its file is.

    Each table has a score for every test picture of every cell, and names the file that it scored
    (`tasks.detectors.scores_table`): what is incomplete, or of other pictures, is refused before anything is computed.

    Raises:
        MissingInput: there is no such folder, or no table in it.
        SpecError: two submissions have one name, or one has that of a detector.
    """
    place = absolute(folder)
    if not place.is_dir():
        raise MissingInput(f"the folder of submissions {folder}")
    files = sorted(
        file for file in place.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise MissingInput(f"submissions in {folder}: tables of scores that end in {' or '.join(SUFFIXES)}")
    own = {one.name: "a detector of the experiment" for one in experiment.all_detectors}
    submitted = []
    for file in files:
        name = re.sub(r"[^a-z0-9.-]+", "-", file.stem.lower()).strip("-.")[:LONGEST_NAME]
        if not name or name in own:
            raise SpecError(
                f"the submission {file.name} is called {name or 'nothing'!r}, as {own.get(name, 'no name')} is"
            )
        own[name] = file.name
        submitted.append({"kind": "scores", "name": name, "table": str(file), "sealed": True})
    kept = [one.model_dump(mode="json") for one in experiment.all_detectors]
    return [*kept, *submitted]
