"""What a log gets to see of progress: a line now and then."""

from __future__ import annotations

import io

from rich.console import Console

from deployments.terminal import Lines
from tasks.progress import Progress, show_on


def test_a_line_every_ten_seconds_says_what_is_done() -> None:
    now = [0.0]
    output = io.StringIO()
    stop_showing = show_on(Lines(Console(file=output, width=40), clock=lambda: now[0]))
    try:
        for name in ("embed [a]", "embed [b]"):
            progress = Progress(name, 20, clock=lambda: now[0])
            for _ in range(20):
                now[0] += 1.0
                progress.advance()
    finally:
        stop_showing()
    lines = output.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("0 tasks done; embed [a]: 10 of 20 pictures, 1.0 per second, 0:00:10 left")
    assert lines[1].startswith("1 tasks done; embed [a]: 20 of 20 pictures")
    assert lines[3].startswith("2 tasks done; embed [b]: 20 of 20 pictures")
