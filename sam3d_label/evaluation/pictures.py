"""Masks and labels in an axial slice: of one click or a saved mask, and of the sessions with the lowest Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import Sam3dError
from sam3d_label.image.hounsfield import without_padding
from sam3d_label.image.intensity import SOFT_TISSUE, ct_offset, sample
from sam3d_label.io import replacing
from sam3d_label.masks import corners, dice
from sam3d_label.segmentation.prompts import Click

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Voxel = TypeVar("Voxel", bound=np.generic)

_BACKGROUND = "#0b1020"
_INSIDE, _OUTSIDE, _MASK, _TRUTH = "#facc15", "#f87171", "#22d3ee", "#4ade80"
_CONTEXT, _LEAST_MM = 1.9, 90.0
_NEAR_MM = 5.0


@dataclass(frozen=True)
class AxialSlice:
    """An axial slice as a radiologist sees it: rows front to back, columns from the patient's right to left.

    Attributes:
        image: float, shape (rows, columns).
        mask: bool, same shape.
        truth: bool, same shape.
        clicks: (row, column, positive) of the clicks in, or projected onto, this slice.
        spacing: mm between rows and between columns.
        name: the slice in voxels of the stored image, such as "slice k = 31", counted from 0 as clicks are.
    """

    image: NDArray[np.floating]
    mask: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    clicks: tuple[tuple[int, int, bool], ...]
    spacing: tuple[float, float]
    name: str = ""


@dataclass(frozen=True)
class Moment:
    """A session at one click count.

    Attributes:
        clicks: given so far.
        dice: of the whole volume.
        view: the slice that is drawn.
    """

    clicks: int
    dice: float
    view: AxialSlice


@dataclass(frozen=True)
class SheetRow:
    """One case of a contact sheet: the same part of the same slice at each moment.

    Attributes:
        case: its name.
        window: grey values shown as black and white.
        moments: by rising click count; at least one.
    """

    case: str
    window: tuple[float, float]
    moments: tuple[Moment, ...]


def draw_click(
    path: Path,
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    clicks: Sequence[Click],
    modality: str | None = None,
) -> None:
    """Write one row of pictures: the image with its clicks, the mask, and the truth where there is one.

    Args:
        path: a PNG.
        image: shape (I, J, K), HU for CT or any MR unit.
        affine: 4×4, stored voxel to RAS mm.
        mask: bool, shape (I, J, K).
        truth: bool, shape (I, J, K); None where it is not known.
        clicks: the slice is the one through the first; without a click, the one with most errors of the mask, or with
            most of the mask where there is no truth.
        modality: DICOM modality, where it is known.

    Raises:
        Sam3dError: there is neither a click nor a voxel in the mask or the truth.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    known = np.zeros_like(mask) if truth is None else truth
    at = None if clicks else _slice_with_most(affine, mask ^ known if (mask ^ known).any() else mask)
    whole = axial_slice(image, affine, mask, known, clicks, at=at)
    view = _cropped(whole, _part(_seen(whole), whole.spacing))
    low, high = window(image, modality)
    panel, count = 3.6, 2 if truth is None else 3
    height, width = np.multiply(view.image.shape, view.spacing)
    figure = Figure(figsize=(count * panel + 0.4, panel * height / width + 0.75), dpi=150, facecolor=_BACKGROUND)
    panels = figure.subplots(1, count, gridspec_kw={"wspace": 0.03})
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.65 / figure.get_figheight())
    millilitres = np.count_nonzero(mask) * abs(np.linalg.det(affine[:3, :3])) / 1000
    size = f"mask · {millilitres:.1f} mL in 3D"
    titles = [_counted(len(clicks)), size if truth is None else f"mask · Dice {dice(mask, truth):.2f} in 3D", "truth"]
    layers = (None, (view.mask, _MASK), (view.truth, _TRUTH))
    for axes, title, layer in zip(panels, titles, layers, strict=False):
        axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", aspect=_aspect(view))
        axes.set_title(f"{title}\n{view.name}", color="white", fontsize=11, pad=6)
        axes.set_axis_off()
        if layer:
            _outline(axes, *layer, fill=0.28, width=1.8)
    _mark(panels[0], view, size=260)
    _mark(panels[1], view, size=70)
    with replacing(path) as temporary:
        figure.savefig(temporary, facecolor=_BACKGROUND)


