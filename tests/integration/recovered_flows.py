"""A flow that runs until it is told to end, for tests that kill it."""

import os
import time
from pathlib import Path

from prefect import flow


@flow(name="until-told", flow_run_name="until told", persist_result=False)
def until_told(folder: str) -> None:
    """Say that it runs, by its process id, and go on until there is a file `end`.

    Args:
        folder: where both happens.
    """
    place = Path(folder)
    (place / f"{os.getpid()}.pid").touch()
    while not (place / "end").exists():
        time.sleep(0.2)
