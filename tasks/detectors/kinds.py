"""All kinds of detectors that an experiment may name: one file each, and a line here."""

from tasks.detectors.base import KINDS
from tasks.detectors.hub import Hub
from tasks.detectors.linear import Linear
from tasks.detectors.onnx_file import OnnxFile
from tasks.detectors.python_function import PythonFunction
from tasks.detectors.scores_table import ScoresTable

KINDS["linear"] = Linear
KINDS["onnx"] = OnnxFile
KINDS["hub"] = Hub
KINDS["callable"] = PythonFunction
KINDS["scores"] = ScoresTable