def axial_slice(
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    clicks: Sequence[Click],
    *,
    at: int | None = None,
    near: float = 0.0,
) -> AxialSlice:
    """Return an axial slice of volumes (I, J, K) stored in any orientation.

    Args:
        image: shape (I, J, K).
        affine: 4×4, stored voxel to RAS mm.
        mask: bool, shape (I, J, K).
        truth: bool, shape (I, J, K).
        clicks: to mark; at least one without ``at``.
        at: index of the slice (default: that of the first click).
        near: mm from the slice within which clicks are projected onto it.
    """
    (columns, rows, depth), flips = _axes(affine)
    at = clicks[0].ijk[depth] if at is None else at
    spacing = np.linalg.norm(affine[:3, :3], axis=0)

    def oriented(volume: NDArray[Voxel]) -> NDArray[Voxel]:
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
            if abs(click.ijk[depth] - at) * spacing[depth] <= near
        ),
        spacing=(float(spacing[rows]), float(spacing[columns])),
        name=f"slice {'ijk'[depth]} = {at}",
    )


def sheet_row(
    case: str,
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    truth: NDArray[np.bool_],
    masks: Mapping[int, NDArray[np.bool_]],
    clicks: Sequence[Click],
    modality: str | None = None,
) -> SheetRow:
    """Return the row of a session in a contact sheet: the axial slice with most wrong voxels of the last mask.

    Args:
        case: its name.
        image: shape (I, J, K), HU for CT or any MR unit.
        affine: 4×4, stored voxel to RAS mm.
        truth: bool, shape (I, J, K).
        masks: by click count, at least one; bool, shape (I, J, K).
        clicks: of the whole session, in order.
        modality: DICOM modality, where it is known.
    """
    counts = sorted(masks)
    wrong = masks[counts[-1]] ^ truth
    at = _slice_with_most(affine, wrong if wrong.any() else truth)
    views = [axial_slice(image, affine, masks[count], truth, clicks[:count], at=at, near=_NEAR_MM) for count in counts]
    part = _part(np.logical_or.reduce([_seen(view) for view in views]), views[0].spacing)
    moments = (
        Moment(count, dice(masks[count], truth), _cropped(view, part))
        for count, view in zip(counts, views, strict=True)
    )
    return SheetRow(case, window(image, modality), tuple(moments))


