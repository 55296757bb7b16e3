"""Perturbations as an experiment names them: chains, canonical names, what is refused, and what a cell more costs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.made_up import places_by_step, preset
from flows.preflight import checked_experiment, missing_detectors, missing_gpu_detectors, refuse_missing
from storage.errors import MissingInput, SpecError
from storage.local import LocalStore
from storage.tables import embedding_matrix, read_features
from tasks.data.perturbations.chain import GIVEN, Chain
from tasks.data.perturbations.kinds import perturbation_named
from tasks.data.views import apply_view
from tasks.features.base import ExtractorBase
from tasks.features.probe import ProbeSpec
from tasks.networks.answer import CellErrors
from tasks.networks.exported import SHORTEST_SIDE, checked_picture
from tasks.presets import load_experiment
from tasks.report.blocks import perturbations_note
from tasks.report.data import ReportData
from tasks.spec.experiment import Experiment
from tasks.spec.views import LEAST_SIDE, Cell
from tests.unit.embedded_shards import VGG16, embed, image_table, jpeg, shard

SHOP = {"kind": "chain", "name": "shop", "steps": ["resize-0.5", {"kind": "jpeg", "quality": 60}, "webp-50"]}


def sample(*perturbations: object, **overrides: object) -> Experiment:
    return load_experiment("sample", {"mobile": None, "perturbations": list(perturbations)} | overrides)


def test_names_and_documents_name_cells_side_by_side() -> None:
    experiment = sample("webp-50", {"kind": "blur", "sigma": 2}, SHOP, "messenger", resolutions=[64], qualities=[None])
    names = ["64/none", "64/webp-50", "64/blur-2", "64/shop", "64/messenger"]
    assert [cell.name for cell in experiment.cells] == names
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_cells_that_show_the_same_pictures_are_named_in_the_report() -> None:
    """A limit changes no picture below it, and a chain of one step is that step."""
    quick = {"kind": "chain", "name": "quick", "steps": ["q20"]}
    smaller = {"kind": "chain", "name": "smaller", "steps": ["scale-0.9", "limit-90"]}
    named = ["limit-48", "limit-64", "messenger", "scale-0.9", SHOP, quick, smaller]
    experiment = sample(*named, resolutions=[64, 96], qualities=[None, 20], canonical_side=96)
    *_, note = perturbations_note(cast("ReportData", SimpleNamespace(experiment=experiment)))
    same = {
        "64/limit-64": "64/none",
        "64/quick": "64/q20",
        "64/smaller": "64/scale-0.9",
        "96/quick": "96/q20",
        "96/smaller": "96/scale-0.9",
    }
    assert note.text == "; ".join(f"{cell} shows the pictures of {other}" for cell, other in same.items()) + "."
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    shown = {
        cell.name: (cell.resolution, apply_view(pixels, cell.view("fair")).pixels.tobytes())
        for cell in experiment.cells
    }
    firsts = {data: name for name, data in reversed(shown.items())}
    assert {name: firsts[data] for name, data in shown.items() if firsts[data] != name} == same


def test_nothing_is_said_where_all_cells_differ() -> None:
    (note,) = perturbations_note(cast("ReportData", SimpleNamespace(experiment=sample(SHOP, resolutions=[64]))))
    assert note.text.startswith("shop: resized by 0.5 and back")


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_given_chain_is_named_by_its_name_alone_or_written_out(name: str) -> None:
    chain = perturbation_named(name)
    assert isinstance(chain, Chain)
    assert Chain.model_validate_json(chain.model_dump_json()) == chain
    assert Cell.parse(f"64/{name}").perturbation == chain
    assert "simulation of a platform, not measured" in chain.title


def test_an_own_chain_is_known_to_its_experiment_alone() -> None:
    (shop,) = sample(SHOP).perturbations
    assert shop.name == "shop"
    assert shop.title == "resized by 0.5 and back, then JPEG (4:2:0) of quality 60, then WebP (lossy) of quality 50"
    with pytest.raises(SpecError, match="no perturbation is called 'shop'"):
        Cell.parse("64/shop")


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        ("webp-0", "webp-0: Input should be greater than or equal to 1"),
        ("webp-101", "webp-101: Input should be less than or equal to 100"),
        ("avif-101", "avif-101: Input should be less than or equal to 100"),
        ("webp-50.5", "webp-50.5: .*fractional part"),
        ("webp-050", "no perturbation is called 'webp-050'"),
        ("webp", "no perturbation is called 'webp'"),
        ("q0", "q0: Input should be greater than or equal to 1"),
        ("q75-q101", "q75-q101: Input should be less than or equal to 100"),
        ("blur-0.29", "blur-0.29: Input should be greater than or equal to 0.3"),
        ("blur-1.234", "blur-1.234: expected at most two decimals, got 1.234"),
        ("noise-101", "noise-101: Input should be less than or equal to 100"),
        ("noise--5", "no perturbation is called 'noise--5'"),
        ("crop-1", "crop-1: Input should be less than 1"),
        ("crop-0", "crop-0: Input should be greater than or equal to 0.05"),
        ("resize-2", "resize-2: Input should be less than 1"),
        ("limit-8", "limit-8: Input should be greater than or equal to 16"),
        ("none", "no perturbation is called 'none'"),
        (None, "expected a mapping with a kind"),
        ({"kind": "jpegs", "qualities": [75]}, "qualities"),
        ({"kind": "blur", "sigma": "2"}, "expected a number, got the text '2'"),
        ({"kind": "blur", "sigma": True}, "expected no truth value"),
        ({"kind": "blur", "sigma": float("inf")}, "finite number"),
        (SHOP | {"steps": []}, "steps: .*at least 1 item"),
        (SHOP | {"steps": ["q60", "q999"]}, "q999: Input should be less than or equal to 100"),
        (SHOP | {"steps": ["q60", "messenger"]}, "chain shop: messenger is a chain, too: write its steps instead"),
        (SHOP | {"steps": [SHOP | {"name": "inner"}]}, "chain shop: inner is a chain, too: write its steps instead"),
        (SHOP | {"name": "messenger"}, r"chain messenger: a chain of this name is given, \['limit-1600', 'q75'\]"),
        (SHOP | {"name": "q20", "steps": ["q20"]}, "chain q20: something else is called so"),
        (SHOP | {"name": "webp-400"}, "chain webp-400: something else is called so"),
        (SHOP | {"name": "blur-0.5"}, "chain blur-0.5: something else is called so"),
        (SHOP | {"name": "q75-q50"}, "chain q75-q50: something else is called so"),
        (SHOP | {"name": "none"}, "chain none: something else is called so"),
        (SHOP | {"name": "a/b"}, "String should match pattern"),
    ],
)
def test_what_is_no_perturbation_is_refused_before_any_work(perturbation: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sample(perturbation)


@pytest.mark.parametrize(
    ("perturbations", "message"),
    [
        (["blur-2", {"kind": "blur", "sigma": 2.0}], "two perturbations have the same name, 'blur-2'"),
        (["blur-0.50", "blur-0.5"], "two perturbations have the same name, 'blur-0.5'"),
        (["messenger", "messenger"], "two perturbations have the same name, 'messenger'"),
        ([SHOP, SHOP | {"steps": ["q60"]}], "two perturbations have the same name, 'shop'"),
        ([{"kind": "jpeg", "quality": 20}], "perturbations: q20 is among the qualities already"),
    ],
)
def test_a_cell_that_is_named_twice_is_refused(perturbations: list[object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sample(*perturbations)


@pytest.mark.parametrize(
    ("perturbation", "cell", "left"),
    [
        ("crop-0.4", "32/crop-0.4", 13),
        ("scale-0.3", "32/scale-0.3", 10),
        (SHOP | {"steps": ["crop-0.7", "q60", "crop-0.6"]}, "32/shop", 13),
    ],
)
def test_a_cell_whose_pictures_get_too_small_is_refused(perturbation: object, cell: str, left: int) -> None:
    with pytest.raises(SpecError, match=f"in {cell} {left} of 32 pixels are left of a side, expected at least 16"):
        sample(perturbation, resolutions=["native", 32])
    assert sample(perturbation, resolutions=["native", 64])


def test_a_native_cell_is_as_large_as_the_canonical_form() -> None:
    with pytest.raises(SpecError, match=r"in native/crop-0\.05 10 of 200 pixels are left of a side"):
        sample("crop-0.05", resolutions=["native"], canonical_side=200)


def test_a_pillow_without_avif_is_missing_on_workers_of_both_pools(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    experiment = sample("avif-50", "webp-50", SHOP | {"steps": ["q60", "avif-70"]})
    lines = missing_detectors(experiment)
    assert [line.split(":")[0] for line in lines] == ["Pillow with AVIF, for avif-50", "Pillow with AVIF, for avif-70"]
    assert missing_gpu_detectors(experiment) == lines
    with pytest.raises(MissingInput, match="Pillow with AVIF, for avif-50"):
        refuse_missing(experiment, ("cpu", "gpu"))
    with pytest.raises(MissingInput, match="Pillow with AVIF, for avif-50: install its wheel"):
        checked_experiment("sample", {"mobile": None, "perturbations": ["avif-50"]})
    assert missing_detectors(sample("webp-50", "blur-2")) == ()


def test_no_cell_is_smaller_than_networks_take() -> None:
    assert LEAST_SIDE >= SHORTEST_SIDE
    least = np.zeros((LEAST_SIDE, LEAST_SIDE, 3), dtype=np.uint8)
    assert checked_picture(least) is least


@pytest.mark.parametrize("extractor", [ProbeSpec(), VGG16, VGG16.model_copy(update={"side": None})], ids=str)
def test_smaller_pictures_are_described_as_all_others(extractor: ExtractorBase, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    names = ("none", "crop-0.5", "screenshot", "limit-20", "webp-50")
    views = tuple(Cell.parse(f"32/{name}").view("fair") for name in names)
    images = shard(store, image_table([(jpeg(64, seed), 80, 64) for seed in range(3)]))
    found = [embedding_matrix(read_features(store, [ref])) for ref in embed(store, images, views, extractor=extractor)]
    for features in found:
        assert features.shape == found[0].shape
        assert np.isfinite(features).all()
    assert len({features.tobytes() for features in found}) == len(names)


def test_the_card_of_a_network_names_a_chain_and_is_read_back() -> None:
    cell = sample(SHOP, resolutions=[64]).cells[-1]
    rate = {"value": 0.1, "low": None, "high": None, "n": 9}
    errors = CellErrors.model_validate(
        {"cell": cell.name, **cell.model_dump(mode="json"), "false_alarms": rate, "missed": rate}
    )
    assert errors.name == "64/shop"
    assert not errors.is_comparable


def planned(*perturbations: object, **overrides: Any) -> dict[str, set[str]]:
    found = places_by_step(preset("sample", {"mobile": None, "perturbations": list(perturbations)} | overrides))
    return {step: set(places) for step, places in found.items()}


# What brings all cells together is made again.
SUMMARIES = {"examples", "explorer", "report", "views"}


@pytest.mark.parametrize("added", ["webp-50", "messenger", SHOP], ids=str)
def test_a_perturbation_more_computes_its_own_views_and_nothing_else(added: Any) -> None:
    name = added if isinstance(added, str) else added["name"]
    before, after = planned("blur-2"), planned("blur-2", added)
    gone = {step: places - after[step] for step, places in before.items() if places - after[step]}
    assert set(gone) == SUMMARIES
    new = {step: places - before.get(step, set()) for step, places in after.items()}
    new = {step: places for step, places in new.items() if places and step not in SUMMARIES}
    # The probe is fitted in each cell, as in every other one.
    assert set(new) == {"embed", "train/svm", "score", "evaluate-cell", "compare-detectors"}
    for step, places in new.items():
        assert all(f"/{name}/" in place for place in places), step
    resolutions = preset("sample").resolutions
    assert len(new["evaluate-cell"]) == len(resolutions)
    assert {place.split("/")[2] for place in new["train/svm"] | new["score"]} >= {"svm", "probe"}


def test_two_experiments_may_mean_different_chains_by_one_name() -> None:
    one, other = planned(SHOP), planned(SHOP | {"steps": ["resize-0.5", "q61", "webp-50"]})
    for step in ("embed", "score", "evaluate-cell"):
        ours, theirs = ({place for place in plan[step] if "/shop/" in place} for plan in (one, other))
        assert ours
        assert not ours & theirs, step
    assert one["embed"] - other["embed"] == {place for place in one["embed"] if "/shop/" in place}


@pytest.mark.parametrize("value", [2, 2.0])
def test_a_number_is_one_in_recipes_however_it_is_written(value: float) -> None:
    assert planned("blur-2") == planned({"kind": "blur", "sigma": value}) == planned("blur-2.0")


def test_a_chain_cannot_be_changed() -> None:
    chain = sample(SHOP).perturbations[0]
    with pytest.raises(ValidationError, match="frozen"):
        chain.name = "other"  # type: ignore[misc]
