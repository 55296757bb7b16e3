"""Networks are compared on the same pictures in pairs, and described by what they weigh."""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from storage.errors import SpecError
from storage.objects import ROWS, Ref, commit, read_table
from storage.opening import open_store
from storage.store import Store
from storage.tables import COMPARISON_SCHEMA, NETWORK_SCHEMA
from tasks.data.perturbations.jpeg import jpeg
from tasks.evaluation.comparison import (
    ComparedNetwork,
    DescribedNetwork,
    ExportedFile,
    compare,
    compare_networks,
    compare_seeds,
    comparison_table,
    describe,
    describe_networks,
    share_of_zeros,
)
from tasks.networks.architecture import architecture
from tasks.networks.exported import CARD, MODEL
from tasks.networks.familiarity import Familiarity
from tasks.networks.trained import TrainedNetwork
from tasks.networks.variants import Variant
from tasks.spec.detectors import Distilled, FineTuned, Fit, MagnitudePruned, Quantized
from tasks.spec.views import Cell
from tests.unit.compared_scores import CLASSES, network_scores

CELL = Cell(resolution=64, perturbation=jpeg(20))
Scores = dict[Fit, pl.DataFrame]


def fit(name: str, seed: int = 0) -> Fit:
    return Fit(detector=name, seed=seed)


def networks() -> Scores:
    return {
        fit("dense"): network_scores(1.0, 0),
        fit("pruned"): network_scores(2.0, 1),
        fit("int8"): network_scores(2.2, 2),
    }


def compared(scores: Scores, **options: Any) -> dict[tuple[str, int, str], dict[str, Any]]:
    given: dict[str, Any] = {"references": scores, "seed": 0, "resamples": 200} | options
    rows = compare(scores, fit("dense"), CLASSES, CELL, **given)
    return {(row["network"], row["seed"], row["metric"]): row for row in rows}


def test_every_network_has_every_metric_and_its_change_from_the_first() -> None:
    found = compared(networks())
    metrics = ["class_accuracy", *(f"class_accuracy:{name}" for name in CLASSES), "balanced_accuracy", "auroc"]
    assert list(found) == [(name, 0, metric) for name in ("dense", "pruned", "int8") for metric in metrics]
    for (name, _, metric), row in found.items():
        assert row["low"] <= row["value"] <= row["high"]
        assert row["reason"] is None
        assert (row["resolution"], row["perturbation"]) == ("64", "q20")
        if name == "dense":
            assert "change" not in row
        else:
            assert row["change"] == pytest.approx(row["value"] - found["dense", 0, metric]["value"])
            assert row["change_low"] <= row["change"] <= row["change_high"]
    assert (found["dense", 0, "auroc"]["n"], found["dense", 0, "auroc"]["n_groups"]) == (120, 20)
    assert (found["dense", 0, "class_accuracy:gan"]["n"], found["dense", 0, "class_accuracy:gan"]["n_groups"]) == (
        40,
        20,
    )
    assert comparison_table(found.values()).schema == COMPARISON_SCHEMA


def test_changes_are_paired() -> None:
    scores = networks() | {fit("same"): network_scores(1.0, 0)}
    # A network that is wrong where the first one is, and on one picture more.
    almost = scores[fit("dense")].with_columns(
        pl.when(pl.int_range(pl.len()) == 150)
        .then(pl.Series([[0.2, 0.3, 0.5]]))
        .otherwise(pl.col("class_probabilities"))
        .alias("class_probabilities")
    )
    found = compared(scores | {fit("almost"): almost})
    same, close = found["same", 0, "class_accuracy"], found["almost", 0, "class_accuracy"]
    assert (same["change"], same["change_low"], same["change_high"]) == (0.0, 0.0, 0.0)
    assert 0 < close["change_high"] - close["change_low"] < (close["high"] - close["low"]) / 2


def test_a_network_with_an_origin_is_compared_with_that_too() -> None:
    found = compared(networks(), origins={fit("int8"): fit("pruned")})
    row = found["int8", 0, "class_accuracy_from_origin"]
    assert row["change"] == pytest.approx(
        found["int8", 0, "class_accuracy"]["value"] - found["pruned", 0, "class_accuracy"]["value"]
    )
    assert row["change"] != found["int8", 0, "class_accuracy"]["change"]
    for name in CLASSES:
        of_class = found["int8", 0, f"class_accuracy_from_origin:{name}"]
        before = found["pruned", 0, f"class_accuracy:{name}"]
        assert of_class["change"] == pytest.approx(of_class["value"] - before["value"])
        assert of_class["n"] == 40
    assert not any("from_origin" in metric and name != "int8" for name, _, metric in found)


