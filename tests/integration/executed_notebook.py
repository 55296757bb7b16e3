"""A notebook of docs, executed from top to bottom in folders of its own.

`python -m tests.integration.executed_notebook docs/two-folders.ipynb` writes what it shows into the file.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(notebook: Path, temporary: Path, home: Path) -> Any:
    """The notebook with its outputs; a cell that fails raises.

    Args:
        notebook: the file, which stays as it is.
        temporary: what the notebook finds as the system's temporary folder.
        home: the home folder of whatever it starts.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TELLTALE_"))}
    environment = {**kept, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    document = nbformat.read(notebook, as_version=4)
    client = NotebookClient(document, timeout=600, record_timing=False, coalesce_streams=True)
    client.execute(env=environment, cwd=str(temporary))
    # An editor's own name of its kernel is no part of it.
    document.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return document


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        # The folder that readers have, since paths are shown.
        nbformat.write(executed(Path(name), Path("/tmp"), Path(home)), name)
