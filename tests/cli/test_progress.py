"""Progress with the time that remains: lines where there is no terminal, a bar in one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sam3d_label.cli.progress import bar, duration, steps


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_lines_report_the_remaining_time() -> None:
    out, clock = io.StringIO(), Clock()
    with bar(Console(file=out), clock) as show:
        for done in range(11):
            show(f"case [{done}]", done, 10)
            clock.now += 20
    assert out.getvalue().splitlines() == [
        "case [2]: 2 of 10, about 3 min left",
        "case [4]: 4 of 10, about 2 min left",
        "case [6]: 6 of 10, about 80 s left",
        "case [8]: 8 of 10, about 40 s left",
    ]


def test_what_was_done_before_does_not_count_as_fast() -> None:
    out, clock = io.StringIO(), Clock()
    with bar(Console(file=out), clock) as show:
        show("epoch 10/20", 900, 2000)
        clock.now = 60
        show("epoch 10/20", 910, 2000)
    assert out.getvalue() == "epoch 10/20: 910 of 2000, about 1 h 49 min left\n"


def test_a_quick_command_and_a_quiet_console_print_nothing() -> None:
    out, clock = io.StringIO(), Clock()
    for console, step in ((Console(file=out), 0.1), (Console(file=out, quiet=True), 100.0)):
        with bar(console, clock) as show:
            for done in range(5):
                show("case", done, 5)
                clock.now += step
    assert out.getvalue() == ""


def test_a_terminal_shows_a_bar_and_removes_it() -> None:
    out = io.StringIO()
    with bar(Console(file=out, force_terminal=True, width=100)) as show:
        show("case [a]", 3, 10)
    assert "case [a]" in out.getvalue()
    assert "3/10" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (99, "99 s"), (120, "2 min"), (7500, "2 h 05 min")])
def test_durations_are_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_steps_are_lines_without_a_terminal_and_a_spinner_in_one() -> None:
    lines, spinner, nothing = io.StringIO(), io.StringIO(), io.StringIO()
    consoles = Console(file=lines), Console(file=spinner, force_terminal=True, width=100)
    for console in (*consoles, Console(file=nothing, quiet=True)):
        with steps(console, "Reading [a] …") as say:
            say("Loading [b] …")
            say("Segmenting [c] …")
    assert lines.getvalue() == "Loading [b] …\nSegmenting [c] …\n"
    assert "Segmenting [c] …" in spinner.getvalue()
    assert nothing.getvalue() == ""
