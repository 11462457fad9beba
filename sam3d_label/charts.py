"""One style for every chart: size, grid, spines, colours, legend. Importing this module does not import matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEAL, AMBER, INDIGO, ROSE, SLATE = "#0f766e", "#b45309", "#6366f1", "#be123c", "#64748b"
"""Colours of lines; the first is for what a chart is about, the last for what it is compared with."""

SIZES = {1: (7.0, 4.4), 2: (10.0, 4.4)}
"""Width and height in inches, by the number of panels."""


def new_chart(panels: int = 1, *, sharey: bool = False, grid: str = "y") -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, from left to right.

    Args:
        panels: 1 or 2.
        sharey: Whether the panels share their y axis.
        grid: Axes with grid lines: x, y or both.
    """
    from matplotlib.figure import Figure  # takes a second

    figure = Figure(figsize=SIZES[panels], dpi=150, layout="constrained")
    drawn = list(figure.subplots(1, panels, sharey=sharey, squeeze=False)[0])
    for axes in drawn:
        axes.grid(axis=grid, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, drawn


def plot_mean(
    axes: Axes,
    at: ArrayLike,
    mean: ArrayLike,
    interval: tuple[ArrayLike, ArrayLike],
    *,
    color: str,
    label: str,
    marker: str | None = None,
) -> None:
    """Draw a mean as a line over the band of its interval (low, high), with a marker at each point if one is given."""
    axes.fill_between(at, *interval, color=color, alpha=0.15, linewidth=0)
    axes.plot(at, mean, color=color, linewidth=2, label=label, marker=marker, markersize=4)


def set_title(axes: Axes, title: str) -> None:
    """Write a title as plain text: `$` in the name of a case starts no formula."""
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)


def add_legend(axes: Axes) -> None:
    """Add the legend of the labelled lines."""
    axes.legend(loc="lower right", frameon=False, fontsize=9)
