"""A toy detector, a toy perturbation and a chain, one file each, appear wherever an evaluation is shown."""

import io
from collections.abc import Iterator

import polars as pl
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from deployments.evaluate import _print_results
from deployments.tables import short_tables
from flows import publish as publishing
from flows.evaluate import Evaluation
from flows.publish import headline_rows, publish
from storage.objects import read_part
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.data.perturbations.base import KINDS as PERTURBATIONS
from tasks.detectors.base import KINDS as DETECTORS
from tasks.presets import load_experiment
from tasks.report.run import HTML, MARKDOWN
from tests.integration.computed_plans import computed_here, table
from tests.integration.small_sample import WITHOUT_NETWORKS
from tests.unit.toy_detector import Blueness
from tests.unit.toy_perturbation import Flip

TITLE = "how blue a picture is"
PROBE = {"kind": "linear", "name": "probe", "role": "probe", "extractor": {"kind": "probe"}, "fitted_in": "each-cell"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("open-house")))


@pytest.fixture(scope="module")
def patched(store: Store) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        patch.setitem(DETECTORS, "blueness", Blueness)
        patch.setitem(PERTURBATIONS, "flip", Flip)
        patch.setattr(publishing, "_show", lambda *_: None)  # no server listens
        yield patch


@pytest.fixture(scope="module")
def evaluation(store: Store, patched: pytest.MonkeyPatch) -> tuple[Evaluation, str]:
    overrides = WITHOUT_NETWORKS | {
        "detectors": [{"kind": "linear", "name": "plain"}, {"kind": "blueness", "name": "blue"}, PROBE],
        "perturbations": ["flip-1", "social"],
    }
    experiment = load_experiment("sample", overrides)
    found = computed_here(experiment, store)
    return found, publish(experiment, found.report, found.explorer, found.results, found.networks)


def test_they_are_in_the_results_of_every_cell(store: Store, evaluation: tuple[Evaluation, str]) -> None:
    fair = table(store, evaluation[0], "results").filter(protocol="fair")
    cells = {("64", "none"), ("64", "q20"), ("64", "flip-1"), ("64", "social")}
    for detector in ("plain", "blue", "probe"):
        assert set(fair.filter(detector=detector).select("resolution", "perturbation").iter_rows()) == cells
    assert set(fair["detector"]) == {"plain", "blue", "probe"}
    # A mirror image is as blue as the picture.
    by_cell = {
        perturbation: fair.filter(detector="blue", perturbation=perturbation, metric="auroc")["value"].to_list()
        for perturbation in ("none", "flip-1")
    }
    assert by_cell["none"] == by_cell["flip-1"] != []


def test_they_are_in_the_tables(store: Store, evaluation: tuple[Evaluation, str]) -> None:
    for name in ("grid", "roc"):
        found = table(store, evaluation[0], name)
        assert {"plain", "blue"} <= set(found["detector"]), name
        assert {"flip-1", "social"} <= set(found["perturbation"]), name
    assert "64/flip-1" in set(table(store, evaluation[0], "grid")["cell"])


@pytest.mark.parametrize("page", [HTML, MARKDOWN])
def test_they_are_in_the_report(store: Store, evaluation: tuple[Evaluation, str], page: str) -> None:
    text = read_part(store, evaluation[0].report, page).decode()
    assert TITLE in text
    assert "flip-1" in text
    assert "social: a simulation of a platform, not measured on one" in text


def test_the_published_table_of_pictures_gives_the_figures_of_the_report(
    store: Store, evaluation: tuple[Evaluation, str]
) -> None:
    found, place = evaluation
    pictures = pl.read_parquet(io.BytesIO(store.read(f"{place}/pictures.parquet")))
    results = table(store, found, "results").filter(protocol="fair", metric="auroc").filter(pl.col("seed") == 0)
    compared = results.filter(pl.col("fitted_on").is_null(), pl.col("value").is_not_null(), pl.col("without").is_null())
    assert len(compared) >= 24
    for row in compared.iter_rows(named=True):
        of_cell = pictures.filter(resolution=row["resolution"], perturbation=row["perturbation"])
        drawn = of_cell.filter(pl.col("drawn").list.contains(row["mix"]))
        counts = drawn["truth"].value_counts()
        assert dict(counts.iter_rows()) == {"photograph": row["n_real"], "generated": row["n_fake"]}
        value = roc_auc_score(drawn["truth"] == "generated", drawn[f"{row['detector']}_p_fake"])
        assert value == pytest.approx(row["value"]), row


def test_they_are_in_the_terminal_and_in_the_ui(store: Store, evaluation: tuple[Evaluation, str]) -> None:
    found, place = evaluation
    grids = {title: one for title, one in short_tables(store, place).items() if "cell" in one.columns}
    of_toy = [one for title, one in grids.items() if "blue" in title]
    assert of_toy
    assert all("64/flip-1" in one["cell"] for one in of_toy)
    _print_results(console := Console(record=True, width=200, file=io.StringIO()), place)
    assert TITLE in console.export_text()
    rows = headline_rows(store, found.report)
    assert {row["detector"] for row in rows} == {"plain", "blue"}
    assert {row["cell"] for row in rows} == {"64/none", "64/q20", "64/flip-1", "64/social"}
