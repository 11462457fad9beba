"""A click, the mask it gave and the truth, side by side in the axial slice through the click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sam3d_label.evaluation.metrics import dice
from sam3d_label.files import replacing
from sam3d_label.prompts import Click

CT_WINDOW = (-160.0, 240.0)
_BACKGROUND = "#0b1020"
_INSIDE, _OUTSIDE, _MASK, _TRUTH = "#facc15", "#f87171", "#22d3ee", "#4ade80"
_CONTEXT, _LEAST_MM = 1.9, 90.0


@dataclass(frozen=True)
class AxialSlice:
    """An axial slice as a radiologist sees it: rows front to back, columns from the patient's right to left.

    Attributes:
        image: float, shape (rows, columns).
        mask: bool, same shape.
        truth: bool, same shape.
        clicks: (row, column, positive) of the clicks in this slice.
        spacing: mm between rows and between columns.
    """

    image: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    clicks: tuple[tuple[int, int, bool], ...]
    spacing: tuple[float, float]


def draw_click(
    path: Path,
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    clicks: Sequence[Click],
) -> None:
    """Write one row of three pictures: the image with its clicks, the model's mask, the truth.

    Args:
        path: a PNG.
        image: shape (I, J, K), HU for CT or any MR unit.
        affine: 4×4, stored voxel to RAS mm.
        mask: bool, shape (I, J, K).
        truth: bool, shape (I, J, K).
        clicks: at least one; the slice is the one through the first.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    view = _zoomed(axial_slice(image, affine, mask, truth, clicks))
    low, high = window(image)
    height, width = np.multiply(view.image.shape, view.spacing)
    panel = 3.6
    figure = Figure(figsize=(3 * panel + 0.4, panel * height / width + 0.55), dpi=150, facecolor=_BACKGROUND)
    panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.03})
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.45 / figure.get_figheight())
    counted = "1 click" if len(clicks) == 1 else f"{len(clicks)} clicks"
    titles = (counted, f"mask · Dice {dice(mask, truth):.2f} in 3D", "truth")
    layers = (None, (view.mask, _MASK), (view.truth, _TRUTH))
    for axes, title, layer in zip(panels, titles, layers, strict=True):
        axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", aspect=_aspect(view))
        axes.set_title(title, color="white", fontsize=12, pad=6)
        axes.set_axis_off()
        if layer:
            _overlay(axes, *layer)
    _mark(panels[0], view, size=260)
    _mark(panels[1], view, size=70)
    with replacing(path) as beside:
        figure.savefig(beside, facecolor=_BACKGROUND)


def axial_slice(
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    clicks: Sequence[Click],
) -> AxialSlice:
    """The slice through the first click, of volumes (I, J, K) stored in any orientation."""
    to_lps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt("LPS")
    )
    axes, flips = to_lps[:, 0].astype(int), to_lps[:, 1]
    columns, rows, depth = (int(np.flatnonzero(axes == world)[0]) for world in range(3))
    at = clicks[0].ijk[depth]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)

    def oriented(volume: NDArray[Any]) -> NDArray[Any]:
        plane = np.take(volume, at, axis=depth)
        plane = plane if rows < columns else plane.T
        return plane[:: int(flips[rows]), :: int(flips[columns])]

    def place(stored: int, axis: int) -> int:
        return stored if flips[axis] > 0 else image.shape[axis] - 1 - stored

    return AxialSlice(
        image=oriented(image),
        mask=oriented(mask),
        truth=oriented(truth),
        clicks=tuple(
            (place(click.ijk[rows], rows), place(click.ijk[columns], columns), click.positive)
            for click in clicks
            if click.ijk[depth] == at
        ),
        spacing=(float(spacing[rows]), float(spacing[columns])),
    )


def window(image: NDArray[np.float32]) -> tuple[float, float]:
    """Grey values shown as black and white: soft tissue for CT (it has air), else percentiles of the body."""
    finite = image[np.isfinite(image)]
    if finite.min() < -200 and finite.max() > 100:
        return CT_WINDOW
    body = finite[finite > finite.min()]
    if body.size == 0:
        return (float(finite.min()), float(finite.min()) + 1.0)
    low, high = np.percentile(body, [1, 99.5])
    return (float(low), float(max(high, low + 1e-6)))


def _zoomed(view: AxialSlice) -> AxialSlice:
    """The part of a slice around mask, truth and clicks, square in mm where the slice is large enough."""
    seen = view.mask | view.truth
    for row, column, _ in view.clicks:
        seen = seen.copy()
        seen[row, column] = True
    hits = np.argwhere(seen)
    low, high = hits.min(axis=0), hits.max(axis=0) + 1
    side = max(_LEAST_MM, _CONTEXT * float(((high - low) * view.spacing).max()))
    size = np.minimum(np.ceil(side / np.array(view.spacing)), seen.shape).astype(int)
    start = np.clip(np.rint((low + high - size) / 2).astype(int), 0, np.array(seen.shape) - size)
    part = tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
    return AxialSlice(
        image=view.image[part],
        mask=view.mask[part],
        truth=view.truth[part],
        clicks=tuple((row - int(start[0]), column - int(start[1]), sign) for row, column, sign in view.clicks),
        spacing=view.spacing,
    )


def _aspect(view: AxialSlice) -> float:
    return view.spacing[0] / view.spacing[1]


def _overlay(axes: Any, mask: NDArray[np.bool_], colour: str) -> None:
    """A translucent fill with a sharp outline."""
    if not mask.any():
        return
    values = np.pad(mask.astype(float), 1)
    rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
    axes.contourf(columns, rows, values, levels=[0.5, 1.5], colors=[colour], alpha=0.28)
    axes.contour(columns, rows, values, levels=[0.5], colors=[colour], linewidths=1.8)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _mark(axes: Any, view: AxialSlice, size: float) -> None:
    for row, column, positive in view.clicks:
        colour = _INSIDE if positive else _OUTSIDE
        marker = "*" if positive else "X"
        axes.scatter([column], [row], marker=marker, s=size, color=colour, edgecolors="black", linewidths=0.8, zorder=5)
