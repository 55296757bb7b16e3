"""Sums of 8-bit products: where a processor's usual kernels saturate, no network is run by them.

Without VNNI, `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 signed bits. Machines with VNNI do
not show it, so what ONNX Runtime would compute elsewhere is read from the graph that it makes of a network, repeated in
numpy and, where QEMU is there, computed on a processor without VNNI.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from storage.errors import DamagedObject
from tasks import onnx_sessions
from tasks.networks.export import file_facts
from tasks.networks.exported import ExportedNetwork
from tasks.networks.network_graph import build_graph
from tasks.networks.quantized_graph import quantize, with_unsigned_weights
from tasks.onnx_sessions import EXACT_SUMS, SUM_OF_BYTES, open_session, sums_saturate
from tests.unit.network_pictures import CLASSES, picture
from tests.unit.test_quantization import CALIBRATION, constants, network

ROOT = Path(__file__).parents[2]
HEADS = ("v1", "v2", "v3")

# What multiplies bytes in a network as ONNX Runtime runs it. The option knows the first where its weights are constant;
# the second multiplies unsigned bytes only. Another operator is to be looked up in the option's list (in ONNX Runtime's
# avx2_weight_s8_to_u8.cc) before it is added here.
MULTIPLYING = {"QLinearConv", "MatMulInteger"}
NOT_MULTIPLYING = {"QuantizeLinear", "DequantizeLinear"}
INTEGER_OPERATOR = re.compile(r"Q[A-Z]|Quant|Integer|8")

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86-64 has kernels that saturate"
)


def quantized(head: str = "v3") -> bytes:
    return quantize(build_graph(network(head)), CALIBRATION)


def saturating_sums(activations: npt.NDArray[np.uint8], weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """(n, k) times (m, k) as `vpmaddubsw` adds them: products in pairs, each pair within 16 bits; (n, m)."""
    products = activations[:, None, :].astype(np.int64) * weights.astype(np.int64)  # (n, m, k)
    products = np.pad(products, ((0, 0), (0, 0), (0, products.shape[2] % 2)))
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(axis=-1)
    summed: npt.NDArray[np.int64] = pairs.clip(-(2**15), 2**15 - 1).sum(axis=-1)
    return summed


@dataclass(frozen=True, eq=False)
class Layer:
    """A pointwise convolution: weights int8 (m, k), what enters and leaves it at n places, uint8 (n, k) and (n, m).

    `zeros` of both; `bias` (m,) in units of `scale` (m,), that of the products over that of what leaves.
    """

    weights: npt.NDArray[np.int8]
    entered: npt.NDArray[np.uint8]
    left: npt.NDArray[np.int64]
    zeros: tuple[int, int]
    bias: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float64]

    def levels(self, sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What leaves the layer, (n, m), by the sums of bytes times weights."""
        centred = sums - self.zeros[0] * self.weights.astype(np.int64).sum(axis=1)
        levels: npt.NDArray[np.int64] = np.rint((centred + self.bias) * self.scale).astype(np.int64) + self.zeros[1]
        return levels.clip(0, 255)


def pointwise_layers(model: bytes) -> list[Layer]:
    """All of a quantised network's, as they are run on one picture."""
    parsed, stored = onnx.load_from_string(model), constants(model)
    quantizations = {node.input[0]: node for node in parsed.graph.node if node.op_type == "QuantizeLinear"}
    names = [node.output[0] for node in quantizations.values()]
    parsed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    run = dict(
        zip(names, open_session(parsed.SerializeToString()).run(names, {"picture": picture("gan", 100)}), strict=True)
    )
    layers = []
    for node in parsed.graph.node:
        weights = stored.get(f"{node.name}.weight.quantized")
        if weights is None or weights.shape[2:] != (1, 1):
            continue
        before, after = node.input[0].removesuffix(".dequantized"), quantizations[node.output[0]]
        scale = stored[f"{node.name}.bias.scale"].astype(np.float64) / stored[after.input[1]]
        layers.append(
            Layer(
                weights[:, :, 0, 0],
                run[f"{before}.quantized"][0].reshape(weights.shape[1], -1).T,
                run[after.output[0]][0].reshape(len(weights), -1).T.astype(np.int64),
                (int(stored[f"{before}.zero"]), int(stored[after.input[2]])),
                stored[f"{node.name}.bias.quantized"].astype(np.int64),
                scale,
            )
        )
    return layers


