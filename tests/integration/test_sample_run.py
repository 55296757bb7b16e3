"""The preset `sample` in a fresh home: every step from photographs to report, on the smallest pictures."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from storage.objects import read_table
from storage.tables import embedding_matrix, read_features
from tasks.evaluation.fidelity import kernel_distance
from tasks.features.vgg16 import embed_pictures, load_vgg16
from tasks.networks.exported import ExportedNetwork
from tasks.presets import load_experiment
from tests.integration.finished_run import FinishedRun, evaluated

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    with evaluated("sample", tmp_path_factory.mktemp("sample")) as run:
        yield run


def test_it_prints_the_tables_and_names_the_report(run: FinishedRun) -> None:
    assert "The first project's table" in run.printed
    (line,) = [line for line in run.printed.splitlines() if line.startswith("report:")]
    report = Path(line.split(maxsplit=1)[1])
    assert report.is_file()
    assert "<html" in report.read_text()


def test_its_pictures_are_written_as_files_without_making_any(run: FinishedRun, tmp_path: Path) -> None:
    before = set(run.store.list("objects"))
    run.telltale("pictures", "sample", "--to", str(tmp_path / "to"), "--cells", "64/q20")
    assert set(run.store.list("objects")) == before
    lines = pl.read_csv(tmp_path / "to" / "pictures.csv", infer_schema=False)
    assert set(lines["cell"]) == {"64/q20"}
    assert set(lines["source"]) == {"photographs", "gan", "tiny-diffusion"}
    assert {str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").glob("*/*/*")} == set(lines["file"])


def test_every_cell_of_the_grid_has_results(run: FinishedRun) -> None:
    results = run.table("results").filter((pl.col("protocol") == "fair") & (pl.col("metric") == "auroc"))
    for detector in ("svm", "svm-aug", "probe"):
        rows = results.filter(pl.col("detector") == detector)
        assert len(rows.select("resolution", "perturbation").unique()) == 12
        assert set(rows["mix"]) == {"gan", "tiny-diffusion", "combined"}
        assert rows["value"].null_count() == 0


def test_the_first_projects_ten_rows_are_there(run: FinishedRun) -> None:
    assert len(run.table("first_project")) == 10
    stages = run.table("results").filter(pl.col("protocol").str.starts_with("ablation"))["protocol"].unique()
    assert len(stages) == 7


def test_shuffled_labels_are_at_chance(run: FinishedRun) -> None:
    rows = list(run.table("results").filter(pl.col("protocol") == "control").iter_rows(named=True))
    assert [row["detector"] for row in rows] == ["svm", "svm-aug"]
    for row in rows:
        # The interval of the mean of its repeats; three of its widths leave room for the one in twenty that misses.
        width = (row["high"] - row["low"]) / 2
        assert abs(row["value"] - 0.5) < max(2 * width, 0.05), row["detector"]


def pictures(run: FinishedRun, step: str) -> list[np.ndarray]:
    found = []
    for ref in run.refs(step):
        for image in read_table(run.store, ref, columns=["image"])["image"].to_pylist():
            found.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
    return found


def neighbour_correlation(picture: np.ndarray) -> float:
    """Mean correlation of each pixel with its right and its lower neighbour, over the channels."""
    values = picture.astype(np.float64)
    pairs = [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]
    return float(np.mean([np.corrcoef(a[..., c].ravel(), b[..., c].ravel())[0, 1] for a, b in pairs for c in range(3)]))


@pytest.mark.parametrize("generator", ["generate/gan", "generate/diffusion"])
def test_generated_pictures_are_pictures(run: FinishedRun, generator: str) -> None:
    made = pictures(run, generator)
    assert len(made) >= 60
    assert np.mean([neighbour_correlation(picture) for picture in made]) >= 0.8


@pytest.mark.parametrize("source", ["gan", "tiny-diffusion"])
def test_generated_pictures_are_nearer_to_photographs_than_noise_is(run: FinishedRun, source: str) -> None:
    """By an interval: the kernel distance's upper bound is below noise's lower bound, in the same 64-pixel view."""
    extractor = load_experiment("sample").extractor
    folder = f"embed/vgg16-pool5-avg-{extractor.side}/fair/64/none"
    refs = run.refs(folder)
    found = {
        name: embedding_matrix(read_features(run.store, [ref for ref in refs if f"/{name}-0" in ref.uri]))
        for name in ("photographs", source)
    }
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(len(found[source]))]
    of_noise = embed_pictures(load_vgg16(extractor, None), extractor, noise)
    size = min(len(values) for values in found.values()) // 2
    _, _, high = kernel_distance(found["photographs"], found[source], 100, size, 0)
    _, low, _ = kernel_distance(found["photographs"], of_noise, 100, size, 0)
    assert high < low


def test_every_network_of_the_chain_is_published_and_answers_as_its_card_says(run: FinishedRun) -> None:
    names = ["dense", "distilled", "distilled-alone", "distilled-int8", "pruned-50", "sparse"]
    folder = f"{run.place}/models"
    assert sorted(key.rpartition("/")[2] for key in run.store.list(folder)) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("json", "onnx")
    )
    sizes = {}
    for name in names:
        model = run.store.read(f"{folder}/{name}.onnx")
        card = json.loads(run.store.read(f"{folder}/{name}.json"))
        ExportedNetwork(model, card)  # answers its self-test, or raises
        assert len(card["error_rates"]) == 12
        sizes[name] = len(model)
    # Zeros that stay in the file save nothing; channels that are gone, and bytes instead of floats, do.
    assert sizes["sparse"] == pytest.approx(sizes["dense"], rel=0.01)
    assert sizes["pruned-50"] < sizes["dense"] / 2
    assert sizes["distilled-int8"] < sizes["distilled"]


def test_the_stage_table_says_what_every_network_costs_and_saves(run: FinishedRun) -> None:
    stages = {row["network"]: row for row in run.table("stages").iter_rows(named=True)}
    assert stages["pruned-50"]["macs_share"] <= 0.5
    assert stages["sparse"]["macs_share"] == 1
    assert stages["sparse"]["zeros"] > 0.35
    assert all(row["ms"] > 0 and row["pretrained"] is False for row in stages.values())
    seeds = run.table("distillation")["seed"].to_list()
    assert sorted(seed for seed in seeds if seed is not None) == [0, 1, 2]


def test_telltale_detect_answers_with_the_runs_networks(run: FinishedRun, tmp_path: Path) -> None:
    (shard, *_) = run.refs("shard/photographs")
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(read_table(run.store, shard)["image"][0].as_py()["bytes"])
    for network in ("dense", "distilled-int8"):
        answer = json.loads(run.telltale("detect", "--network", network, "--json", str(photograph)))
        assert answer["verdict"] in ("photograph", "generated", "unknown-source")
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
