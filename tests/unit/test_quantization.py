import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from storage.digest import sha256_hex
from storage.errors import SpecError, WrongAnswers
from storage.local import LocalStore
from storage.objects import Ref, commit, manifest_of, notes_of, read_part
from tasks import pieces
from tasks.networks import quantization, quantized_graph
from tasks.networks.architecture import architecture
from tasks.networks.export import export_network
from tasks.networks.exported import CARD, MODEL, Detection, ExportedNetwork
from tasks.networks.familiarity import Familiarity
from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors, prepare_picture
from tasks.networks.network_graph import build_graph
from tasks.networks.onnx_graph import serialised
from tasks.networks.quantization import (
    MOST_IN_FLOAT,
    Check,
    calibration_indices,
    quantize_network,
    quantize_within,
    recentred,
    stages_by_damage,
)
from tasks.networks.quantized_graph import activation_ranges, quantizable_stages, quantize, quantize_with
from tasks.networks.trained import TrainedNetwork
from tasks.onnx_sessions import open_session
from tasks.spec.detectors import Fit, Quantized
from tasks.spec.splits import FixedSplits
from tests.unit.network_pictures import CLASSES, VIEWS, picture, pictures, row, shard, shards

CALIBRATION = [picture(source, number) for source in ("coco", "gan", "stable") for number in range(4)]


def network(head: str = "v3", width: float = 0.35, side: int = 64) -> TrainedNetwork:
    shape = architecture(width, head, len(CLASSES), side)
    module = MobileNet(shape)
    initialise(module, 0)
    random = np.random.default_rng(0)
    familiarity = Familiarity(
        np.zeros(shape.last, dtype=np.float32),
        random.normal(scale=0.1, size=(shape.last, 4)).astype(np.float32),
        random.normal(size=(len(CLASSES), 4)).astype(np.float32),
    )
    return TrainedNetwork(shape, network_tensors(module), CLASSES, 1.0, familiarity)


# Of an ONNX model's constants: whole numbers of several widths, and floats.
Values = npt.NDArray[Any]


def constants(model: bytes) -> dict[str, Values]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}


def observed(model: bytes, tensor: str, pixels: npt.NDArray[np.uint8]) -> Values:
    parsed = onnx.load_from_string(model)
    parsed.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    values: Values = open_session(parsed.SerializeToString()).run([tensor], {"picture": pixels})[0]
    return values


@pytest.mark.parametrize("head", ["v1", "v3"])
def test_eight_bits_answer_nearly_as_floats_do(head: str) -> None:
    model = build_graph(network(head))
    before, after = ExportedNetwork(model), ExportedNetwork(quantize(model, CALIBRATION))
    for number in range(100, 104):
        one, other = before.detect(picture("gan", number)), after.detect(picture("gan", number))
        assert other.probabilities == pytest.approx(one.probabilities, abs=0.1)
        assert other.familiarity.shape == (3,)
        assert np.corrcoef(other.activation.ravel(), one.activation.ravel())[0, 1] > 0.9


def test_weights_are_stored_in_eight_bits() -> None:
    model = build_graph(network("v1"))
    quantized = quantize(model, CALIBRATION)
    floats = {name for name, values in constants(quantized).items() if values.dtype == np.float32 and values.ndim > 1}
    kept = {"stages.0.stem.convolution.weight", "head.4.weight", "mean"}
    assert floats == kept | {"rejection.projection", "rejection.class_means"}
    assert len(quantized) < 0.45 * len(model)


def test_a_scale_per_channel_takes_weights_of_very_different_sizes() -> None:
    trained = network()
    name = "stages.3.projection.convolution.weight"
    trained.tensors[name][0] *= 1e-4
    stored = constants(quantize(build_graph(trained), CALIBRATION))
    levels = stored[f"{name}.quantized"].astype(np.float64) * stored[f"{name}.scale"][:, None, None, None]
    assert stored[f"{name}.quantized"].dtype == np.int8
    assert np.abs(stored[f"{name}.quantized"][0]).max() == 127
    largest = np.abs(trained.tensors[name]).max(axis=(1, 2, 3))
    assert (np.abs(levels - trained.tensors[name]).max(axis=(1, 2, 3)) <= largest / 250).all()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    trained = network()
    trained.tensors["stages.3.projection.convolution.weight"][:] = 0
    trained.tensors["stages.3.projection.convolution.bias"][:] = 0.75
    stored = constants(quantize(build_graph(trained), CALIBRATION))
    name = "stages.3.projection.convolution.bias"
    assert stored[f"{name}.quantized"] * stored[f"{name}.scale"].astype(np.float64) == pytest.approx(0.75, rel=1e-6)


