"""Geodesic distances from a click: paths across borders are longer.

Two costs of a step from a cell to the next, both relative to the contrast around the click, so that a map is the same
for an image of any scale: the change of intensity on the way (large at borders, small in shading), and the difference
from the clicked intensity (large in another tissue, however smooth the way there). Compare DeepIGeoS (Wang et al.,
arXiv 1707.00652). Each click has maps of its own, so that those of earlier clicks stay valid when another is added.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.network.box_mean import box_mean
from sam3d_label.network.config import COSTS

FAR = 1000.0
"""Distance of cells that no short path reaches."""

SMOOTHING, AROUND = 1, 2
"""Radii, in cells, of the boxes whose mean is the image that paths cross, and in which contrast is measured."""

LEAST_CONTRAST = 0.03
"""Contrast around a click, at least, as a share of the crop's."""

PER_CELL = 0.03
"""Cost of a step through nothing but uniform tissue."""

PER_UNLIKENESS, MOST_UNLIKE = 0.3, 50.0
"""Additional cost of a cell for a difference in intensity of one contrast, and the largest difference that counts."""

ROUNDS = 4
"""Times that every axis is swept in both directions; paths with this number of turns are found."""

LEAST_SUM = 1e-3
"""Added to the sum of two distances that is divided by."""


def scene(crop: Tensor) -> Tensor:
    """Return the features of a crop (B, 1, H, W, D) for the maps: image, local mean and local contrast.

    Returns:
        (B, 3, half, half, half), float32 at least.
    """
    image = F.avg_pool3d(crop.to(torch.promote_types(crop.dtype, torch.float32)), 2)
    smooth = box_mean(image, SMOOTHING, repeat_ends=True)
    mean = box_mean(smooth, AROUND)
    deviation = (box_mean(smooth**2, AROUND) - mean**2).clamp(min=0).sqrt()
    floor = LEAST_CONTRAST * image.flatten(1).std(1).clamp(min=torch.finfo(image.dtype).eps)
    return torch.cat([smooth, mean, torch.maximum(deviation, floor.view(-1, 1, 1, 1, 1))], 1)


def distances(scene: Tensor, points: Tensor) -> Tensor:
    """Return the maps of each click.

    Args:
        scene: Result of `scene` for the crop, (B, 3, half, half, half), axes H, W, D.
        points: (B, N, 3) voxels d, h, w of the crop.

    Returns:
        (B, N, costs, half, half, half): 0 at the click, at most `FAR`.
    """
    b, n, size = *points.shape[:2], scene.shape[-1]
    image, mean, contrast = scene[:, None].unbind(2)
    h, w, d = ((points + 0.5) / 2).floor().long().clamp(0, size - 1)[..., [1, 2, 0]].unbind(-1)
    item = torch.arange(b, device=points.device)[:, None]
    at = (item, torch.zeros_like(h), h, w, d)
    value, scale = (t[at].view(b, n, 1, 1, 1) for t in (mean, contrast))
    unlike = (((image - value).abs() / scale) - 1).clamp(0, MOST_UNLIKE) * PER_UNLIKENESS + PER_CELL
    edges = []
    for axis in (2, 3, 4):
        change = image.diff(dim=axis).abs() / scale + PER_CELL
        between = (unlike.narrow(axis, 1, size - 1) + unlike.narrow(axis, 0, size - 1)) / 2
        edges.append(torch.stack([change, between], 2).flatten(0, 2))
    start = image.new_full((b, n, COSTS, size, size, size), FAR)
    start[item, torch.arange(n, device=points.device), :, h, w, d] = 0
    sweep = sweep_cells if start.device.type == "cpu" else sweep_lines
    return sweep(start.flatten(0, 2), edges).view_as(start)


def sweep_cells(start: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """Return shortest distances, found along each axis plane by plane: fast on a CPU, where small operations are cheap.

    Args:
        start: Distances to begin with, (M, x, y, z).
        edges: For each axis the cost of the step from a cell to the next, (M, x - 1, y, z) and so on.

    Returns:
        (M, x, y, z): the lengths of the shortest paths among those with few turns.
    """
    distance = start.clone()
    crossings = [edge.transpose(1, axis).contiguous().unbind(1) for axis, edge in enumerate(edges, start=1)]
    for _ in range(ROUNDS):
        for axis, steps in enumerate(crossings, start=1):
            turned = distance.transpose(1, axis).contiguous()
            planes = turned.unbind(1)
            for index, step in enumerate(steps):
                torch.minimum(planes[index + 1], planes[index] + step, out=planes[index + 1])
            for index, step in reversed(list(enumerate(steps))):
                torch.minimum(planes[index], planes[index + 1] + step, out=planes[index])
            distance = turned.transpose(1, axis)
    return distance.contiguous()


def sweep_lines(start: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """Return the distances of `sweep_cells`, found by running minima over whole lines: few operations, fast on a GPU.

    Arguments as in `sweep_cells`. With C the sum of the costs before a cell, the path along a line from a to b costs
    C(b) - C(a), so the minimum of d(a) - C(a) over all a before b gives the shortest one.
    """
    distance = start
    sums = [
        F.pad(edge, (0, 0) * (3 - axis) + (1, 0)).cumsum(axis).transpose(1, axis).contiguous()
        for axis, edge in enumerate(edges, start=1)
    ]
    for _ in range(ROUNDS):
        for axis, before in enumerate(sums, start=1):
            turned = distance.transpose(1, axis).contiguous()
            turned = torch.minimum(turned, (turned - before).cummin(1).values + before)
            back = (turned + before).flip(1).cummin(1).values.flip(1) - before
            distance = torch.minimum(turned, back).transpose(1, axis)
    return distance.contiguous()


def nearest(maps: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """Return the distance to the nearest of some clicks.

    Args:
        maps: For each click the maps (B, costs, half, half, half).
        chosen: Which clicks count, bool (B, N).

    Returns:
        (B, costs, half, half, half); `FAR` where none counts.
    """
    near = torch.full_like(maps[0], FAR)
    for click, one in zip(chosen.unbind(1), maps, strict=True):
        near = torch.minimum(near, one.masked_fill(~click.view(-1, 1, 1, 1, 1), FAR))
    return near


def channels(maps: Sequence[Tensor], inside: Tensor, outside: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the maps of all clicks as channels of the dense prompt.

    Args:
        maps: For each click the maps (B, costs, half, half, half), at least one.
        inside: Which clicks are inside, bool (B, N).
        outside: Which are outside, bool (B, N).
        scales: Distances over which they fade.

    Returns:
        (B, C, half, half, half): exp(-distance / scale) for each sign, cost and scale, then for each cost whether a
        cell is nearer to a click inside (1) or outside (-1), where there are both.
    """
    near_in, near_out = nearest(maps, inside), nearest(maps, outside)
    faded = [
        torch.exp(near[:, cost] / -scale) for near in (near_in, near_out) for cost in range(COSTS) for scale in scales
    ]
    both = (inside.any(1) & outside.any(1)).view(-1, 1, 1, 1, 1)
    nearer = ((near_out - near_in) / (near_out + near_in + LEAST_SUM)) * both
    return torch.cat([torch.stack(faded, 1), nearer], 1)