def draw_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Write a contact sheet: a panel for each moment of each case, with the outlines of mask and truth and the clicks.

    Args:
        path: a PNG.
        rows: at least one; all with as many moments. More than two cases stand in two columns.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    cases_across = 1 if len(rows) < 3 else 2
    across, down = len(rows[0].moments) * cases_across, -(-len(rows) // cases_across)
    panel, title, legend = 2.9, 0.42, 0.4
    height = down * (panel + title) + legend
    figure = Figure(figsize=(across * panel, height), dpi=110, facecolor=_BACKGROUND)
    panels = figure.subplots(down, across, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": title / panel})
    figure.subplots_adjust(left=0.01, right=0.99, bottom=legend / height, top=1 - title / height)
    for axes in panels.flat:
        axes.set_axis_off()
    drawn = [(row, moment) for row in rows for moment in row.moments]
    for axes, (row, moment) in zip(panels.flat, drawn, strict=False):
        view, (low, high) = moment.view, row.window
        axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear", aspect=_aspect(view))
        _outline(axes, view.truth, _TRUTH)
        _outline(axes, view.mask, _MASK)
        _mark(axes, view, size=70)
        caption = f"{_shown(row.case)}\n{view.name} · {_counted(moment.clicks)} · Dice {moment.dice:.2f}"
        axes.set_title(caption, color="white", fontsize=8, pad=4, parse_math=False)
    handles = [
        *(Line2D([], [], color=colour, label=name) for name, colour in (("truth", _TRUTH), ("mask", _MASK))),
        Line2D([], [], color=_INSIDE, marker="*", markersize=10, linestyle="", label="click inside"),
        Line2D([], [], color=_OUTSIDE, marker="X", markersize=8, linestyle="", label="click outside"),
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=2 * cases_across, frameon=False, fontsize=8, labelcolor="white"
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, facecolor=_BACKGROUND)


def window(image: NDArray[np.float32], modality: str | None = None) -> tuple[float, float]:
    """Return the intensities shown as black and white: soft tissue for CT, as the weights detect it, else percentiles.

    Args:
        image: any shape.
        modality: DICOM modality, where it is known.
    """
    values = sample(image[np.isfinite(image)])
    offset = ct_offset(values, modality)
    if offset is not None:
        return (SOFT_TISSUE.lower + offset, SOFT_TISSUE.upper + offset)
    values = without_padding(values)
    body = values[values > values.min()]
    if body.size == 0:
        return (float(values.min()), float(values.min()) + 1.0)
    low, high = np.percentile(body, [1, 99.5])
    return (float(low), float(max(high, low + 1e-6)))


def _axes(affine: NDArray[np.float64]) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Return the stored axes nearest to left, posterior and superior, and the direction (1, -1) of each stored axis."""
    to_lps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt("LPS")
    )
    left, posterior, superior = (int(np.flatnonzero(to_lps[:, 0] == world)[0]) for world in range(3))
    return (left, posterior, superior), to_lps[:, 1]


def _slice_with_most(affine: NDArray[np.float64], voxels: NDArray[np.bool_]) -> int:
    """Return the index of the axial slice with most of some voxels.

    Raises:
        Sam3dError: There are none.
    """
    if not voxels.any():
        raise Sam3dError("the mask is empty and no click says which slice to show: add --click I,J,K")
    (columns, rows, _), _ = _axes(affine)
    return int(np.argmax(np.count_nonzero(voxels, axis=(rows, columns))))


def _seen(view: AxialSlice) -> NDArray[np.bool_]:
    """Return the part of a slice that a picture must show: mask, truth and clicks."""
    seen = view.mask | view.truth
    for row, column, _ in view.clicks:
        seen[row, column] = True
    return seen


def _part(seen: NDArray[np.bool_], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """Return the part of a slice around the foreground, square in mm where the slice is large enough."""
    found = corners(seen)
    assert found is not None, "a mask, a truth or a click is seen"
    low, high = found[0], found[1] + 1
    side = max(_LEAST_MM, _CONTEXT * float(((high - low) * spacing).max()))
    size = np.minimum(np.ceil(side / np.array(spacing)), seen.shape).astype(int)
    start = np.clip(np.rint((low + high - size) / 2).astype(int), 0, np.array(seen.shape) - size)
    rows, columns = (slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
    return rows, columns


def _cropped(view: AxialSlice, part: tuple[slice, slice]) -> AxialSlice:
    """Return a copy of a part of a slice."""
    rows, columns = part
    return AxialSlice(
        image=view.image[part].copy(),
        mask=view.mask[part].copy(),
        truth=view.truth[part].copy(),
        clicks=tuple((row - rows.start, column - columns.start, sign) for row, column, sign in view.clicks),
        spacing=view.spacing,
        name=view.name,
    )


def _counted(clicks: int) -> str:
    return {0: "image", 1: "1 click"}.get(clicks, f"{clicks} clicks")


def _shown(name: str) -> str:
    """Return a file name as a chart can print it: bytes that are no text are replaced."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _aspect(view: AxialSlice) -> float:
    return view.spacing[0] / view.spacing[1]


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, *, fill: float = 0.0, width: float = 1.2) -> None:
    """Draw a sharp outline over a translucent fill with opacity ``fill``."""
    if not mask.any():
        return
    values = np.pad(mask.astype(float), 1)
    rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
    if fill:
        axes.contourf(columns, rows, values, levels=[0.5, 1.5], colors=[colour], alpha=fill)
    axes.contour(columns, rows, values, levels=[0.5], colors=[colour], linewidths=width)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _mark(axes: Axes, view: AxialSlice, size: float) -> None:
    for row, column, positive in view.clicks:
        colour = _INSIDE if positive else _OUTSIDE
        marker = "*" if positive else "X"
        axes.scatter([column], [row], marker=marker, s=size, color=colour, edgecolors="black", linewidths=0.8, zorder=5)