def test_equal_arguments_give_equal_bytes() -> None:
    model = build_graph(network(width=0.1, side=32))
    assert quantize(model, CALIBRATION) == quantize(model, CALIBRATION)


def test_stages_in_float_keep_their_weights() -> None:
    model = build_graph(network(width=0.1, side=32))
    original, quantized = constants(model), constants(quantize(model, CALIBRATION, ["stages.3", "stages.18"]))
    for layer in ("stages.3.expansion", "stages.3.depthwise", "stages.3.projection", "stages.18.last"):
        name = f"{layer}.convolution.weight"
        assert np.array_equal(quantized[name], original[name])
    assert "stages.4.projection.convolution.weight" not in quantized


def test_a_stage_that_there_is_not_is_refused() -> None:
    model = build_graph(network(width=0.1, side=32))
    with pytest.raises(SpecError, match=r"no such stages: \['stages.99'\]"):
        quantize(model, CALIBRATION, ["stages.99"])


def test_calibration_needs_a_picture() -> None:
    with pytest.raises(SpecError, match="at least one calibration picture"):
        quantize(build_graph(network(width=0.1, side=32)), [])


def test_ranges_are_the_extremes_over_all_pictures() -> None:
    model = build_graph(network(width=0.1, side=32))
    name = "stages.2.projection.convolution"
    values = np.concatenate([observed(model, name, pixels).ravel() for pixels in CALIBRATION])
    assert activation_ranges(model, CALIBRATION)[name] == (values.min(), values.max())


def test_whole_numbers_make_the_first_convolution_exact() -> None:
    """Then its sums are the same in every order, and every runtime rounds them to the same bytes."""
    from torch import from_numpy
    from torch.nn.functional import conv2d

    quantized = quantize(build_graph(network()), CALIBRATION)
    pixels = picture("coco", 7, side=150)
    stored = constants(quantized)
    weight, bias = (stored[f"stages.0.stem.convolution.{part}"].astype(np.float64) for part in ("weight", "bias"))
    entered = observed(quantized, "normalised", pixels).astype(np.float64)
    assert np.array_equal(entered, np.rint(entered))
    exact = conv2d(from_numpy(entered), from_numpy(weight), from_numpy(bias), stride=2, padding=1).numpy()
    assert np.array_equal(observed(quantized, "stages.0.stem.convolution", pixels), exact)


@pytest.mark.parametrize("side", [40, 64, 65, 300, 1000])
def test_the_resize_in_whole_numbers_is_within_a_level(side: int) -> None:
    trained = network(width=0.1, side=64)
    quantized = quantize(build_graph(trained), CALIBRATION)
    pixels = picture("coco", 3, side)
    deviation = 255 * np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = prepare_picture(pixels, 64).numpy() * deviation + 255 * np.array([0.485, 0.456, 0.406])[:, None, None]
    assert np.abs(observed(quantized, "resized", pixels)[0] - expected).max() < 1.0


def test_every_stage_but_the_first_has_its_damage_worst_first() -> None:
    model = build_graph(network(width=0.1, side=32))
    ranges = activation_ranges(model, CALIBRATION)
    stages = quantizable_stages(onnx.load_from_string(model))
    # With this range all that the stage makes is one of two values.
    ranges["stages.18.last.activation"] = (0.0, 1e6)
    damage = dict(found := stages_by_damage(model, ranges, CALIBRATION[:4]))
    assert stages == tuple(f"stages.{number}" for number in range(1, 19))
    assert sorted(damage) == sorted(stages)
    assert found[0][0] == "stages.18"
    assert list(damage.values()) == sorted(damage.values(), reverse=True)
    before = ExportedNetwork(model)
    alone = ExportedNetwork(quantize_with(model, ranges, set(stages) - {"stages.3"}))
    moved = [
        np.abs(alone.detect(pixels).probabilities - before.detect(pixels).probabilities).max()
        for pixels in CALIBRATION[:4]
    ]
    assert damage["stages.3"] == pytest.approx(np.mean(moved), abs=1e-6)


