"""Simulated annotators: who clicks where, given the truth and the mask so far.

Every annotator is a function ``(truth, mask, clicks, rng, spacing) -> Click | None`` of

* ``truth`` and ``mask``: bool, shape (I, J, K), voxels of the stored image,
* ``clicks``: those given so far, oldest first,
* ``rng``: the only source of randomness, so that a seed fixes the whole session,
* ``spacing``: millimetres between voxels along I, J, K.

It answers ``None`` when there is nothing left to correct. An annotator sees the truth; the model never does.
Distances are counted in voxels, not in millimetres, as the published rules do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sam3d_label.masks import CORNERS, Index, bounding_box, deepest_voxel, depth, largest_component
from sam3d_label.segmentation.prompts import Click

BoolVolume = NDArray[np.bool_]
Annotator = Callable[[BoolVolume, BoolVolume, Sequence[Click], np.random.Generator, Sequence[float]], Click | None]

JITTER_MM = 3.0
FLIPPED_SHARE = 0.05
TIE_SEED = 42
_DRAWS = 100


def random_foreground(
    truth: BoolVolume,
    mask: BoolVolume,
    clicks: Sequence[Click],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> Click | None:
    """Draw a positive click uniformly in the target, with replacement (the evaluation of 3DSAM-adapter).

    The draw looks at neither the mask nor the earlier clicks, so the first k clicks of a session are
    distributed as k clicks drawn at once.
    """
    voxels = np.flatnonzero(truth)
    if voxels.size == 0:
        return None
    return Click(_index(voxels[rng.integers(voxels.size)], truth.shape))


def error_centre(
    truth: BoolVolume,
    mask: BoolVolume,
    clicks: Sequence[Click],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> Click | None:
    """Click the deepest voxel of the larger error (RITM, SAM2): positive if missed, negative if added.

    "Larger" counts voxels of the whole false-negative and false-positive masks; the missed side wins a tie.
    Depth is the Euclidean distance, in voxels as in RITM, to the nearest voxel outside that error, everything
    outside the volume counting as outside. A voxel is never clicked twice; when one error has no fresh voxel
    the other one is taken. Among equally deep voxels the first in (i, j, k) order wins.
    """
    missed, added = truth & ~mask, mask & ~truth
    errors = [(missed, True), (added, False)]
    if np.count_nonzero(added) > np.count_nonzero(missed):
        errors.reverse()
    for error, positive in errors:
        ijk = deepest_voxel(error, without=[click.ijk for click in clicks])
        if ijk is not None:
            return Click(ijk, positive)
    return None


def largest_component_centre(
    truth: BoolVolume,
    mask: BoolVolume,
    clicks: Sequence[Click],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> Click | None:
    """Click the deepest voxel of the largest 26-connected error component (CVPR 2025 interactive 3D challenge).

    Missed and added voxels form one error mask; the sign is the truth's at the clicked voxel. Of equally deep
    voxels one is drawn with the fixed seed 42, whatever ``rng`` is. As in the challenge a voxel may be
    clicked again.
    """
    error = truth ^ mask
    box = bounding_box(error)
    if box is None:
        return None
    depths = depth(largest_component(error[box], CORNERS))
    deepest = np.argwhere(depths == depths.max())
    chosen = deepest[np.random.default_rng(TIE_SEED).integers(len(deepest))]
    ijk = _shifted(chosen, box)
    return Click(ijk, bool(truth[ijk]))


def jittered(
    truth: BoolVolume,
    mask: BoolVolume,
    clicks: Sequence[Click],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> Click | None:
    """Click imprecisely (user-shift studies, arXiv 2404.01816 and 2410.11722).

    The click of :func:`error_centre` is moved by a Gaussian of 3 mm along each axis and kept inside the
    volume; 5 % of the signs are flipped. A sign is flipped
    only once there is a positive click, since negative clicks alone mark no target; a voxel that is already
    clicked is drawn again.
    """
    centre = error_centre(truth, mask, clicks, rng, spacing)
    if centre is None:
        return None
    ijk = _moved(centre.ijk, truth.shape, {click.ijk for click in clicks}, rng, spacing)
    flipped = rng.random() < FLIPPED_SHARE and any(click.positive for click in clicks)
    return Click(ijk, centre.positive != flipped)


ANNOTATORS: Mapping[str, Annotator] = MappingProxyType(
    {
        "error_centre": error_centre,
        "largest_component_centre": largest_component_centre,
        "jittered": jittered,
        "random_foreground": random_foreground,
    }
)
POSITIVE_ONLY = frozenset({"random_foreground"})
"""Annotators that never click outside the target: the only ones for weights without negative clicks."""


def _moved(
    ijk: Index,
    shape: Sequence[int],
    taken: set[Index],
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> Index:
    """Return ``ijk`` moved by the jitter to a free voxel of the volume; ``ijk`` itself if none is found."""
    for _ in range(_DRAWS):
        moved = np.rint(np.add(ijk, rng.normal(0.0, JITTER_MM, size=3) / np.asarray(spacing)))
        i, j, k = (int(at) for at in np.clip(moved, 0, np.asarray(shape) - 1))
        if (i, j, k) not in taken:
            return (i, j, k)
    return ijk


def _index(flat: int, shape: tuple[int, ...]) -> Index:
    i, j, k = np.unravel_index(int(flat), shape)
    return (int(i), int(j), int(k))


def _shifted(local: NDArray[np.int64], box: tuple[slice, ...]) -> Index:
    i, j, k = (int(at) + side.start for at, side in zip(local, box, strict=True))
    return (i, j, k)
