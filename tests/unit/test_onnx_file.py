"""A network of anyone's in an ONNX file: its input and its answer are declared, and checked before any work."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from scipy.special import expit, logit, softmax

from flows.preflight import missing_detectors
from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import read_table
from tasks.brought_files import bring_files
from tasks.data.pictures import decode_rgb
from tasks.data.views import apply_view
from tasks.detectors.base import Detector
from tasks.detectors.onnx_file import OnnxFile, decision_values
from tasks.detectors.pictures import score_pictures
from tasks.presets import load_experiment
from tasks.spec.detectors import Fit
from tasks.spec.splits import FixedSplits
from tests.unit.network_pictures import VIEWS, row, shard
from tests.unit.tiny_onnx import INPUT, network

FIT = Fit(detector="theirs")


def theirs(path: Path | str, **fields: Any) -> OnnxFile:
    document = {"kind": "onnx", "name": "theirs", "model": str(path), "input": INPUT, "output": "logits",
                "answer": "softmax", "fake": [1]}  # fmt: skip
    found = TypeAdapter(Detector).validate_python(document | fields)
    assert isinstance(found, OnnxFile)
    return found


def scored(store: LocalStore, detector: OnnxFile, rows: list[Any]) -> dict[Any, float | None]:
    brought = detector.brings
    files, _ = bring_files.compute(store, digest=brought.digest, path=brought.path, pool=brought.pool)
    refs, _ = score_pictures.compute(
        store, detector=detector.keyed(), files=files, fit=FIT, pictures=shard(store, rows, "one"), views=VIEWS[:2],
        val_views=VIEWS[:2], splits=FixedSplits(), device="cpu", source="coco", shard=0,
    )  # fmt: skip
    found = [one for ref in refs for one in read_table(store, ref).to_pylist()]
    return {(one["source"], one["image_id"], one["resolution"]): one["decision"] for one in found}


ROWS = [row(source, number, "test") for source in ("coco", "stable") for number in range(5)]


@pytest.mark.parametrize("batch", [1, 4])
def test_scores_are_those_of_the_reference_implementation_on_the_decoded_pictures(tmp_path: Path, batch: int) -> None:
    path = network(tmp_path / "theirs.onnx")
    store = LocalStore(tmp_path / "store")
    found = scored(store, theirs(path, batch=batch), ROWS)
    session = ReferenceEvaluator(str(path))
    pictures = read_table(store, shard(store, ROWS, "one")).to_pylist()
    assert len(found) == len(pictures) * 2
    for one in pictures:
        for view in VIEWS[:2]:
            pixels = apply_view(decode_rgb(one["canonical"]), view).pixels
            small = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR), np.float32)
            x = ((small / 255 - np.array(INPUT["mean"])) / np.array(INPUT["std"])).transpose(2, 0, 1)[None]
            (p,) = session.run(["p"], {"x": x.astype(np.float32)})
            expected = logit(float(np.asarray(p)[0, 1]))
            assert found[one["source"], one["image_id"], str(view.resolution)] == pytest.approx(expected, abs=1e-4)


def test_a_file_is_told_by_its_content_and_no_path_is_in_a_recipe(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx")
    one = theirs(path)
    assert str(tmp_path) not in one.keyed().model_dump_json()
    assert one.keyed() == theirs(path.rename(tmp_path / "moved.onnx"), trained_on=["coco"], threshold=0.3).keyed()
    digest = theirs(tmp_path / "moved.onnx").brings.digest
    network(tmp_path / "moved.onnx", classes=3)
    assert theirs(tmp_path / "moved.onnx").brings.digest != digest


def test_answers_become_log_odds_of_fake() -> None:
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    p = softmax(logits.astype(np.float64), axis=1)
    expected = logit(p[:, 1] + p[:, 3])
    np.testing.assert_allclose(decision_values(logits, "softmax", (1, 3), 6), expected, atol=1e-6)
    np.testing.assert_allclose(decision_values(p, "probability", (1, 3), 6), expected, atol=1e-6)
    np.testing.assert_array_equal(decision_values(logits, "sigmoid", (2,), 6), logits[:, 2].astype(np.float64))
    np.testing.assert_array_equal(decision_values(logits[:, 0], "score", (0,), 6), logits[:, 0].astype(np.float64))
    # A softmax in float32 that has come to its end: finite, and in order.
    ends = decision_values(np.array([0, 1e-30, 0.5, 1 - 2**-24, 1], np.float32), "probability", (0,), 5)
    assert np.isfinite(ends).all()
    assert (np.diff(ends) >= 0).all()


def test_the_published_decision_is_at_half_unless_its_makers_say_otherwise(tmp_path: Path) -> None:
    assert theirs("x").published == 0
    assert theirs("x", threshold=0.8).published == pytest.approx(logit(0.8))
    assert theirs("x", answer="score").published is None
    assert theirs("x", answer="score", threshold=-3.5).published == -3.5
    assert expit(theirs("x", answer="probability", threshold=0.65).published) == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fake": []}, "at least 1 item"),
        ({"fake": [0, 0]}, "0 is listed twice"),
        ({"fake": [0, 1], "answer": "sigmoid"}, "a sigmoid has one index"),
        ({"threshold": 1.5}, "between 0 and 1, got 1.5"),
        ({"input": INPUT | {"std": [0.1, 0.0, 0.1]}}, "greater than 0"),
        ({"input": {k: v for k, v in INPUT.items() if k != "mean"}}, "mean"),
        ({"answer": "classes"}, "'softmax', 'sigmoid', 'probability' or 'score'"),
        ({"batch": 0}, "greater than or equal to 1"),
    ],
)
def test_a_broken_declaration_is_refused_when_it_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        theirs("x.onnx", **changes)


@pytest.mark.parametrize(
    ("made", "declared", "message"),
    [
        ({}, {"output": "fake"}, r"output: it has none called 'fake', expected one of \['logits', 'p'\]"),
        ({}, {"fake": [2]}, "fake: index 2 is beyond the 2 of the output"),
        ({}, {"fake": [0, 1]}, "all 2 classes of the output mean fake"),
        ({"side": 32}, {}, "declared are any x 3 x 16 x 16|declared are 1 x 3 x 16 x 16"),
        ({}, {"answer": "probability"}, "declared is a probability, got"),
        ({"batch": 2}, {}, "the model takes 2 x 3 x 16 x 16"),
        ({}, {"input": INPUT | {"layout": "channels-last"}}, "the model takes any x 3 x 16 x 16"),
        (
            {"inputs": [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 3, 16, 16])]},
            {},
            "cannot be opened as an ONNX model",
        ),
        (
            {"nodes": [helper.make_node("Theirs", ["x"], ["logits"], domain="their.ops"),
                       helper.make_node("Softmax", ["logits"], ["p"])],
             "imports": [helper.make_opsetid("their.ops", 1)]},
            {},
            r"cannot be opened as an ONNX model.*their\.ops",
        ),
    ],
    ids=["output", "index", "all-fake", "side", "no-probability", "batch", "layout", "half", "operator"],
)  # fmt: skip
def test_a_file_that_is_not_as_declared_is_refused_before_any_work(
    tmp_path: Path, made: dict[str, Any], declared: dict[str, Any], message: str
) -> None:
    path = network(tmp_path / "theirs.onnx", **made)
    (line,) = theirs(path, **declared).missing()
    assert line.startswith("theirs: theirs.onnx: ")
    assert re.search(message, line), line


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx", batch=4)
    detector = theirs(path, batch=4)
    assert detector.missing() == []
    found = scored(LocalStore(tmp_path / "one"), detector, ROWS)
    network(path)
    expected = scored(LocalStore(tmp_path / "two"), theirs(path), ROWS)
    assert found == pytest.approx(expected, abs=1e-6)


def test_what_is_missing_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    assert "does not exist" in theirs(tmp_path / "none.onnx").missing()[0]
    assert "cannot be opened as an ONNX model" in theirs(tmp_path / "broken.onnx").missing()[0]
    assert "is a folder" in theirs(tmp_path).missing()[0]
    named = {"kind": "onnx", "name": "theirs", "model": "${THEIR_MODEL}", "input": INPUT, "output": "logits",
             "answer": "softmax", "fake": [1]}  # fmt: skip
    experiment = load_experiment("sample", {"mobile": None, "detectors": [named]})
    assert missing_detectors(experiment) == (
        "environment variable THEIR_MODEL, which the experiment needs: export it",
    )  # fmt: skip


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(network(tmp_path / "whole.onnx").read_bytes())
    onnx.save(model, tmp_path / "parts.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (line,) = theirs(tmp_path / "parts.onnx").missing()
    assert "expected all tensors in the file itself" in line


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx")
    brought = theirs(path).brings
    network(path, classes=3)
    with pytest.raises(SpecError, match=r"theirs\.onnx: it changed while it was read, or another worker has another"):
        bring_files.compute(LocalStore(tmp_path / "s"), digest=brought.digest, path=brought.path, pool="cpu")


def test_a_network_that_gives_no_number_is_refused_before_any_work(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx")
    model = onnx.load_from_string(path.read_bytes())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((3, 2), np.nan, np.float32), "w"))
    onnx.save(model, path)
    (line,) = theirs(path).missing()
    assert "gives [nan, nan], which are no numbers" in line


def test_probabilities_that_are_declared_as_logits_are_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx")
    for answer in ("softmax", "sigmoid"):
        (line,) = theirs(path, output="p", answer=answer).missing()
        assert "adds up to 1: say `probability`" in line
    assert theirs(path, output="p", answer="probability").missing() == []


def test_a_network_that_draws_lots_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["plain"]),
        helper.make_node("RandomNormalLike", ["plain"], ["noise"]),
        helper.make_node("Add", ["plain", "noise"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
    ]
    (line,) = theirs(network(tmp_path / "theirs.onnx", nodes=nodes)).missing()
    assert "another answer when it is asked again" in line


def test_what_cannot_be_run_at_the_declared_side_is_refused_in_a_sentence(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),  # 3 x 16 x 16 numbers, which w does not take
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])]
    (line,) = theirs(network(tmp_path / "theirs.onnx", nodes=nodes, inputs=inputs)).missing()
    assert "it cannot be run on the declared input, 1 x 3 x 16 x 16" in line


def test_a_mean_of_plain_levels_is_refused() -> None:
    with pytest.raises(ValidationError, match="mean and std are those of levels divided by 255"):
        theirs("x", input=INPUT | {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]})


def test_a_picture_of_a_size_that_a_network_for_any_size_does_not_take_has_no_score(tmp_path: Path) -> None:
    path = network(tmp_path / "theirs.onnx", side=32)
    found = scored(LocalStore(tmp_path / "store"), theirs(path, input=INPUT | {"side": None, "resize": "none"}), ROWS)
    sizes = {resolution for (*_, resolution), decision in found.items() if decision is not None}
    assert sizes == {"32"}
    assert len(found) == 2 * len(ROWS)
