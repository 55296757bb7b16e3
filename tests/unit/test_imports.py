"""Imports point one way, and heavy libraries wait until they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("storage", "tasks", "flows", "deployments")
HEAVY = ("torch", "torchvision", "diffusers", "transformers", "torchmetrics", "torch_pruning", "onnx", "onnxruntime")
# Its classes need their base class; it is itself imported where it is used, as the last test below sees.
OF_CLASSES = "mobilenet_network"


def imports_of(path: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_layers_below_it(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in modules(layer):
        assert not imports_of(path, top_level=False) & above, path


def test_storage_knows_neither_prefect_nor_torch() -> None:
    for path in modules("storage"):
        assert not imports_of(path, top_level=False) & {"prefect", *HEAVY}, path


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for layer in LAYERS:
        for path in modules(layer):
            imported = imports_of(path, top_level=True) & set(HEAVY)
            assert imported == ({"torch"} if path.stem == OF_CLASSES else set()), path


def test_importing_the_flows_loads_no_heavy_library() -> None:
    code = f"import sys, flows.evaluate; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_called_utils() -> None:
    assert not [path for layer in LAYERS for path in modules(layer) if "util" in path.stem]
