"""All kinds of detectors that an experiment may name: one file each, and a line here."""

from tasks.detectors.base import KINDS
from tasks.detectors.hub import Hub
from tasks.detectors.linear import Linear
from tasks.detectors.onnx_file import OnnxFile

KINDS["linear"] = Linear
KINDS["onnx"] = OnnxFile
KINDS["hub"] = Hub