def as_it_is_run(model: bytes, monkeypatch: pytest.MonkeyPatch, place: Path, *, saturates: bool) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of a model which is opened on a processor whose sums saturate, or do not."""
    options_of = onnxruntime.SessionOptions

    def options() -> Any:
        made = options_of()
        made.optimized_model_filepath = str(place)
        return made

    with monkeypatch.context() as patched:
        patched.setattr(onnxruntime, "SessionOptions", options)
        patched.setattr(onnx_sessions, "sums_saturate", lambda: saturates)
        open_session(model)
    return onnx.load_from_string(place.read_bytes())


def saturating_nodes(model: onnx.ModelProto) -> list[str]:
    """Integer operators with signed weights of which two products may not fit 16 bits (2 * 255 * 64 does)."""
    stored = constants(model.SerializeToString())
    large = {
        name for name, values in stored.items() if values.dtype == np.int8 and np.abs(values.astype(int)).max() > 64
    }
    return [node.name for node in model.graph.node if node.op_type in MULTIPLYING and large & set(node.input)]


def test_sessions_are_opened_in_one_place() -> None:
    opening = "Inference" + "Session("
    folders = ("benchmarks", "deployments", "flows", "storage", "tasks", "tests")
    found = {
        file.relative_to(ROOT).as_posix(): count
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        if (count := file.read_text(encoding="utf-8").count(opening))
    }
    assert found == {"tasks/onnx_sessions.py": 1}


def test_the_question_to_a_processor_is_one_sum_of_bytes() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 4]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [4, 1]),
        ],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [1, 1])],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    assert model.SerializeToString(deterministic=True) == SUM_OF_BYTES


def test_a_processor_is_asked_by_a_sum_that_saturates(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, sums: Any) -> None:
            self.sums = sums

        def run(self, outputs: None, given: dict[str, Any]) -> list[Any]:
            return [self.sums(given["a"], given["b"].T)]

    def exact(a: Any, b: Any) -> Any:
        return a.astype(int) @ b.T.astype(int)

    for sums, saturate in ((exact, False), (saturating_sums, True)):
        monkeypatch.setattr(onnx_sessions, "_session", lambda model, exact_sums, sums=sums: Session(sums))
        assert sums_saturate.__wrapped__() is saturate


@pytest.mark.parametrize("saturate", [True, False])
def test_the_option_is_set_where_sums_saturate(monkeypatch: pytest.MonkeyPatch, saturate: bool) -> None:
    monkeypatch.setattr(onnx_sessions, "sums_saturate", lambda: saturate)
    options = open_session(build_graph(network(width=0.1, side=32))).get_session_options()
    if saturate:
        assert options.get_session_config_entry(EXACT_SUMS) == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(EXACT_SUMS)


@on_x86
@pytest.mark.parametrize("head", HEADS)
def test_no_operator_is_left_that_may_saturate(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = as_it_is_run(quantized(head), monkeypatch, tmp_path / "usual.onnx", saturates=False)
    exact = as_it_is_run(quantized(head), monkeypatch, tmp_path / "exact.onnx", saturates=True)
    assert len(saturating_nodes(usual)) > 40
    assert saturating_nodes(exact) == []


@on_x86
def test_a_head_of_signed_bytes_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads were stored so once. Where an ONNX Runtime opens them, the reason for unsigned ones is gone."""
    model = onnx.load_from_string(quantized("v1"))
    for one in model.graph.initializer:
        values = numpy_helper.to_array(one)
        if one.name.startswith("head.") and values.dtype == np.uint8:
            one.CopyFrom(numpy_helper.from_array((values.astype(int) - 128).astype(np.int8), one.name))
    monkeypatch.setattr(onnx_sessions, "sums_saturate", lambda: True)
    with pytest.raises(DamagedObject, match=f"with {EXACT_SUMS} as this processor needs it"):
        open_session(model.SerializeToString())