def test_the_threshold_comes_from_the_references_val_rows_fold_by_fold() -> None:
    scores = networks()
    moved = {name: frame.with_columns(pl.col("p_fake") * 0.01) for name, frame in scores.items()}
    found, other = compared(scores), compared(scores, references=moved)
    assert other["pruned", 0, "balanced_accuracy"]["value"] < found["pruned", 0, "balanced_accuracy"]["value"]
    for metric in ("class_accuracy", "auroc"):
        assert other["pruned", 0, metric] == found["pruned", 0, metric]
    no_fakes = {name: frame.filter((pl.col("fold") == 0) | (pl.col("label") == 0)) for name, frame in scores.items()}
    row = compared(scores, references=no_fakes)["pruned", 0, "balanced_accuracy"]
    assert (row["value"], row["low"], row["change"]) == (None, None, None)
    assert row["reason"] == "no val pictures of both classes to set the threshold by"


def test_sources_that_the_networks_do_not_know_take_no_part() -> None:
    known = {fit(name): network_scores(1.0, seed) for seed, name in enumerate(("dense", "pruned"))}
    foreign = network_scores(1.0, 9, sources=("dalle",)).with_columns(p_fake=pl.lit(1e-9))
    assert compared({name: pl.concat([frame, foreign]) for name, frame in known.items()}) == compared(known)


def test_the_order_of_rows_does_not_matter() -> None:
    scores = networks()
    shuffled = {name: frame.sample(fraction=1.0, shuffle=True, seed=3) for name, frame in scores.items()}
    assert compared(shuffled, origins={fit("int8"): fit("pruned")}) == compared(
        scores, origins={fit("int8"): fit("pruned")}
    )


def test_too_few_groups_leave_values_without_intervals_and_a_reason() -> None:
    scores = {fit(name): network_scores(1.0, seed, parents=12) for seed, name in enumerate(("dense", "pruned"))}
    for (name, _, metric), row in compared(scores).items():
        assert row["value"] is not None
        assert (row["low"], row["high"]) == (None, None)
        assert row["reason"].startswith("n/a: ")
        if name == "pruned":
            assert row["change"] is not None, metric
            assert (row["change_low"], row["change_high"]) == (None, None)


def test_no_test_pictures_leave_every_value_empty_with_a_reason() -> None:
    scores = {name: frame.filter(pl.col("split") == "val") for name, frame in networks().items()}
    for row in compared(scores).values():
        assert (row["value"], row["low"], row["n"], row["n_groups"]) == (None, None, 0, 0)
        assert row["reason"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda frame: frame.head(-1), "cannot be compared: expected scores of the same test pictures"),
        (lambda frame: frame.with_columns(fold=1 - pl.col("fold")), "cannot be compared"),
        (lambda frame: pl.concat([frame, frame.tail(1)]), "scored more than once"),
        (lambda frame: frame.with_columns(class_probabilities=None), "expected probabilities of 3 classes"),
        (
            lambda frame: frame.with_columns(pl.col("class_probabilities").list.head(2)),
            r"expected probabilities of 3 classes .* got \[2\]",
        ),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(broken: Any, message: str) -> None:
    scores = networks()
    scores[fit("pruned")] = broken(scores[fit("pruned")]).cast(scores[fit("dense")].schema)
    with pytest.raises(SpecError, match=message):
        compared(scores)


def test_networks_that_are_not_there_are_refused() -> None:
    scores = networks()
    with pytest.raises(SpecError, match=r"none of \['flat'\]"):
        compared(scores, origins={fit("int8"): fit("flat")})
    with pytest.raises(SpecError, match=r"references of \["):
        compared(scores, references={fit("dense"): scores[fit("dense")]})
    with pytest.raises(SpecError, match="first class must be real"):
        compare(scores, fit("dense"), ("gan", "real"), CELL, references=scores, seed=0, resamples=100)


def test_a_network_that_a_generator_is_left_out_of_is_refused() -> None:
    left_out = Fit(detector="dense", without="gan")
    with pytest.raises(SpecError, match="dense-without-gan has other classes"):
        compared(networks() | {left_out: network_scores(1.0, 5)})


def students(noise: float, first_seed: int, name: str, seeds: int = 3) -> Scores:
    return {fit(name, seed): network_scores(noise, first_seed + seed, fit(name, seed)) for seed in range(seeds)}


