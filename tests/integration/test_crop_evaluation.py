"""An experiment on the crop path, from files to the report: traces, histories, and what is left out of trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.evaluate import Evaluation
from storage.errors import BadImage
from storage.objects import Ref, finished_objects, read_part, read_table
from storage.opening import open_store
from storage.store import STORE_SETTING, Store
from tasks.networks.answer import Card, answer
from tasks.networks.exported import CARD, MODEL, ExportedNetwork
from tasks.presets import parse_experiment
from tasks.report.run import HTML
from tests.integration.computed_plans import computed_here, table
from tests.integration.small_windows import COUNT, draw_pictures, windows_experiment
from tests.unit.tiny_onnx import network


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    draw_pictures(root)
    return root


@pytest.fixture(scope="module")
def document(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return windows_experiment(folders, network(tmp_path_factory.mktemp("model") / "theirs.onnx"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def evaluation(store: Store, document: dict[str, Any]) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_SETTING, store.url)
        return computed_here(parse_experiment(document), store)


def scores(store: Store, place: str) -> pl.DataFrame:
    refs = [Ref.at(uri, rows=0, size=0) for uri in finished_objects(store) if uri.startswith(f"objects/{place}")]
    return pl.concat([pl.DataFrame(pl.from_arrow(read_table(store, ref))) for ref in refs])


def test_every_detector_is_in_every_cell_with_both_histories(store: Store, evaluation: Evaluation) -> None:
    results = table(store, evaluation, "results").filter(pl.col("without").is_null(), metric="auroc")
    for detector in ("traces", "theirs", "history"):
        of_it = results.filter(detector=detector)
        cells = set(of_it.filter(protocol="fair").select("mix", "perturbation").iter_rows())
        assert cells == {(mix, name) for mix in ("saved", "lossless", "combined") for name in ("none", "q50")}
        assert set(of_it.filter(protocol="as-is")["mix"]) == {"saved", "lossless", "combined"}
        assert set(of_it.filter(protocol="history-control")["mix"]) == {"saved"}, "nobody encoded the other's files"
        applied = set(of_it.filter(protocol="history-control-applied")["mix"])
        assert applied == ({"saved"} if detector == "traces" else set()), "what is fitted, as it is"
        assert of_it["value"].is_between(0, 1).all()


def test_networks_behind_a_front_end_are_compressed_left_out_and_controlled(
    store: Store, evaluation: Evaluation
) -> None:
    results = table(store, evaluation, "results").filter(metric="auroc")
    for name in ("median", "narrow", "int8"):
        whole = results.filter(pl.col("without").is_null(), detector=name)
        cells = set(whole.filter(protocol="fair").select("mix", "perturbation").iter_rows())
        assert cells == {(mix, name) for mix in ("saved", "lossless", "combined") for name in ("none", "q50")}
        assert set(whole.filter(protocol="history-control-applied")["mix"]) == {"saved"}
        assert not len(whole.filter(protocol="as-is")), "networks are not trained again"
    left_out = results.filter(pl.col("without").is_not_null(), detector="median")
    assert set(left_out.select("without", "mix").iter_rows()) == {("saved", "saved"), ("lossless", "lossless")}
    assert set(table(store, evaluation, "stages")["network"]) == {"median", "narrow", "int8"}
    assert set(evaluation.networks) == {"median", "narrow", "int8"}


def test_the_network_is_asked_about_windows_of_original_pixels(
    store: Store, evaluation: Evaluation, folders: Path
) -> None:
    card_ref, model = evaluation.networks["int8"]
    card = Card.read(read_part(store, card_ref, CARD))
    assert card.windows == 2
    network = ExportedNetwork(read_part(store, model, MODEL), json.loads(read_part(store, card_ref, CARD)))
    said = answer(network, card, (folders / "saved" / "000.jpeg").read_bytes())
    assert said.kind.cell in ("64/none", "64/q50")
    with pytest.raises(BadImage, match="too-small"):
        answer(network, card, (folders / "town" / "small.jpeg").read_bytes())


def test_traces_of_an_upsampling_are_told_and_histories_are_not(store: Store, evaluation: Evaluation) -> None:
    rows = {(row["detector"], row["mix"]): row for row in table(store, evaluation, "history").iter_rows(named=True)}
    assert rows["traces", "saved"]["matched"] > 0.9
    assert rows["history", "saved"]["as_is"] > 0.9, "as they came, qualities of 70 and 96 are told apart"
    assert rows["history", "saved"]["control"] < 0.75
    assert not rows["traces", "lossless"]["flagged"]


def test_photographs_have_a_version_for_each_generator_and_every_window_of_a_picture_one_score(
    store: Store, evaluation: Evaluation
) -> None:
    for detector in ("traces", "theirs"):
        found = scores(
            store, f"score/{detector}/crop/64/none/2-windows/" if detector == "traces" else "score/calibrated"
        )
        test = found.filter(pl.col("split") == "test", pl.col("detector") == detector, pl.col("perturbation") == "none")
        matched = test.filter(pl.col("source").str.contains("-as-saved") & ~pl.col("source").str.contains("once"))
        assert set(matched["source"]) == {"town-as-saved", "shore-as-saved"}
        # The one of quality 80 and the small one are not among them.
        assert sorted(matched.group_by("source").len()["len"]) == [COUNT, COUNT]
        assert matched.select("source", "image_id").is_duplicated().sum() == 0


def test_what_was_left_out_is_in_the_report(store: Store, evaluation: Evaluation) -> None:
    found = table(store, evaluation, "left_out")
    assert set(found.select("without", "mix").iter_rows()) == {("saved", "saved"), ("lossless", "lossless")}
    page = read_part(store, evaluation.report, HTML).decode()
    for said in ("What the history of files is worth", "Tested on what was left out of the training", "as they came"):
        assert said in page


def test_detectors_are_compared_in_pairs_and_each_photograph_is_drawn_once(
    store: Store, evaluation: Evaluation
) -> None:
    pairs = table(store, evaluation, "pairs")
    assert set(pairs["mix"]) == {"saved", "lossless", "combined"}
    assert table(store, evaluation, "significance")["rank"].null_count() == 0
    results = table(store, evaluation, "results").filter(
        pl.col("without").is_null(), protocol="fair", mix="combined", metric="auroc", detector="traces"
    )
    # As many photographs as fakes, each one's own group, and half of them for each of the generators.
    assert (results["n_groups"] == results["n_real"] + results["n_fake"]).all()
    assert (results["n_real"] > COUNT).all()


def test_counts_say_how_many_have_no_window_or_another_history(store: Store, evaluation: Evaluation) -> None:
    counts = table(store, evaluation, "counts")
    assert counts.filter(source="town")["left_out"].to_list() == [2, 2, 2]
    assert counts.filter(source="town")["images"].sum() == COUNT


def test_an_evaluation_again_computes_nothing(
    store: Store, evaluation: Evaluation, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_SETTING, store.url)
    before = set(finished_objects(store))
    assert computed_here(parse_experiment(document), store).report.uri == evaluation.report.uri
    assert set(finished_objects(store)) == before
