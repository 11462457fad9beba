"""A bar that shows how far something is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


@contextmanager
def bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a console, which goes when the block ends; nothing where the console is no terminal.

    Yields:
        What shows progress: called with (what is at work, how many are done, how many there are).
    """
    with Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=what.replace("[", r"\["), completed=done, total=total)

        yield show