@pytest.mark.parametrize("saturates", [True, False])
def test_bytes_are_multiplied_by_known_operators_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    run = as_it_is_run(quantized("v1"), monkeypatch, tmp_path / "run.onnx", saturates=saturates)
    found = {node.op_type for node in run.graph.node if INTEGER_OPERATOR.search(node.op_type)}
    assert found - NOT_MULTIPLYING == MULTIPLYING
    (resize,) = (node for node in run.graph.node if node.op_type == "MatMulInteger")
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(quantized("v1")))
    types = {one.name: one.type.tensor_type.elem_type for one in inferred.graph.value_info}
    assert {types[name] for name in resize.input} == {TensorProto.UINT8}


@pytest.mark.parametrize("saturates", [True, False])
def test_every_layer_gives_what_exact_sums_and_floats_give(monkeypatch: pytest.MonkeyPatch, saturates: bool) -> None:
    """Of the bytes that enter a layer; over a whole network one byte that is rounded otherwise would become many."""
    if saturates:
        monkeypatch.setattr(onnx_sessions, "sums_saturate", lambda: True)
    layers = pointwise_layers(quantized())
    assert len(layers) == 34
    for layer in layers:
        exact = layer.entered.astype(np.int64) @ layer.weights.T.astype(np.int64)
        assert np.abs(layer.left - layer.levels(exact)).max() <= 1  # a half may be rounded either way


