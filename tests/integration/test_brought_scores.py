"""The detector of the README, run as it is printed, and the same one as a table made from files that were exported."""

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.submissions import with_submissions
from flows.evaluate import Evaluation
from flows.pictures import pictures_of
from storage.objects import finished_objects
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.data.pictures import decode_rgb
from tasks.detectors.picture_files import TABLE, write_pictures
from tasks.presets import load_experiment
from tasks.spec.experiment import Experiment
from tests.integration.computed_plans import computed_here, table
from tests.integration.small_sample import WITHOUT_NETWORKS
from tests.unit.user_pages import README


def printed(language: str) -> str:
    first, *_ = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return str(first)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store, and the README's detector where a researcher would put it."""
    folder = tmp_path_factory.mktemp("brought")
    (folder / "grain.py").write_text(printed("python"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv(STORE_SETTING, str(folder / "store"))
        yield open_store()


def sample(detectors: list[dict[str, Any]]) -> Experiment:
    return load_experiment("sample", WITHOUT_NETWORKS | {"detectors": detectors})


@pytest.fixture(scope="module")
def evaluation(store: Store) -> Evaluation:
    return computed_here(sample(yaml.safe_load(printed("yaml"))["detectors"]), store)


def test_the_detector_of_the_readme_has_at_most_fifteen_lines() -> None:
    assert len(printed("python").splitlines()) <= 15


def test_it_is_in_every_cell_with_its_published_decision(store: Store, evaluation: Evaluation) -> None:
    fair = table(store, evaluation, "results").filter(protocol="fair", detector="grain")
    assert set(fair.select("resolution", "perturbation").iter_rows()) == {("64", "none"), ("64", "q20")}
    assert fair.filter(metric="auroc")["value"].null_count() == 0
    assert {"val", "half", "published"} <= set(fair["threshold_rule"])


def filled_in(folder: Path, function: Callable[[list[Any]], list[float]]) -> Path:
    """Fill in an export's table as somebody elsewhere would."""
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        assert line["score"] == ""
        (score,) = function([decode_rgb((folder / line["file"]).read_bytes())])
        line["score"] = repr(float(score))
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return folder / TABLE


def test_a_table_made_from_exported_files_gives_the_same_results(
    store: Store, evaluation: Evaluation, tmp_path: Path
) -> None:
    """Through PNG and through the view's own JPEG, to the bit, and nothing else is computed."""
    import grain  # type: ignore[import-not-found]

    experiment = sample([{"kind": "linear", "name": "svm"}])
    before = set(finished_objects(store))
    made = computed_here(experiment, store, pictures_of)
    assert set(finished_objects(store)) == before
    cells = experiment.cells
    count = write_pictures(
        store,
        made,
        cells=cells,
        threshold_cells=cells[:1],
        path="fair",
        splits=experiment.splits,
        folder=tmp_path / "pictures",
    )
    assert count == len(list((tmp_path / "pictures").glob("64/*/*.*")))
    assert {path.suffix for path in (tmp_path / "pictures" / "64" / "q20").iterdir()} == {".jpg"}
    assert {path.suffix for path in (tmp_path / "pictures" / "64" / "none").iterdir()} == {".png"}
    scores = filled_in(tmp_path / "pictures", grain.score)
    brought = {"kind": "scores", "name": "grain", "table": str(scores), "threshold": -1.0, "trained_on": []}
    found = computed_here(sample([{"kind": "linear", "name": "svm"}, brought]), store)
    one, other = (table(store, each, "results").filter(role="detector") for each in (evaluation, found))
    assert len(one.filter(detector="grain")) > 0
    assert one.equals(other)
    new = {place.split("/")[1] for place in set(finished_objects(store)) - before}
    assert new == {"files", "score", "evaluate-cell", "compare-detectors", "report", "explorer", "views"}
    submissions = tmp_path / "submissions"
    submissions.mkdir()
    shutil.copy(scores, submissions / "Grain of Somebody.csv")
    ranked = computed_here(sample(with_submissions(experiment, submissions)), store)
    theirs = table(store, ranked, "results").filter(detector="grain-of-somebody", threshold_rule="val")
    ours = table(store, found, "results").filter(detector="grain", threshold_rule="val")
    assert theirs["value"].equals(ours["value"])
    assert {"svm", "grain-of-somebody"} == set(table(store, ranked, "significance").drop_nulls("rank")["detector"])


def test_pictures_of_an_experiment_without_detectors_of_pictures_are_made_where_they_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Features of linear detectors are made from shards, so that nothing canonical is in the store after them."""
    monkeypatch.setenv(STORE_SETTING, str(tmp_path / "store"))
    experiment = sample([{"kind": "linear", "name": "svm"}])
    made = computed_here(experiment, open_store(), pictures_of)
    steps = {place.split("/")[1] for place in finished_objects(open_store())}
    assert "canonical" in steps
    assert not {"embed", "train", "score"} & steps
    assert sum(ref.rows for ref in made) > 0
