"""Nothing that comes from data is executed: no pickle, no `eval`, no shell, no YAML that makes objects, anywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("storage", "tasks", "flows", "deployments", "benchmarks", "mobile/tools", "tests")

# Modules that make objects, and so run code, from bytes.
MODULES = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
BUILT_IN = frozenset({"eval", "exec", "compile", "__import__"})
# Functions by the end of their dotted name; `torch.load` unpickles, and so does a NumPy array of objects.
CALLS = frozenset(
    {
        *("torch.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"),
        *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "read_pickle", "to_pickle"),
        *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
        *("onnx.load", "onnx.load_model", "onnx.external_data_helper.load_external_data_for_model"),
    }
)
# Arguments that switch a precaution off.
ARGUMENTS = {"allow_pickle": True, "shell": True, "trust_remote_code": True, "weights_only": False}
# Loading weights by these names must say that it loads tensors only.
NEEDS = {"load_state_dict_from_url": ("weights_only", True), "from_pretrained": ("use_safetensors", True)}


def found_in(source: str) -> Iterator[str]:
    """What a module's source does that it must not, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: import {name}" for name in named if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in BUILT_IN or any(name == call or name.endswith(f".{call}") for call in CALLS):
                yield f"{node.lineno}: {name}"
            given = {one.arg: getattr(one.value, "value", None) for one in node.keywords}
            yield from (f"{node.lineno}: {key}={value}" for key, value in ARGUMENTS.items() if given.get(key) is value)
            argument, value = NEEDS.get(name.rsplit(".", 1)[-1], (None, None))
            if argument is not None and given.get(argument) is not value:
                yield f"{node.lineno}: {name} without {argument}={value}"


def modules() -> list[Path]:
    return sorted(
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts
    )


def test_no_module_executes_what_it_reads() -> None:
    found = {str(path.relative_to(ROOT)): list(found_in(path.read_text())) for path in modules()}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert len(found) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "pd.read_pickle(path)",
        "onnx.load(path)",
        "torch.hub.load_state_dict_from_url(url)",
        "torch.hub.load_state_dict_from_url(url, weights_only=False)",
        "Pipeline.from_pretrained(name)",
        "Pipeline.from_pretrained(name, use_safetensors=True, trust_remote_code=True)",
    ],
)
def test_each_of_these_would_be_found(source: str) -> None:
    assert list(found_in(source))


@pytest.mark.parametrize(
    "source", ["network.eval()", "re.compile(text)", "yaml.safe_load(text)", "yaml.compose(text)", "json.load(file)"]
)
def test_what_only_looks_like_it_is_not(source: str) -> None:
    assert list(found_in(source)) == []
