"""ONNX Runtime sessions: how a model is opened, telltale's own or somebody else's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from storage.errors import DamagedObject, SpecError

# ONNX Runtime's option for exact sums of 8-bit products, at the cost of speed.
EXACT_SUMS = "session.x64quantprecision"

# A model of one node: `c` = `a` (uint8, 1 x 4) times `b` (int8, 4 x 1), in 32 bits.
SUM_OF_BYTES = (
    b'\x08\x08:\\\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01gZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08'
    b"\x01\n\x02\x08\x04Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08\x04\n\x02\x08\x01b\x13\n\x01c\x12\x0e\n\x0c\x08\x06"
    b"\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def open_session(model: bytes, name: str = "model.onnx") -> Any:
    """An ONNX Runtime session on the CPU, with one thread, whose sums of 8-bit products are exact.

    Args:
        model: the bytes of an ONNX file.
        name: what errors call it.

    Raises:
        DamagedObject: the bytes are no ONNX model that can be run.
        SpecError: the model has tensors in other files, which would be read from the working directory or above it.
    """
    _refuse_external_tensors(model, name)
    exact_sums = sums_saturate()
    try:
        return _session(model, exact_sums=exact_sums)
    except Exception as error:  # ONNX Runtime has one exception class per status and no root but Exception
        how = f", with {EXACT_SUMS} as this processor needs it" if exact_sums else ""
        raise DamagedObject(f"{name} cannot be opened as an ONNX model{how}: {error}") from error


@functools.cache
def sums_saturate() -> bool:
    """Whether ONNX Runtime, left to itself, gets sums of unsigned times signed bytes wrong on this processor.

    On x86-64 without VNNI its kernels add two such products in 16 signed bits, which hold 32,767 at most. What decides
    is therefore the largest sum, not what a processor says of itself. (With `EXACT_SUMS` weights become unsigned, for
    which there are kernels without this. It is not for all: with VNNI a network takes nearly twice its time by it.)
    """
    session = _session(SUM_OF_BYTES, exact_sums=False)
    (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8), "b": np.full((4, 1), 127, np.int8)})
    return int(found[0, 0]) != 4 * 255 * 127


def _session(model: bytes, *, exact_sums: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread, and always the same fusions: a sum's order decides its last bits.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    if exact_sums:
        options.add_session_config_entry(EXACT_SUMS, "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _refuse_external_tensors(model: bytes, name: str) -> None:
    # Whatever a tensor says of its file, it says under this key, and strings stand in one piece: most models need no
    # parsing, and a whole import, to be told apart.
    if b"location" not in model:
        return
    import onnx

    try:
        parsed = onnx.load_from_string(model)
    except Exception as error:  # protobuf's own DecodeError, of one of its several implementations
        raise DamagedObject(f"{name} cannot be opened as an ONNX model: {error}") from error
    pending = [parsed]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto) and message.external_data:
            raise SpecError(f"{name}: expected all tensors in the file itself, got {message.name!r} in another file")
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += value if field.is_repeated else [value]
