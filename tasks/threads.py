"""The one place that decides how many threads a process computes with."""

import os

THREADS_SETTING = "TELLTALE_THREADS"


def limit_threads() -> None:
    """Give torch one thread per task, so that parallel tasks do not multiply thread pools.

    Floating-point sums depend on the number of threads, so results are only identical with this fixed.
    """
    import torch

    torch.set_num_threads(1)


def parallel_tasks() -> int:
    """How many tasks a flow computes at once (`TELLTALE_THREADS`, default the number of usable cores)."""
    configured = os.environ.get(THREADS_SETTING)
    return max(1, int(configured) if configured else len(os.sched_getaffinity(0)))
