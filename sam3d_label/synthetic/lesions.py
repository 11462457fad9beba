"""Lesions: their shapes, positions and intensities; look-alikes that are not labelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sam3d_label.masks import largest_component
from sam3d_label.synthetic.anatomy import Scene, Tissues, random_centre
from sam3d_label.synthetic.geometry import (
    Grid,
    Mask,
    Shape,
    Structure,
    log_uniform,
    ramp,
    random_rotation,
    smooth_noise,
    texture_noise,
    union,
)

LesionKind = Literal["blob", "lobulated", "tubular", "shell", "flat"]

LESION_KINDS: tuple[LesionKind, ...] = get_args(LesionKind)
DIAMETERS_MM = (8.0, 130.0)
GAP_MM = 3.0
MAX_LABEL_SHARE = 0.6
MIN_LABEL_VOXELS = 24
ATTEMPTS = 40


@dataclass(frozen=True)
class Lesion:
    """A lesion before it is painted."""

    kind: LesionKind
    diameter: float
    structure: Structure
    mask: Mask


def grow_lesion(rng: np.random.Generator, scene: Scene) -> Lesion | None:
    """Return a lesion, or None if none fits; later attempts are smaller, so that one also fits into a small body."""
    low, high = _diameter_range(scene.grid)
    for attempt in range(ATTEMPTS):
        most = max(high * (1 - attempt / ATTEMPTS), 1.05 * low)
        diameter = low * (most / low) ** rng.beta(1.5, 1.0)
        lesion = try_lesion(rng, scene, LESION_KINDS[rng.integers(len(LESION_KINDS))], diameter)
        if lesion is not None:
            return lesion
    return None


def grow_distractors(rng: np.random.Generator, scene: Scene, lesion: Lesion) -> list[Lesion]:
    """Return up to three look-alikes, each at least ``GAP_MM`` from the lesion and from one another."""
    gap = max(GAP_MM, 1.5 * max(scene.grid.spacing))
    taken = lesion.structure.mask(scene.grid.shape, margin=gap)
    low, high = _diameter_range(scene.grid)
    others: list[Lesion] = []
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.35, 0.3, 0.2, 0.15])):
        diameter = float(np.clip(lesion.diameter * log_uniform(rng, 0.4, 1.3), low, 0.7 * high))
        for _ in range(4):
            other = try_lesion(rng, scene, LESION_KINDS[rng.integers(len(LESION_KINDS))], diameter)
            if other is None:
                continue
            around = other.structure.mask(scene.grid.shape, margin=gap)
            if not (around & taken).any():
                taken |= around
                others.append(other)
                break
    return others


def paint_lesions(rng: np.random.Generator, scene: Scene, lesion: Lesion, others: Sequence[Lesion]) -> float:
    """Paint the lesion and its look-alikes in the same way; return the lesion's contrast."""
    before = float(scene.image[lesion.mask].mean())
    contrast = _choose_contrast(rng, scene.tissues, before, lesion.diameter)
    texture = scene.tissues.texture * rng.uniform(0.3, 2.0)
    edge = log_uniform(rng, 0.8, 6.0)
    halo = rng.uniform(0.2, 0.5) if rng.random() < 0.15 else 0.0
    for each in (*others, lesion):
        level = before + contrast * (1.0 if each is lesion else rng.uniform(0.8, 1.2))
        _paint_lesion(rng, scene, each, level, contrast, texture, edge, halo)
    return contrast


def _diameter_range(grid: Grid) -> tuple[float, float]:
    """Return the least and the largest diameter, mm, of a lesion in a volume of this size and spacing."""
    high = float(np.clip(0.85 * float(np.median(grid.extent)), 4 * min(grid.spacing), DIAMETERS_MM[1]))
    return min(max(DIAMETERS_MM[0], 1.6 * max(grid.spacing)), 0.6 * high), high


def try_lesion(rng: np.random.Generator, scene: Scene, kind: LesionKind, diameter: float) -> Lesion | None:
    """Return one connected lesion inside the body, or None if this draw has none."""
    grid = scene.grid
    centre = _lesion_site(rng, scene, diameter)
    if centre is None:
        return None
    thinnest = min(max(2.5, 0.7 * max(grid.spacing)), diameter / 2)
    structure = union(rng, grid, list(_lesion_shapes(rng, kind, centre, diameter, thinnest)))
    if structure is None:
        return None
    inside = (structure.depth > 0) & (scene.body[structure.box] > 0.5)
    largest = largest_component(inside)
    voxels, whole = largest.sum(), (structure.depth > 0).sum()
    if voxels < max(0.6 * whole, MIN_LABEL_VOXELS) or voxels < 0.97 * inside.sum():
        return None
    structure.depth[inside & ~largest] = -grid.spacing[0]
    mask = np.zeros(grid.shape, dtype=bool)
    mask[structure.box] = largest
    if mask.mean() > MAX_LABEL_SHARE:
        return None
    return Lesion(kind, diameter, structure, mask)


