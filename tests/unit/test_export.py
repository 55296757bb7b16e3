import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from storage.digest import sha256_hex
from storage.errors import BadImage, DamagedObject, SpecError, WrongAnswers
from storage.local import LocalStore
from storage.objects import Ref, commit, read_part
from tasks.data.resizing import sides_within
from tasks.device import processor_name
from tasks.networks.architecture import architecture
from tasks.networks.export import export_network, network_card, reference_picture
from tasks.networks.exported import CARD, LONGEST_SIDE, MODEL, ExportedNetwork, reduce_picture
from tasks.networks.familiarity import Familiarity, familiarity_scores
from tasks.networks.network_graph import build_graph, head_layers
from tasks.networks.trained import TrainedNetwork
from tasks.onnx_sessions import open_session
from tasks.spec.detectors import Fit

CLASSES = ("real", "gan", "stable")
SIZES = [(48, 64), (64, 64), (65, 64), (63, 90), (127, 301), (400, 129), (16, 1024), (1024, 20), (16, 16), (517, 511)]


def network(head: str = "v3", width: float = 0.1, side: int = 64, seed: int = 0, scale: float = 1.0) -> TrainedNetwork:
    from tasks.networks.mobilenet_network import MobileNet, initialise, network_tensors

    shape = architecture(width, head, len(CLASSES), side)
    module = MobileNet(shape)
    initialise(module, seed)
    random = np.random.default_rng(seed)
    tensors = network_tensors(module)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensor += random.normal(scale=0.1, size=tensor.shape).astype(np.float32)
        if name.startswith("head."):
            tensor *= scale
    familiarity = Familiarity(
        random.random(shape.last, dtype=np.float32),
        random.normal(scale=0.1, size=(shape.last, 8)).astype(np.float32),
        random.normal(size=(len(CLASSES), 8)).astype(np.float32),
    )
    return TrainedNetwork(shape, tensors, CLASSES, 1.7, familiarity, {"spec": {"name": "dense"}})


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.integers(-20, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def by_torch(trained: TrainedNetwork, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (D,), logits (k,) and probabilities (k,)."""
    import torch

    from tasks.networks.mobilenet_network import load_network, prepare_picture

    module = load_network(trained.shape, trained.tensors)
    with torch.inference_mode():
        features = module.pooled(prepare_picture(pixels, trained.shape.side)[None])
        logits = module.head(features)[0]
    return features[0].numpy(), logits.numpy(), torch.softmax(logits / trained.temperature, 0).numpy()


def committed(store: LocalStore, trained: TrainedNetwork) -> Ref:
    return commit(store, "objects/train/dense", step="train", digest="dense", recipe={}, parts=trained.parts())


@pytest.mark.parametrize("head", ["v1", "v2", "v3"])
def test_probabilities_are_those_of_the_torch_module(head: str) -> None:
    trained = network(head)
    exported = ExportedNetwork(build_graph(trained))
    for height, width in SIZES:
        pixels = picture(height, width)
        found = exported.detect(pixels)
        _, logits, probabilities = by_torch(trained, pixels)
        assert found.logits == pytest.approx(logits, abs=1e-3)
        assert np.abs(found.probabilities - probabilities).max() <= 1e-4


@pytest.mark.parametrize("side", [33, 37, 50, 96])
def test_any_side_of_the_network_is_resized_to(side: int) -> None:
    trained = network(side=side)
    exported = ExportedNetwork(build_graph(trained))
    for height, width in ((side, side), (side + 1, 2 * side), (40, 39), (700, 333)):
        pixels = picture(height, width)
        assert np.abs(exported.detect(pixels).probabilities - by_torch(trained, pixels)[2]).max() <= 1e-4


@pytest.mark.parametrize("head", ["v1", "v2", "v3"])
def test_the_mean_activation_of_a_class_is_its_logit_but_for_a_bias(head: str) -> None:
    trained = network(head, side=96)
    pixels = picture(120, 100)
    found = ExportedNetwork(build_graph(trained)).detect(pixels)
    features, _, _ = by_torch(trained, pixels)
    assert found.activation.shape == (3, 3, 3)
    assert found.activation.mean(axis=(1, 2)) + bias_at(trained, features) == pytest.approx(found.logits, abs=1e-4)


def bias_at(trained: TrainedNetwork, features: np.ndarray) -> np.ndarray:
    """The head's value at zero features, with the hidden units passing that pass at `features`."""
    values, at_zero = features.astype(np.float64), np.zeros(len(features))
    names = head_layers(trained.shape)
    for name in names:
        weight, bias = (trained.tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        values, at_zero = weight @ values + bias, weight @ at_zero + bias
        if name != names[-1]:
            values, at_zero = np.where(values > 0, values, 0), np.where(values > 0, at_zero, 0)
    return at_zero


def test_some_hidden_units_pass_and_some_do_not() -> None:
    trained = network("v1", side=96)
    features, _, _ = by_torch(trained, picture(120, 100))
    hidden = trained.tensors["head.0.weight"] @ features + trained.tensors["head.0.bias"]
    assert 0.1 < np.mean(hidden > 0) < 0.9


def test_familiarity_is_that_of_the_rejection() -> None:
    trained = network("v2")
    pixels = picture(90, 70)
    features, logits, _ = by_torch(trained, pixels)
    expected = familiarity_scores(logits[None], features[None], trained.familiarity, trained.temperature)[0]
    assert ExportedNetwork(build_graph(trained)).detect(pixels).familiarity == pytest.approx(expected, rel=1e-4)


def test_large_logits_do_not_overflow() -> None:
    found = ExportedNetwork(build_graph(network(scale=1000.0))).detect(picture(64, 64))
    assert np.abs(found.logits).max() > 100
    assert np.isfinite(found.familiarity).all()
    assert found.familiarity[1] == pytest.approx(np.logaddexp.reduce(found.logits.astype(np.float64)), rel=1e-5)


def test_equal_networks_give_equal_bytes() -> None:
    assert build_graph(network()) == build_graph(network())


def test_layers_have_the_torch_module_s_names_and_the_file_says_what_it_is() -> None:
    model = onnx.load_from_string(build_graph(network("v2")))
    names = {node.name for node in model.graph.node}
    assert {"stages.0.stem.convolution", "stages.4.depthwise.activation", "stages.3.residual", "head.2"} <= names
    properties = {one.key: one.value for one in model.metadata_props}
    assert json.loads(properties.pop("classes")) == list(CLASSES)
    assert properties == {"kind": "telltale-detector", "temperature": "1.7", "side": "64"}


def test_tensors_of_another_network_are_refused() -> None:
    whole = network()
    tensors = {**whole.tensors, "head.0.weight": np.zeros((3, 7), dtype=np.float32)}
    trained = dataclasses.replace(whole, tensors=tensors)
    with pytest.raises(SpecError, match=r"head.0.weight: expected \(3, 1280\), got \(3, 7\)"):
        build_graph(trained)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((64, 64, 3), dtype=np.float32), "not-rgb"),
        (np.zeros((64, 64), dtype=np.uint8), "not-rgb"),
        (np.zeros((64, 64, 4), dtype=np.uint8), "not-rgb"),
        (np.zeros((0, 64, 3), dtype=np.uint8), "not-rgb"),
        (np.zeros((1, 3000, 3), dtype=np.uint8), "too-narrow"),
        (np.zeros((3000, 1, 3), dtype=np.uint8), "too-narrow"),
        (np.zeros((15, 64, 3), dtype=np.uint8), "too-narrow"),
        # Reduced to 1024 pixels it has seven in the other side.
        (np.zeros((20, 3000, 3), dtype=np.uint8), "too-narrow"),
    ],
)
def test_a_picture_that_the_graph_cannot_judge_is_refused(pixels: np.ndarray, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        ExportedNetwork(build_graph(network())).detect(pixels)
    assert caught.value.reason == reason


def test_a_damaged_file_is_refused() -> None:
    model = build_graph(network())
    for damaged in (b"", b"text", model[: len(model) // 2]):
        with pytest.raises(DamagedObject, match="cannot be opened"):
            ExportedNetwork(damaged)
    with pytest.raises(DamagedObject, match="not the network of its card"):
        ExportedNetwork(model, {"sha256": sha256_hex(b"other"), "classes": list(CLASSES)})


def test_a_model_of_another_kind_is_refused() -> None:
    from onnx import TensorProto, helper

    sides = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]), helper.make_tensor_value_info("y", 1, [1])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "other", [sides[0]], [sides[1]])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(SpecError, match="another kind"):
        ExportedNetwork(model.SerializeToString())


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["secret.bin", "../here/secret.bin", "/etc/hostname"])
def test_a_model_that_would_read_other_files_is_refused(
    place: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime looks for them from the working directory, and above it."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(folder)
    with pytest.raises(SpecError, match="in another file"):
        open_session(model_with_external_tensor(location, place))


def model_with_external_tensor(location: str, place: str) -> bytes:
    """A model whose tensor of four numbers lies in another file."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    constant = helper.make_node("Constant", [], ["secret"])
    attribute = constant.attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [4])
    copied = helper.make_node("Identity", ["secret"], ["found"])
    initializers = [tensor] if place == "initializer" else []
    nodes = [copied] if place == "initializer" else [constant, copied]
    if place == "branch":
        branch = helper.make_graph(nodes, "branch", [], [found])
        always = helper.make_node(
            "Constant", [], ["always"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])
        )
        nodes = [always, helper.make_node("If", ["always"], ["found"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "graph", [], [found], initializers)
    serialised: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return serialised


def test_a_model_that_only_mentions_a_location_is_none_of_these() -> None:
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("location", TensorProto.FLOAT, [1])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["location"], ["found"])], "graph", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert open_session(model.SerializeToString()).get_inputs()[0].name == "location"
    with pytest.raises(DamagedObject):
        open_session(b"a location and nothing more")


def test_a_card_with_other_classes_is_refused() -> None:
    model = build_graph(network())
    card = {"sha256": sha256_hex(model), "classes": ["real", "gan", "midjourney"]}
    with pytest.raises(SpecError, match="not the card's"):
        ExportedNetwork(model, card)


def test_a_larger_picture_is_reduced_first() -> None:
    exported = ExportedNetwork(build_graph(network()))
    pixels = picture(700, 1500)
    reduced = reduce_picture(pixels)
    assert reduced.shape == (478, 1024, 3)
    assert exported.detect(pixels).logits.tolist() == exported.detect(reduced).logits.tolist()


def test_a_picture_within_the_limit_is_not_touched() -> None:
    pixels = picture(1024, 30)
    assert reduce_picture(pixels) is pixels


@pytest.mark.parametrize(
    ("sides", "reduced"),
    [((2048, 1024), (1024, 512)), ((1025, 1025), (1024, 1024)), ((1, 3000), (1, 1024)), ((2049, 1023), (1024, 511))],
)
def test_reduced_sides_keep_the_proportions(sides: tuple[int, int], reduced: tuple[int, int]) -> None:
    assert sides_within(*sides, LONGEST_SIDE) == reduced


@pytest.mark.parametrize(("height", "width"), [(97, 61), (64, 100), (33, 200), (200, 33), (50, 51)])
def test_a_picture_is_reduced_by_the_documented_integers(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    down, across = sides_within(height, width, 40)
    rows = np.stack([documented_kernel(row, across) for row in pixels])
    expected = np.stack([documented_kernel(column, down) for column in rows.transpose(1, 0, 2)], axis=1)
    assert np.array_equal(reduce_picture(pixels, 40), expected)


def documented_kernel(line: np.ndarray, m: int) -> np.ndarray:
    """uint8 (n, 3) to (m, 3), in integers, as `reduce_picture` says it."""
    n = len(line)
    if n == m:
        return line
    scale = n / m
    support = max(scale, 1.0)
    out = np.empty((m, 3), dtype=np.uint8)
    for i in range(m):
        centre = (i + 0.5) * scale
        first, last = max(0, math.trunc(centre - support + 0.5)), min(n, math.trunc(centre + support + 0.5))
        weights = [max(0.0, 1 - abs(j - centre + 0.5) / support) for j in range(first, last)]
        whole = [math.trunc(weight / sum(weights) * 2**22 + 0.5) for weight in weights]
        for channel in range(3):
            total = sum(weight * int(line[first + k, channel]) for k, weight in enumerate(whole))
            out[i, channel] = min(255, max(0, (2**21 + total) >> 22))
    return out


def test_the_card_says_what_the_file_is_and_how_to_test_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref, found = export_network.compute(
        store, name=Fit(detector="dense", seed=1), rotation=2, network=committed(store, network("v2"))
    )
    assert not found
    assert "/export/dense-1/2/" in ref.uri
    model, card = read_part(store, ref, MODEL), json.loads(read_part(store, ref, CARD))
    assert card["sha256"] == sha256_hex(model)
    assert card["bytes"] == len(model)
    assert card["classes"] == list(CLASSES)
    assert card["macs"] == network("v2").shape.macs
    assert card["about"] == {"spec": {"name": "dense"}}
    ExportedNetwork.load(store, ref)


@pytest.mark.parametrize("name", ["probabilities", "logits"])
@pytest.mark.parametrize("moved", [0.002, -0.002])
def test_a_network_that_answers_otherwise_than_its_card_is_refused(name: str, moved: float) -> None:
    model = build_graph(network())
    card = network_card(network(), model)
    ExportedNetwork(model, card)
    card["self_test"][name][1] += moved
    with pytest.raises(WrongAnswers) as refused:
        ExportedNetwork(model, card)
    for told in (name, "expected [", "got [", f"ONNX Runtime {onnxruntime.__version__}", processor_name(), "Use"):
        assert told in str(refused.value)


@pytest.mark.parametrize("wrong", [[], [0.5], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, float("nan")], [1.0, 0.0, float("inf")]])
@pytest.mark.parametrize("name", ["probabilities", "logits"])
def test_a_self_test_is_as_many_finite_answers_as_there_are_classes(name: str, wrong: list[float]) -> None:
    model = build_graph(network())
    card = network_card(network(), model)
    card["self_test"][name] = wrong
    with pytest.raises(SpecError, match=f"the card's self-test: expected 3 finite {name}"):
        ExportedNetwork(model, card)


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, 0.011, 1e9, float("inf"), float("nan")])
def test_a_self_test_that_lets_anything_pass_is_none(tolerance: float) -> None:
    model = build_graph(network())
    card = network_card(network(), model)
    card["self_test"]["tolerance"] = tolerance
    with pytest.raises(SpecError, match=r"expected a tolerance above 0 and at most 0\.01"):
        ExportedNetwork(model, card)


def changed_graph(change: str) -> bytes:
    """An exported network with something else at one end, or in between, and the properties of the true one."""
    from onnx import TensorProto, helper

    model = onnx.load_from_string(build_graph(network()))
    graph = model.graph
    if change.startswith("no "):
        (gone,) = [one for one in graph.output if one.name == change.removeprefix("no ")]
        graph.output.remove(gone)
    elif change == "another input":
        graph.input.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, [1]))
        graph.output.append(helper.make_tensor_value_info("mask.kept", TensorProto.UINT8, [1]))
        graph.node.append(helper.make_node("Identity", ["mask"], ["mask.kept"]))
    elif change == "input in float32, well cast":
        graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            node.input[:] = ["bytes" if name == "picture" else name for name in node.input]
        graph.node.insert(0, helper.make_node("Cast", ["picture"], ["bytes"], to=TensorProto.UINT8))
    elif change == "logits in float16":
        (output,) = [one for one in graph.output if one.name == "logits"]
        graph.output.remove(output)
        for node in graph.node:
            node.input[:] = ["logits.long" if name == "logits" else name for name in node.input]
            node.output[:] = ["logits.long" if name == "logits" else name for name in node.output]
        graph.node.append(helper.make_node("Cast", ["logits.long"], ["logits"], to=TensorProto.FLOAT16))
        graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT16, [3]))
    elif change == "probabilities of one class":
        (output,) = [one for one in graph.output if one.name == "probabilities"]
        output.type.tensor_type.ClearField("shape")
        for node in graph.node:
            node.input[:] = ["all" if name == "probabilities" else name for name in node.input]
            node.output[:] = ["all" if name == "probabilities" else name for name in node.output]
        graph.node.append(helper.make_node("ReduceMax", ["all"], ["probabilities"], keepdims=0))
    elif change == "a picture of one size":
        for side, value in zip(graph.input[0].type.tensor_type.shape.dim, (7, 9, 3), strict=True):
            side.dim_value = value
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("no logits", "none that telltale exports: expected the input picture in uint8 and the outputs logits, "),
        ("no familiarity", "none that telltale exports"),
        ("no activation", "none that telltale exports"),
        ("another input", "none that telltale exports"),
        ("input in float32, well cast", "none that telltale exports"),
        ("logits in float16", "none that telltale exports"),
        ("probabilities of one class", "expected outputs for 3 classes and 3 scores"),
        ("a picture of one size", "cannot be run"),
    ],
)
def test_a_model_with_other_ends_than_its_card_says_is_refused(change: str, told: str) -> None:
    model = changed_graph(change)
    card = network_card(network(), build_graph(network())) | {"sha256": sha256_hex(model)}
    with pytest.raises(SpecError, match=told):
        ExportedNetwork(model, card)


@pytest.mark.parametrize(
    "properties", [{}, {"classes": "real"}, {"classes": "3"}, {"temperature": "warm"}, {"side": "64.5"}]
)
def test_a_model_whose_properties_are_none_is_refused(properties: dict[str, str]) -> None:
    model = onnx.load_from_string(build_graph(network()))
    kept = {"kind": "telltale-detector"}
    if properties:
        kept = {one.key: one.value for one in model.metadata_props} | properties
    onnx.helper.set_model_props(model, kept)
    with pytest.raises(SpecError, match="expected classes, temperature and side"):
        ExportedNetwork(model.SerializeToString())


def test_a_network_that_is_sure_is_compared_by_its_logits() -> None:
    """Its probabilities stay the same where its logits are far from the card's."""
    model = build_graph(network(scale=30.0))
    card = network_card(network(scale=30.0), model)
    said = card["self_test"]
    assert max(said["probabilities"]) > 0.9999
    said["logits"][int(np.argmax(said["logits"]))] *= 1.01
    with pytest.raises(WrongAnswers, match="logits of the self-test"):
        ExportedNetwork(model, card)


def test_last_digits_of_another_processor_are_let_pass() -> None:
    model = build_graph(network())
    card = network_card(network(), model)
    for name in ("probabilities", "logits"):
        card["self_test"][name] = [value + 5e-4 for value in card["self_test"][name]]
    ExportedNetwork(model, card)


def test_the_reference_picture_has_structure_in_every_channel() -> None:
    pixels = reference_picture()
    assert pixels.shape == (48, 64, 3)
    for a, b in itertools.pairwise(range(3)):
        assert pixels[..., a].std() > 30
        assert not np.array_equal(pixels[..., a], pixels[..., b])
