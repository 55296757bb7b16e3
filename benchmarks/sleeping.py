"""Elements that only sleep: the flow that lanes run while `benchmarks.served_pools` measures what lanes cost."""

import time

from flows import work as lanes
from tasks.recipe import Output, StepRun, step


@step("bench/sleep", version=1, label=lambda *, number, **_: f"{number // 1000:06d}", pool="gpu")
def sleep(run: StepRun, *, number: int, seconds: float) -> Output:
    """Take so many seconds of nobody's time."""
    time.sleep(seconds)
    return Output({"data.txt": str(number).encode()})


work = lanes.work
