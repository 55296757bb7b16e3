"""Make `import torchvision` work where its C extension does not load.

The registry's torchvision wheel is built for CUDA. Beside a CPU build of torch its extension does not load, so the
operators `nms` and `qnms` have no schema, and `import torchvision` dies when it registers their meta functions: with it
diffusers and torchmetrics' image metrics. telltale calls neither operator; defining their schemas is enough.
"""

import importlib.util
from pathlib import Path

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[object] = []


def define_missing_torchvision_schemas() -> None:
    """Define the schemas of `torchvision::nms` and `qnms`, only when the extension cannot define them itself.

    Call it before the first import of torchvision, diffusers or torchmetrics' image metrics.
    """
    import torch

    if _libraries or _extension_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    # A library's definitions live as long as the object.
    _libraries.append(library)


def _extension_loads() -> bool:
    import torch

    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return False
    for extension in Path(package.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
        except OSError:
            return False
        return hasattr(torch.ops.torchvision, "nms")
    return False
