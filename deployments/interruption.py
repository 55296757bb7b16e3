"""Ctrl-C during a command that works for minutes: the first one stops it in order, another one at once."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import typer

# As a shell reports a program that Ctrl-C ended.
INTERRUPTED = 130
SAID = "interrupted: started again it goes on where it stopped"
_SHOW_CURSOR = b"\x1b[?25h"


@dataclass
class Interruption:
    """What Ctrl-C says: whoever comes to know more, such as what goes on without this process, changes it."""

    said: str = SAID

    def stop_in_order(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C: what is computed right now comes to its end."""
        signal.signal(signal.SIGINT, self.stop_at_once)
        raise KeyboardInterrupt

    def stop_at_once(self, number: int, frame: FrameType | None) -> None:
        """The second one."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR)  # progress bars hide it
            os.write(sys.stderr.fileno(), f"{self.said}\n".encode())
        finally:
            _end(number, frame)


@contextmanager
def stops_at_ctrl_c() -> Iterator[Interruption]:
    """Within this block Ctrl-C ends the process with status 130 and one sentence, however often it is pressed.

    The first one lets what is computed right now come to its end, which may take long; whoever presses it again does
    not want to wait. What is not finished is made again at the next start either way.
    """
    stopped = Interruption()
    usual = signal.signal(signal.SIGINT, stopped.stop_in_order)
    try:
        yield stopped
    except BaseException:
        if signal.getsignal(signal.SIGINT) == stopped.stop_in_order:
            signal.signal(signal.SIGINT, usual)
            raise
        # Whatever it is, it came of the interruption: libraries have errors of their own for what they had to leave.
        # It is said once, and whole: from here on another Ctrl-C only ends the process.
        again: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: again.append(number))
        typer.echo(stopped.said, err=True)
        signal.signal(signal.SIGINT, _end)
        if again:
            _end(signal.SIGINT, None)
        # The interpreter, as it ends, would give the signal its first meaning back, which is another status.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        raise typer.Exit(INTERRUPTED) from None
    signal.signal(signal.SIGINT, usual)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
