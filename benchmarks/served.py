"""A telltale that is served, for whoever measures one: started and stopped, and asked to run a deployment."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def bootstrap(command: str, within_s: float = 900.0) -> None:
    """`make serve`, `make stop`."""
    program = [sys.executable, "-m", "deployments.bootstrap", command]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, timeout=max(within_s, 1.0))


def api_url() -> str:
    """Where the server answers that `bootstrap` started."""
    from deployments.home_folder import home, load_state

    return f"http://127.0.0.1:{load_state(home()).port}/api"


def run_deployment(
    name: str,
    parameters: Mapping[str, Any],
    within_s: float = math.inf,
    look: Callable[[], None] = lambda: None,
) -> tuple[str, str]:
    """Run a deployment on pools; its run's id, and how it ended. It is cancelled when its time is over.

    `look` is called about once a second meanwhile.
    """
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment as start
    from prefect.states import Cancelling

    deadline = time.monotonic() + within_s
    run: Any = start(name, parameters={**parameters, "dispatch": "pools"}, timeout=0)
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            look()
            state = client.read_flow_run(run.id).state
            if state is not None and state.is_final():
                return str(run.id), state.type.value
            time.sleep(1.0)
        client.set_flow_run_state(run.id, Cancelling(message="its time is over"))
    return str(run.id), f"not finished within {within_s:.0f} s"