def loses(points: Sequence[float]) -> Callable[[bytes], float]:
    """A check that says these points, one after the other."""
    left = iter(points)
    return lambda model: next(left)


def by_damage() -> list[tuple[str, float]]:
    return [(f"stages.{number}", 1.0 / number) for number in range(1, 10)]


def test_stages_stay_in_float_until_little_enough_is_lost() -> None:
    model = build_graph(network(width=0.1, side=32))
    ranges = activation_ranges(model, CALIBRATION)
    quantized, kept = quantize_within(model, ranges, 1.0, loses([5.0, 3.0, 0.5]), by_damage)
    assert kept == ("stages.1", "stages.2")
    assert quantized == quantize_with(model, ranges, kept)


def test_nothing_stays_in_float_where_little_is_lost() -> None:
    model = build_graph(network(width=0.1, side=32))
    ranges = activation_ranges(model, CALIBRATION)

    def unasked() -> list[tuple[str, float]]:
        raise AssertionError("damage is only measured where it is needed")

    quantized, kept = quantize_within(model, ranges, 1.0, loses([1.0]), unasked)
    assert kept == ()
    assert quantized == quantize_with(model, ranges)


def test_the_one_that_lost_least_is_taken_where_all_lose_too_much() -> None:
    model = build_graph(network(width=0.1, side=32))
    ranges = activation_ranges(model, CALIBRATION)
    points = [9.0, 8.0, 4.0, 6.0, *[7.0] * (MOST_IN_FLOAT - 3)]
    assert quantize_within(model, ranges, 1.0, loses(points), by_damage)[1] == ("stages.1", "stages.2")


def test_calibration_pictures_are_balanced_over_classes() -> None:
    among = pictures((9, 5, 2))
    drawn = calibration_indices(among, 9)
    assert np.bincount(among.classes[drawn]).tolist() == [4, 3, 2]
    assert len(set(drawn)) == 9
    assert calibration_indices(among, 9) == drawn
    assert len(calibration_indices(among, 100)) == 16


def test_calibration_on_one_class_is_refused() -> None:
    with pytest.raises(SpecError, match="at least two classes"):
        calibration_indices(pictures((9, 0, 0)), 4)


def quantized_object(store: LocalStore, images: tuple[Ref, ...], name: str = "int8") -> Ref:
    trained = network(width=0.1, side=32)
    weights = commit(store, "objects/train/dense", step="train", digest="d", recipe={}, parts=trained.parts())
    exported, _ = export_network.compute(store, name=Fit(detector="dense"), rotation=0, network=weights)
    ref: Ref = quantize_network.compute(
        store,
        spec=Quantized(name=name, of="dense", calibration_pictures=8, tolerance=100.0),
        exported=exported,
        images=images,
        rotation=0,
        splits=FixedSplits(),
        views=VIEWS,
    )[0]
    return ref


def test_the_card_has_what_the_quantisation_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref = quantized_object(store, shards(store))
    model, card = read_part(store, ref, MODEL), json.loads(read_part(store, ref, CARD))
    assert card["sha256"] == sha256_hex(model)
    assert card["bytes"] == len(model)
    facts = card["quantization"]
    assert facts["in_float"] == ["stages.0"]
    assert facts["calibration_pictures"] == 8
    assert facts["val"]["n"] == 12
    assert {name: one["n"] for name, one in facts["val"]["per_class"].items()} == dict.fromkeys(CLASSES, 4)
    assert facts["val"]["change"] == pytest.approx(facts["val"]["after"] - facts["val"]["before"])
    assert notes_of(store, ref)["in_float"] == ["stages.0"]
    ExportedNetwork.load(store, ref)


