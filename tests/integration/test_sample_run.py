"""`make demo` in a fresh home: the sample run from photographs to report, and the same again without computing."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from deployments.processes import marked_processes
from storage.local import LocalStore
from storage.objects import MANIFEST, Ref, read_manifest, read_table
from storage.tables import embedding_matrix, read_features
from tasks.evaluation.fidelity import kernel_distance
from tasks.features.vgg16 import embed_pictures, load_vgg16
from tasks.networks.exported import ExportedNetwork
from tasks.presets import load_experiment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


@dataclass
class Demo:
    """A finished demo: what it printed, first and second time, and its store."""

    printed: str
    again: str
    store: LocalStore
    made_again: set[str]
    pictures: Path  # the folder that `telltale pictures` made
    made_for_pictures: set[str]

    @property
    def place(self) -> str:
        """The run's place in the store."""
        return str(json.loads(self.store.read("refs/latest.json"))["sample"])

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.store.read(f"{self.place}/tables/{name}.parquet")))

    def refs(self, prefix: str) -> list[Ref]:
        """Finished objects below a folder of `objects/`."""
        places = [
            key.removesuffix(f"/{MANIFEST}") for key in self.store.list(f"objects/{prefix}") if key.endswith(MANIFEST)
        ]
        manifests = {place: read_manifest(self.store, place) for place in places}
        return [Ref(uri=place, digest=m.digest, rows=m.rows, bytes=m.bytes) for place, m in manifests.items()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
    environment = {**kept, "HOME": str(folder), "TELLTALE_HOME": str(folder / "telltale")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1700,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        printed = run("deployments.cli", "evaluate", "sample")
        store = LocalStore(folder / "telltale" / "store")
        before = set(store.list("objects"))
        again = run("deployments.cli", "evaluate", "sample")
        after = set(store.list("objects"))
        run("deployments.cli", "pictures", "sample", "--to", str(folder / "pictures"), "--cell", "64/q20")
        made_for_pictures = set(store.list("objects")) - after
        yield Demo(printed, again, store, after - before, folder / "pictures", made_for_pictures)
    finally:
        run("deployments.bootstrap", "stop")
        assert marked_processes(folder / "telltale") == []


def test_it_prints_the_tables_and_names_the_report(demo: Demo) -> None:
    assert "The first project's table" in demo.printed
    (line,) = [line for line in demo.printed.splitlines() if line.startswith("report:")]
    report = Path(line.split(maxsplit=1)[1])
    assert report.is_file()
    assert "<html" in report.read_text()


def test_again_it_computes_nothing_and_names_the_same_run(demo: Demo) -> None:
    assert demo.made_again == set()
    first, second = (
        [line for line in text.splitlines() if line.startswith("report:")] for text in (demo.printed, demo.again)
    )
    assert first == second


def test_its_pictures_are_written_as_files_without_making_any(demo: Demo) -> None:
    assert demo.made_for_pictures == set()
    lines = pl.read_csv(demo.pictures / "pictures.csv", infer_schema=False)
    assert set(lines["cell"]) == {"64/q20"}
    assert set(lines["source"]) == {"photographs", "gan", "tiny-diffusion"}
    assert {str(path.relative_to(demo.pictures)) for path in demo.pictures.glob("*/*/*")} == set(lines["file"])


def test_every_cell_of_the_grid_has_results(demo: Demo) -> None:
    results = demo.table("results").filter((pl.col("protocol") == "fair") & (pl.col("metric") == "auroc"))
    for detector in ("svm", "svm-aug", "probe"):
        rows = results.filter(pl.col("detector") == detector)
        assert len(rows.select("resolution", "perturbation").unique()) == 12
        assert set(rows["mix"]) == {"gan", "tiny-diffusion", "combined"}
        assert rows["value"].null_count() == 0


def test_the_first_projects_ten_rows_are_there(demo: Demo) -> None:
    assert len(demo.table("first_project")) == 10
    stages = demo.table("results").filter(pl.col("protocol").str.starts_with("ablation"))["protocol"].unique()
    assert len(stages) == 7


def test_shuffled_labels_are_at_chance(demo: Demo) -> None:
    rows = list(demo.table("results").filter(pl.col("protocol") == "control").iter_rows(named=True))
    assert [row["detector"] for row in rows] == ["svm", "svm-aug"]
    for row in rows:
        # The interval of the mean of its repeats; three of its widths leave room for the one in twenty that misses.
        width = (row["high"] - row["low"]) / 2
        assert abs(row["value"] - 0.5) < max(2 * width, 0.05), row["detector"]


def pictures(demo: Demo, step: str) -> list[np.ndarray]:
    found = []
    for ref in demo.refs(step):
        for image in read_table(demo.store, ref, columns=["image"])["image"].to_pylist():
            found.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
    return found


def neighbour_correlation(picture: np.ndarray) -> float:
    """Mean correlation of each pixel with its right and its lower neighbour, over the channels."""
    values = picture.astype(np.float64)
    pairs = [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]
    return float(np.mean([np.corrcoef(a[..., c].ravel(), b[..., c].ravel())[0, 1] for a, b in pairs for c in range(3)]))


@pytest.mark.parametrize("generator", ["generate/gan", "generate/diffusion"])
def test_generated_pictures_are_pictures(demo: Demo, generator: str) -> None:
    made = pictures(demo, generator)
    assert len(made) >= 60
    assert np.mean([neighbour_correlation(picture) for picture in made]) >= 0.8


@pytest.mark.parametrize("source", ["gan", "tiny-diffusion"])
def test_generated_pictures_are_nearer_to_photographs_than_noise_is(demo: Demo, source: str) -> None:
    """By an interval: the kernel distance's upper bound is below noise's lower bound, in the same 64-pixel view."""
    extractor = load_experiment("sample").extractor
    folder = f"embed/vgg16-pool5-avg-{extractor.side}/fair/64/none"
    refs = demo.refs(folder)
    found = {
        name: embedding_matrix(read_features(demo.store, [ref for ref in refs if f"/{name}-0" in ref.uri]))
        for name in ("photographs", source)
    }
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(len(found[source]))]
    of_noise = embed_pictures(load_vgg16(extractor, None), extractor, noise)
    size = min(len(values) for values in found.values()) // 2
    _, _, high = kernel_distance(found["photographs"], found[source], 100, size, 0)
    _, low, _ = kernel_distance(found["photographs"], of_noise, 100, size, 0)
    assert high < low


def test_every_network_of_the_chain_is_published_and_answers_as_its_card_says(demo: Demo) -> None:
    names = ["dense", "distilled", "distilled-alone", "distilled-int8", "pruned-50", "sparse"]
    folder = f"{demo.place}/models"
    assert sorted(key.rpartition("/")[2] for key in demo.store.list(folder)) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("json", "onnx")
    )
    sizes = {}
    for name in names:
        model = demo.store.read(f"{folder}/{name}.onnx")
        card = json.loads(demo.store.read(f"{folder}/{name}.json"))
        ExportedNetwork(model, card)  # answers its self-test, or raises
        assert len(card["error_rates"]) == 12
        sizes[name] = len(model)
    # Zeros that stay in the file save nothing; channels that are gone, and bytes instead of floats, do.
    assert sizes["sparse"] == pytest.approx(sizes["dense"], rel=0.01)
    assert sizes["pruned-50"] < sizes["dense"] / 2
    assert sizes["distilled-int8"] < sizes["distilled"]


def test_the_stage_table_says_what_every_network_costs_and_saves(demo: Demo) -> None:
    stages = {row["network"]: row for row in demo.table("stages").iter_rows(named=True)}
    assert stages["pruned-50"]["macs_share"] <= 0.5
    assert stages["sparse"]["macs_share"] == 1
    assert stages["sparse"]["zeros"] > 0.35
    assert all(row["ms"] > 0 and row["pretrained"] is False for row in stages.values())
    seeds = demo.table("distillation")["seed"].to_list()
    assert sorted(seed for seed in seeds if seed is not None) == [0, 1, 2]


def test_telltale_detect_answers_with_the_demos_networks(demo: Demo, tmp_path: Path) -> None:
    (shard, *_) = demo.refs("shard/photographs")
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(read_table(demo.store, shard)["image"][0].as_py()["bytes"])
    for network in ("dense", "distilled-int8"):
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "detect", "--network", network, "--json", str(photograph)],
            env={**os.environ, "TELLTALE_STORE": demo.store.url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["verdict"] in ("photograph", "generated", "unknown-source")
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
