"""The task runner of every flow."""

from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from tasks.threads import parallel_tasks


def tasks_side_by_side() -> Any:
    """Threads for as many tasks at once as this process may compute with: torch and NumPy release the interpreter."""
    return ThreadPoolTaskRunner(max_workers=parallel_tasks())