def test_a_check_that_breaks_off_asks_no_model_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = LocalStore(tmp_path / "whole"), LocalStore(tmp_path / "broken")
    detect, last = ExportedNetwork.detect, -1
    asked: list[int] = []

    def counting(network: ExportedNetwork, pixels: npt.NDArray[np.uint8]) -> Detection:
        if len(asked) == last:
            raise KeyboardInterrupt
        asked.append(1)
        return detect(network, pixels)

    monkeypatch.setattr(ExportedNetwork, "detect", counting)
    expected = manifest_of(whole, quantized_object(whole, shards(whole)))
    undisturbed = len(asked)
    assert not whole.list("checkpoints")
    monkeypatch.setattr(pieces, "PERIOD_S", 0.0)
    last = undisturbed + undisturbed - 5  # among the last questions, after all of the float model's
    images = shards(broken)
    with pytest.raises(KeyboardInterrupt):
        quantized_object(broken, images)
    kept = len(broken.list("checkpoints"))
    assert kept > 12
    last, before = -1, len(asked)
    assert manifest_of(broken, quantized_object(broken, images)).content == expected.content
    assert len(asked) - before == undisturbed - kept - 1  # the self-test of the export, which is finished
    assert not broken.list("checkpoints")


def test_a_network_that_this_machine_computes_otherwise_than_exactly_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    exact = quantized_graph.with_unsigned_weights

    def other(model: bytes) -> bytes:
        parsed = onnx.load_from_string(exact(model))
        bias = next(one for one in parsed.graph.initializer if one.name == "head.0.bias")
        bias.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(bias) + np.array([0, 0.01, 0], np.float32), bias.name)
        )
        return serialised(parsed)

    monkeypatch.setattr(quantization, "with_unsigned_weights", other)
    with pytest.raises(WrongAnswers, match="computes other answers"):
        quantized_object(store, shards(store))


@pytest.mark.parametrize("head", ["v1", "v2", "v3"])
def test_unsigned_weights_are_the_same_numbers(head: str) -> None:
    model = quantize(build_graph(network(head, width=0.1, side=32)), CALIBRATION)
    signed, unsigned = constants(model), constants(quantized_graph.with_unsigned_weights(model))
    assert not [name for name, values in unsigned.items() if values.dtype == np.int8]

    def levels(stored: dict[str, Values], name: str) -> Values:
        zero: Values = stored[name.removesuffix("quantized") + "zero"].astype(int)
        difference: Values = stored[name].astype(int).T - zero
        return difference

    weights = [name for name in signed if name.endswith("weight.quantized")]
    assert len(weights) > 50
    for name in weights:
        assert np.array_equal(levels(signed, name), levels(unsigned, name))


def test_only_train_pictures_decide_the_ranges(tmp_path: Path) -> None:
    def images(store: LocalStore, place: str) -> tuple[Ref, ...]:
        """All pictures of `place` are others than usual."""
        places = ["train"] * 6 + ["val"] * 4 + ["test"] * 2
        return tuple(
            shard(store, [row(source, n + 500 * (at == place), at) for n, at in enumerate(places)], f"{source}-{place}")
            for source in ("coco", "gan", "stable")
        )

    store = LocalStore(tmp_path)
    made = {place: quantized_object(store, images(store, place)) for place in ("none", "val", "test", "train")}
    models = {place: read_part(store, ref, MODEL) for place, ref in made.items()}
    assert models["val"] == models["none"] == models["test"]
    assert models["train"] != models["none"]


def test_recentred_logits_have_the_mean_of_the_models_own() -> None:
    model = build_graph(network())
    quantized = quantize(model, CALIBRATION)
    mended = recentred(quantized, model, CALIBRATION)

    def mean(made: bytes) -> Any:
        return np.mean([ExportedNetwork(made).detect(pixels).logits for pixels in CALIBRATION], axis=0)

    assert not np.allclose(mean(quantized), mean(model), atol=1e-5)
    np.testing.assert_allclose(mean(mended), mean(model), atol=1e-5)
    before, after = constants(quantized), constants(mended)
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["head.0.bias"]


@pytest.mark.parametrize(("wrong_now", "right_now", "lost"), [(4, 1, 0.0), (10, 2, 4.0), (2, 10, 0.0), (0, 0, 0.0)])
def test_a_loss_that_chance_explains_keeps_nothing_in_float(wrong_now: int, right_now: int, lost: float) -> None:
    before = np.zeros(200, dtype=bool)
    after = np.zeros(200, dtype=bool)
    before[:wrong_now] = True
    after[wrong_now : wrong_now + right_now] = True
    check = Check(before, after, np.zeros(200, dtype=np.int64))
    assert check.points_lost_beyond_chance == pytest.approx(lost)
    assert check.points_lost == pytest.approx((wrong_now - right_now) / 2)
