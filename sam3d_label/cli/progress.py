"""Progress of a long command: a spinner, or a bar with the time that remains, in a terminal; lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sam3d_label.weights.locations import DEFAULT

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
LINE_SECONDS = 30.0
"""Seconds between two lines of progress where there is no terminal, such as in a log file."""

Show = Callable[[str, int, int], None]
"""Shows progress: called with the current item, the number that are done and the number of all."""


Say = Callable[[str], None]
"""Shows the current step of a command."""


def stderr() -> Console:
    """Return standard error as a console; in all but the main process of torchrun it shows nothing."""
    return Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


@contextmanager
def steps(console: Console, first: str = "") -> Iterator[Say]:
    """Show the current step of a command until the block ends.

    On a terminal it is shown next to a spinner, which is then removed, otherwise as lines.

    Args:
        console: The console; a quiet one shows nothing.
        first: The first step; for steps that rarely take long and are not printed otherwise.

    Yields:
        A function to call with each further step, before the imports that it needs.
    """
    if not console.is_terminal:
        yield lambda step: console.print(step, highlight=False, markup=False, soft_wrap=True)
        return
    with console.status(escape(first)) as status:
        yield lambda step: status.update(escape(step))


def loading(weights: str | None) -> str:
    """Return the step of opening weights, with torch."""
    return f"Loading the weights {weights or DEFAULT} …"


@contextmanager
def bar(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Show progress on a console until the block ends: as a bar that is then removed, or as lines without a terminal.

    Args:
        console: Where to; a quiet one shows nothing.
        clock: Seconds; lets tests pass time.

    Yields:
        The function to call with progress.
    """
    if not console.is_terminal:
        yield _Lines(console, clock)
        return
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def show(item: str, done: int, total: int) -> None:
            progress.update(task, description=item.replace("[", r"\["), completed=done, total=total)

        yield show


class _Lines:
    """Prints a line of progress from time to time.

    Args:
        console: Where to.
        clock: Seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._first: tuple[float, int] | None = None
        self._printed = clock()

    def __call__(self, item: str, done: int, total: int) -> None:
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
        started, before = self._first
        if now - self._printed < LINE_SECONDS or done >= total or done <= before:
            return
        self._printed = now
        left = (now - started) / (done - before) * (total - done)
        line = f"{item}: {done} of {total}, about {duration(left)} left"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
