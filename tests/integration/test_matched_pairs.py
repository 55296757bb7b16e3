"""Reconstructions of the sample's photographs in an evaluation of their own: pairs that its scores can be joined to."""

import io

import polars as pl
import pytest

from flows.evaluate import Evaluation
from storage.objects import Ref, finished_objects, read_part, read_table
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.presets import load_experiment
from tasks.report.run import HTML
from tests.integration.computed_plans import computed_here
from tests.integration.small_sample import WITHOUT_NETWORKS
from tests.unit.tiny_autoencoders import save_kl

PAIRS = {"kind": "reconstruction", "name": "pairs", "of": "photographs", "border": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("reconstruction")))


@pytest.fixture(scope="module")
def evaluation(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    weights = save_kl(tmp_path_factory.mktemp("models") / "kl")
    small = {key: value for key, value in WITHOUT_NETWORKS.items() if not key.startswith("sources.")}
    photographs = {"kind": "sample", "name": "photographs", "crops_per_photograph": 3}
    sources = [photographs, PAIRS | {"weights": str(weights)}]
    experiment = load_experiment("sample", small | {"sources": sources, "canonical_side": 64, "shard_size": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        return computed_here(experiment, store)


def tables(store: Store, prefix: str) -> pl.DataFrame:
    """The rows of all objects whose places begin so."""
    refs = [Ref.at(place, rows=0, size=0) for place in finished_objects(store) if place.startswith(f"objects/{prefix}")]
    return pl.concat([pl.DataFrame(pl.from_arrow(read_table(store, ref))) for ref in refs])


def test_every_pair_is_scored_and_joined_by_image_and_sources(store: Store, evaluation: Evaluation) -> None:
    scores = tables(store, "score/svm/fair/64/none/").filter(split="test", seed=0)
    kept = ["image_id", "group_id", "fold", "decision"]
    photographs = scores.filter(source="photographs").select(kept)
    pairs = scores.filter(source="pairs").select(kept).join(photographs, on="image_id", how="left", suffix="_of")
    assert len(pairs) == len(photographs) > 5
    assert pairs["decision_of"].null_count() == 0
    assert pairs["group_id"].equals(pairs["group_id_of"], check_names=False)
    assert pairs["fold"].equals(pairs["fold_of"], check_names=False)
    assert (pairs["decision"] != pairs["decision_of"]).all()


def test_they_are_a_mix_and_a_row_of_the_counts(store: Store, evaluation: Evaluation) -> None:
    results = pl.read_parquet(io.BytesIO(read_part(store, evaluation.report, "results.parquet")))
    found = results.filter(protocol="fair", mix="pairs", metric="auroc", detector="svm")
    assert found["value"].null_count() == 0 < len(found)
    in_order = results.filter(protocol="fair", mix="pairs", metric="pairs_in_order", detector="svm")
    assert in_order["value"].is_between(0, 1).all()
    assert len(in_order) == len(found)
    assert "Photographs beside what was made of them" in read_part(store, evaluation.report, HTML).decode()
    counts = pl.read_parquet(io.BytesIO(read_part(store, evaluation.report, "counts.parquet")))
    by_source = counts.group_by("source").agg(pl.col("images").sum(), pl.col("collapse_rate").max())
    assert dict(by_source.select("source", "images").iter_rows())["pairs"] > 5
    assert "pairs" in read_part(store, evaluation.report, HTML).decode()
