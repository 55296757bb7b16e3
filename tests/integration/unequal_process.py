"""One evaluation in a process whose conditions its arguments decide: cores, heap, and what ran in it before.

    python -m tests.integration.unequal_process OVERRIDES CORES GARBAGE

GARBAGE is 0 for a process that nothing ran in before, else the seed of what its heap is filled with.
"""

import json
import os
import random
import sys
from typing import Any


def fill_heap(seed: int) -> list[Any]:
    """Things of random sizes, every second of which is gone again: what is made next lies in the gaps."""
    drawn = random.Random(seed)
    things: list[Any] = [bytearray(drawn.randrange(1, 900)) for _ in range(drawn.randrange(50_000, 100_000))]
    drawn.shuffle(things)
    del things[::2]
    return things


def run_neighbours() -> None:
    """What another program in this process would leave behind: random states, thread counts, loaded libraries."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    torch.set_num_threads(3)
    first, second = threadpool_limits(limits=3), threadpool_limits(limits=2)
    first.restore_original_limits()
    second.restore_original_limits()
    torch.nn.Conv2d(3, 8, 3)(torch.rand(16, 3, 32, 32)).sum().backward()


def main(overrides: str, cores: str, garbage: str) -> None:
    """Evaluate the sample with these overrides."""
    os.sched_setaffinity(0, json.loads(cores))
    kept = fill_heap(int(garbage)) if int(garbage) else []
    if kept:
        os.umask(0o077)
        run_neighbours()
    from flows.evaluate import evaluate_all

    evaluate_all(experiment="sample", overrides=json.loads(overrides), seed=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