def test_saturated_sums_would_be_others_in_many_layers() -> None:
    """Without this the tests beside it would not tell an exact kernel from one that saturates."""
    wrong = [
        np.abs(one.left - one.levels(saturating_sums(one.entered, one.weights)))
        for one in pointwise_layers(quantized())
    ]
    assert sum(levels.max() > 1 for levels in wrong) > 15
    assert max(levels.max() for levels in wrong) > 20


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("saturates", [True, False])
def test_answers_are_those_of_unsigned_weights_bit_by_bit(
    head: str, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    model = quantized(head)
    reference = ExportedNetwork(with_unsigned_weights(model))
    if saturates:
        monkeypatch.setattr(onnx_sessions, "sums_saturate", lambda: True)
    exact = ExportedNetwork(model)
    for number in range(100, 103):
        expected, found = (one.detect(picture("gan", number)) for one in (reference, exact))
        for name in ("logits", "probabilities", "familiarity", "activation"):
            assert np.array_equal(getattr(found, name), getattr(expected, name))


def one_node(kind: str, domain: str, constants: dict[str, Any], entered: npt.NDArray[Any], **attributes: Any) -> bytes:
    """A model of one operator on `x`; constants in the order of its inputs, with `x` where it comes."""
    types = {"QLinearConv": TensorProto.UINT8}
    initializers = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items() if name != "x"]
    graph = helper.make_graph(
        [helper.make_node(kind, list(constants), ["y"], domain=domain, **attributes)],
        kind,
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(entered.dtype), entered.shape)],
        [helper.make_tensor_value_info("y", types.get(kind, TensorProto.FLOAT), None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    made: bytes = helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()
    return made


def convolution(channels: int, side: int) -> tuple[bytes, npt.NDArray[Any], float]:
    """All bytes as large as they can be, and an output scale by which the exact sum is 200."""
    entered = np.full((1, channels, side, side), 255, np.uint8)
    scale = np.float32(entered.size * 255 * 127 / 200)
    one, zero = np.float32(1), np.uint8(0)
    weights = np.full(entered.shape, 127, np.int8)
    constants = {"x": None, "xs": one, "xz": zero, "w": weights, "ws": one, "wz": np.int8(0), "ys": scale, "yz": zero}
    return one_node("QLinearConv", "", constants, entered), entered, 200


def reported() -> dict[str, tuple[bytes, npt.NDArray[Any], float]]:
    """Operators of public reports: a model, what enters, and the exact result."""
    # microsoft/onnxruntime 16105: QGemm of three bytes by (-81, -80, 127), off by 82 on AVX2.
    row, column = np.array([[210, 198, 234]], np.uint8), np.array([[-81, -80, 127]], np.int8)
    one = np.float32(1)
    gemm = {"x": None, "xs": one, "xz": np.uint8(0), "w": column, "ws": one, "wz": np.int8(0)}
    # 5849, 6004, 14642: BERT, quantised dynamically, wrong without VNNI.
    floats = np.full((1, 4), 255, np.float32)
    dynamic = {"x": None, "w": np.full((4, 1), 127, np.int8), "ws": one}
    return {
        "gemm": (one_node("QGemm", "com.microsoft", gemm, row, transB=1), row, 210 * -81 + 198 * -80 + 234 * 127),
        "dynamic": (one_node("DynamicQuantizeMatMul", "com.microsoft", dynamic, floats), floats, 4 * 255 * 127),
        # 26324: the first convolution of an int8 ShuffleNet; oneDNN 1354: a pointwise one of four channels.
        "stem": convolution(3, 3),
        "pointwise": convolution(4, 1),
    }


@pytest.mark.parametrize("saturates", [True, False])
@pytest.mark.parametrize("name", reported())
def test_operators_of_public_reports_are_exact(name: str, monkeypatch: pytest.MonkeyPatch, saturates: bool) -> None:
    if saturates:
        monkeypatch.setattr(onnx_sessions, "sums_saturate", lambda: True)
    model, entered, expected = reported()[name]
    assert open_session(model).run(None, {"x": entered})[0].item() == expected


ANSWERS = """
import json, sys
import numpy as np
from pathlib import Path
from storage.errors import WrongAnswers
from tasks import onnx_sessions
from tasks.networks.exported import ExportedNetwork
from tests.unit.network_pictures import picture

def answers(network):
    return ExportedNetwork(network.read_bytes(), json.loads(network.with_suffix(".json").read_bytes()))

def result(model):
    return onnx_sessions.open_session(model.read_bytes()).run(None, {"x": np.load(model.with_suffix(".npy"))})[0].item()

operators, networks = ([*map(Path, names.split(","))] for names in sys.argv[1:])
said = {"saturate": onnx_sessions.sums_saturate(), "results": [*map(result, operators)]}
said["logits"] = [answers(network).detect(picture("gan", 100)).logits.tolist() for network in networks]
onnx_sessions.sums_saturate = lambda: False
said["saturated"] = [*map(result, operators)]
said["refused"] = []
for network in networks:
    try:
        answers(network)
    except WrongAnswers as error:
        said["refused"].append(str(error))
print(json.dumps(said))
"""


@on_x86
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="QEMU is not installed (Debian: qemu-user)")
def test_a_processor_without_vnni_gives_the_same_answers_or_none(tmp_path: Path) -> None:
    operators = {tmp_path / f"{name}.onnx": case for name, case in reported().items()}
    for file, (model, entered, _) in operators.items():
        file.write_bytes(model)
        np.save(file.with_suffix(".npy"), entered)
    logits = {}
    for head in ("v1", "v3"):
        file, model = tmp_path / f"{head}.onnx", quantized(head)
        exact = with_unsigned_weights(model)
        file.write_bytes(model)
        file.with_suffix(".json").write_text(json.dumps({"classes": CLASSES} | file_facts(model, answering=exact)))
        logits[file] = ExportedNetwork(exact).detect(picture("gan", 100)).logits.tolist()
    files = [",".join(map(str, some)) for some in (operators, logits)]
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", ANSWERS, *files]
    said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert said["saturate"] is True
    assert said["results"] == [expected for _, _, expected in operators.values()]
    np.testing.assert_allclose(said["logits"], list(logits.values()), atol=1e-5)
    # As it was without the option: every operator wrong, and every network refused.
    assert not any(np.equal(said["saturated"], said["results"]))
    assert len(said["refused"]) == len(logits)