def _lesion_site(rng: np.random.Generator, scene: Scene, diameter: float) -> NDArray[np.float64] | None:
    """Choose a position in an organ, next to one, or anywhere in the body; away from the faces if possible."""
    grid, draw = scene.grid, rng.random()
    centre = random_centre(rng, scene)
    if scene.hosts and draw < 0.75:
        host = scene.hosts[rng.integers(len(scene.hosts))]
        inside = np.argwhere(host.depth > 0)
        if len(inside) == 0:
            return None
        corner = np.array([part.start for part in host.box])
        centre = grid.position(corner + inside[rng.integers(len(inside))])
        if draw > 0.5:
            away = rng.standard_normal(3)
            centre += away / np.linalg.norm(away) * rng.uniform(0.3, 0.8) * diameter
    room = np.clip(grid.extent / 2 - 0.45 * diameter, 0.15 * grid.extent, None)
    centre = np.clip(centre, -room, room)
    index = tuple(int(np.abs(axis - c).argmin()) for axis, c in zip(grid.axes, centre, strict=True))
    return centre if scene.body[index] > 0.5 else None


def _lesion_shapes(
    rng: np.random.Generator, kind: LesionKind, centre: NDArray[np.float64], diameter: float, thinnest: float
) -> Iterator[Shape]:
    """Yield the ellipsoids whose union is a lesion with the longest diameter ``diameter`` mm."""
    radius = diameter / 2
    if kind == "lobulated":
        for _ in range(rng.integers(3, 8)):
            lobe = radius * rng.uniform(0.35, 0.65)
            away = rng.standard_normal(3)
            away *= (radius - lobe) * rng.uniform(0.5, 1) / np.linalg.norm(away)
            radii = np.maximum(lobe * rng.uniform(0.8, 1.2, size=3), thinnest)
            yield Shape(centre + away, radii, random_rotation(rng), roughness=rng.uniform(0.03, 0.12))
        return
    ratios = {
        "blob": (1.0, rng.uniform(0.65, 1.0), rng.uniform(0.55, 1.0)),
        "shell": (1.0, rng.uniform(0.75, 1.0), rng.uniform(0.65, 1.0)),
        "tubular": (1.0, rng.uniform(0.22, 0.4), rng.uniform(0.22, 0.4)),
        "flat": (1.0, rng.uniform(0.6, 1.0), rng.uniform(0.2, 0.35)),
    }[kind]
    radii = np.maximum(radius * np.array(ratios), thinnest)
    bend = rng.uniform(-0.5, 0.5) if kind in ("tubular", "flat") else 0.0
    grain = rng.uniform(0.4, 1.0)
    yield Shape(centre, radii, random_rotation(rng), bend=bend, roughness=rng.uniform(0.03, 0.16), grain=grain)


def _choose_contrast(rng: np.random.Generator, tissues: Tissues, before: float, diameter: float) -> float:
    """Return a contrast of either sign, from hardly visible to obvious; higher for small lesions and those in lung."""
    low, high = tissues.contrasts
    low = min(max(low * (2 if diameter < 15 else 1), 1.2 * tissues.texture), 0.5 * high)
    contrast = log_uniform(rng, low, high)
    if before < 1.5 * tissues.fat < 0:
        return contrast + rng.uniform(0.5, 1) * (tissues.muscle - before)
    darker = before - contrast
    return -contrast if rng.random() < 0.5 and darker > tissues.air + 0.03 * high else contrast


def _paint_lesion(
    rng: np.random.Generator,
    scene: Scene,
    lesion: Lesion,
    level: float,
    contrast: float,
    texture: float,
    edge: float,
    halo: float,
) -> None:
    """Paint one lesion: halo (oedema, not labelled), body, necrotic core."""
    structure, edge = lesion.structure, min(edge, 0.35 * lesion.diameter)
    if halo:
        wide = Structure(structure.box, structure.depth + 4)
        scene.paint(wide, level, edge=10.0, opacity=halo)
    local = scene.grid.crop(structure.box)
    value = level + np.float32(texture) * texture_noise(rng, local)
    if rng.random() < 0.6:
        value += np.float32(rng.uniform(0.1, 0.45) * contrast) * smooth_noise(rng, local.axes, lesion.diameter / 3)
    if rng.random() < 0.35:
        patches = ramp(smooth_noise(rng, local.axes, lesion.diameter * rng.uniform(0.15, 0.4)) - 0.7, 0.5)
        value += np.float32(rng.uniform(-1.3, 1.0) * contrast) * patches
    scene.paint(structure, value, edge=edge, opacity=rng.uniform(0.85, 1.0))
    if lesion.kind == "shell":
        deepest = float(structure.depth.max())
        core = Structure(structure.box, structure.depth - np.float32(deepest * rng.uniform(0.25, 0.55)))
        necrosis = level - contrast * rng.uniform(0.5, 1.5)
        scene.paint(core, max(necrosis, scene.tissues.air), edge=max(edge, 1.0))
