"""Imports point one way, and heavy libraries wait until they are used."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from benchmarks.made_up import preset
from tasks.evaluation.protocols import detectors_of
from tasks.presets import PRESETS

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


def module_imports() -> dict[str, set[str]]:
    """Which modules each module imports anywhere in it."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for layer in LAYERS for path in modules(layer)
    }
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        found[name] = named_imports(path) & paths.keys() - {name}
    return found


def named_imports(path: Path) -> set[str]:
    """The full names of what a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = module_imports()
    # A package's own file brings its parts together, and they do not ask it.
    graph = TopologicalSorter(imports)
    graph.prepare()


def test_tasks_read_nothing_of_the_layers_above_and_no_documents() -> None:
    for path in modules("tasks"):
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & {"deployments", "flows", "docs", "benchmarks", "tests"}, path


# A source may be what a generator makes, so its kinds come after the generators.
PACKAGES = (
    "data",
    "generators",
    "data.sources",
    "features",
    "detectors",
    "networks",
    "evaluation",
    "explorer",
    "report",
)


def package_of(module: str) -> str | None:
    """The innermost of the packages that a module lies in."""
    return max((name for name in PACKAGES if module.startswith(f"tasks.{name}.")), key=len, default=None)


def test_the_packages_of_tasks_need_only_those_before_them() -> None:
    for name, imports in module_imports().items():
        package = package_of(name)
        if package is not None:
            after = PACKAGES[PACKAGES.index(package) + 1 :]
            assert not {each for each in imports if package_of(each) in after}, name


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


def test_artifacts_are_written_from_one_place() -> None:
    for layer in LAYERS:
        for path in modules(layer):
            if path != ROOT / "tasks" / "artifacts.py":
                assert "prefect.artifacts" not in named_imports(path), path


def test_no_module_is_called_utils() -> None:
    assert not [path for layer in LAYERS for path in modules(layer) if "util" in path.stem]


def detectors_of_presets() -> set[str]:
    return {one.name for path in PRESETS.glob("*.yaml") for one in detectors_of(preset(path.stem))}


def test_what_shows_results_names_no_detector() -> None:
    """It would drop, or show under another's title, whatever somebody adds."""
    # The report's own table of probes has the name that presets give to theirs; `v1` to `v3` are heads as printed.
    known = detectors_of_presets() - {"probe", "v1", "v2", "v3"}
    assert {"svm", "svm-aug", "dense", "distilled-alone"} <= known
    for path in (*(ROOT / "tasks" / "report").rglob("*.py"), *modules("flows"), *modules("deployments")):
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & known, path


def test_no_identity_is_read_out_of_a_name() -> None:
    """Fits and cells are columns and fields; what a detector or a cell is called is put together, never taken apart."""
    for layer in LAYERS:
        for path in modules(layer):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    given = [one.value for one in node.args if isinstance(one, ast.Constant)]
                    taken_apart = node.func.attr in ("split", "rsplit", "partition", "rpartition", "removeprefix")
                    assert not (taken_apart and {"#", "svm@", "svm#", "-alone", "@without-"} & set(given)), path