def test_a_student_is_compared_with_itself_alone_over_its_seeds() -> None:
    scores = {fit("dense"): network_scores(1.0, 0)} | students(1.0, 10, "small") | students(3.0, 20, "small-alone")
    rows = compare_seeds(scores, CLASSES, CELL, alone={"small": "small-alone"}, seed=0, resamples=300)
    taught, alone = rows
    assert [(row["network"], row["seed"], row["metric"]) for row in rows] == [
        ("small", None, "class_accuracy_over_seeds"),
        ("small-alone", None, "class_accuracy_over_seeds"),
    ]
    own = compared(scores)
    for row in rows:
        per_seed = [own[row["network"], seed, "class_accuracy"]["value"] for seed in range(3)]
        assert row["value"] == pytest.approx(np.mean(per_seed))
        assert row["low"] < row["value"] < row["high"]
    assert taught["change"] == pytest.approx(taught["value"] - alone["value"])
    assert 0 < taught["change_low"] < taught["change"] < taught["change_high"]
    assert "change" not in alone


def test_one_seed_has_no_row_over_seeds_and_unequal_seeds_are_refused() -> None:
    assert compare_seeds(networks(), CLASSES, CELL, seed=0, resamples=100) == []
    scores = students(1.0, 10, "small") | students(1.0, 20, "small-alone", seeds=2)
    with pytest.raises(SpecError, match=r"small has the seeds \[0, 1, 2\], small-alone has \[0, 1\]"):
        compare_seeds(scores, CLASSES, CELL, alone={"small": "small-alone"}, seed=0, resamples=100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def stored(store: Store, place: str, parts: dict[str, Any]) -> Ref:
    return commit(store, f"objects/{place}", step="made", digest=place.replace("/", "-"), recipe={}, parts=parts)


def test_the_step_reads_scores_and_writes_one_table(store: Store) -> None:
    scores = {fit("dense"): network_scores(1.0, 0)} | students(1.5, 1, "small", 2) | students(1.5, 4, "small-alone", 2)
    refs = {one: stored(store, one.label, {ROWS: frame.to_arrow()}) for one, frame in scores.items()}
    alone = {"small": "small-alone"}
    networks = tuple(
        ComparedNetwork(fit=one, alone=alone.get(one.detector), scores=ref, reference=ref) for one, ref in refs.items()
    )
    arguments: dict[str, Any] = {"cell": CELL, "networks": networks, "classes": CLASSES, "seed": 0, "resamples": 100}
    ref, cached = compare_networks.compute(store, **arguments)
    table = read_table(store, ref)
    assert not cached
    assert table.schema.equals(COMPARISON_SCHEMA)
    own = compare(scores, fit("dense"), CLASSES, CELL, references=scores, seed=0, resamples=100)
    over = compare_seeds(scores, CLASSES, CELL, alone=alone, seed=0, resamples=100)
    assert table.equals(comparison_table([*own, *over]))
    assert "64/q20" in ref.uri
    swapped = networks[0].model_copy(update={"scores": refs[fit("small")]})
    with pytest.raises(SpecError, match=r"expected scores of dense, got those of \[\{'detector': 'small'"):
        compare_networks.compute(store, **arguments | {"networks": (swapped, *networks[1:])})


def trained(seed: int = 0, zeros: int = 0, **about: Any) -> TrainedNetwork:
    """A network of two tensors only: enough to be described."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(3, 4)).astype(np.float32) + 10
    weight.reshape(-1)[:zeros] = 0
    return TrainedNetwork(
        shape=architecture(0.35, "v3", 3, 32),
        tensors={"head.0.weight": weight, "head.0.bias": np.zeros(3, np.float32)},
        classes=CLASSES,
        temperature=1.0,
        familiarity=Familiarity(*(np.ones(shape, np.float32) for shape in ((4,), (4, 2), (3, 2)))),
        about={"epochs": 3, "loss": 0.5, "training_accuracy": 0.7, "validation_loss": 0.6, "validation_accuracy": 0.8}
        | about,
    )


DENSE = Variant(network=FineTuned(name="dense"), classes=CLASSES)
PRUNED = Variant(network=MagnitudePruned(name="pruned", of="dense"), classes=CLASSES)
SMALL = Variant(network=Distilled(name="small", width=0.35, teachers=("dense", "svm")), seed=1, classes=CLASSES)
ALONE = SMALL.model_copy(update={"aided": False})
INT8 = Variant(network=Quantized(name="int8", of="pruned"), classes=CLASSES)
ALL = (DENSE, PRUNED, SMALL, ALONE, INT8)
FILE = ExportedFile(b"model" * 100, {})


def test_a_network_is_described_by_means_over_rotations() -> None:
    row = describe(
        DENSE, ALL, [trained(), trained(1, zeros=6, epochs=5, loss=1.5)], [FILE, ExportedFile(b"x" * 100, {})]
    )
    assert set(row) == set(NETWORK_SCHEMA.names)
    assert (row["network"], row["seed"], row["kind"], row["of"], row["teachers"]) == (
        "dense",
        0,
        "fine-tuned",
        None,
        None,
    )
    assert (row["epochs"], row["loss"], row["validation_accuracy"]) == (4.0, 1.0, 0.8)
    assert (row["bytes"], row["zeros"]) == (300.0, 0.25)
    assert row["compressed_bytes"] == (len(zlib.compress(b"model" * 100, 6)) + len(zlib.compress(b"x" * 100, 6))) / 2
    assert (row["macs"], row["parameters"]) == (trained().shape.macs, trained().shape.parameters)


def test_kinds_origins_and_beginnings_are_told_apart() -> None:
    rows = {variant.fit.label: describe(variant, ALL, [trained()], [FILE]) for variant in ALL[:-1]}
    assert [rows[name]["kind"] for name in rows] == ["fine-tuned", "magnitude-pruned", "distilled", "alone"]
    assert [rows[name]["pretrained"] for name in rows] == [True, True, False, False]
    assert (rows["pruned"]["of"], rows["small-1"]["teachers"]) == ("dense", "dense + svm")
    assert (rows["small-alone-1"]["network"], rows["small-alone-1"]["seed"]) == ("small-alone", 1)
    assert rows["small-alone-1"]["teachers"] is None
    random = Variant(network=FineTuned(name="dense", weights="random:1"), classes=CLASSES)
    assert describe(PRUNED, (random, PRUNED), [trained()], [FILE])["pretrained"] is False


def test_a_quantized_network_names_what_stays_in_float_and_has_no_training() -> None:
    files = [
        ExportedFile(b"x", {"quantization": {"in_float": layers}}) for layers in (["stem"], [], ["head.0", "stem"])
    ]
    row = describe(INT8, ALL, [trained()], files)
    assert (row["in_float"], row["zeros"], row["epochs"], row["loss"]) == ("stem, head.0", None, None, None)
    assert row["macs"] == trained().shape.macs
    assert row["pretrained"] is True
    assert describe(INT8, ALL, [trained()], files[1:2])["in_float"] is None


def test_a_number_that_is_missing_or_not_a_number_is_null() -> None:
    untrained = trained(loss=float("nan"))
    assert describe(DENSE, ALL, [untrained], [FILE])["loss"] is None
    del untrained.about["loss"]
    assert describe(DENSE, ALL, [untrained], [FILE])["loss"] is None


def test_networks_that_cannot_be_told_apart_by_name_are_refused() -> None:
    for variant, known in ((DENSE.model_copy(update={"absent": "gan"}), [trained()]), (DENSE, [])):
        with pytest.raises(SpecError, match="all classes and at least one rotation"):
            describe(variant, ALL, known, [FILE])


def test_biases_do_not_count_as_weights() -> None:
    network = trained(zeros=3)
    assert share_of_zeros(network) == 0.25
    assert share_of_zeros(replace(network, tensors={"a.weight": np.zeros((2, 2))})) == 1.0


def test_the_step_describes_a_quantized_network_by_its_origins_shape(store: Store) -> None:
    weights = stored(store, "weights", trained(zeros=6).parts())
    file = stored(
        store, "file", {MODEL: b"abc" * 50, CARD: json.dumps({"quantization": {"in_float": ["stem"]}}).encode()}
    )
    described = {DENSE: (weights,), PRUNED: (weights,), INT8: ()}
    ref, _ = describe_networks.compute(
        store,
        networks=tuple(
            DescribedNetwork(variant=variant, weights=refs, exported=(file,)) for variant, refs in described.items()
        ),
    )
    table = read_table(store, ref)
    assert table.schema.equals(NETWORK_SCHEMA)
    rows = {row["network"]: row for row in table.to_pylist()}
    assert rows["int8"]["macs"] == rows["pruned"]["macs"] == trained().shape.macs
    assert (rows["pruned"]["in_float"], rows["int8"]["in_float"]) == (None, "stem")
    assert (rows["pruned"]["zeros"], rows["int8"]["zeros"]) == (0.5, None)
