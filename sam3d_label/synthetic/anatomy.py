"""The patient: body, organs, bones and vessels, painted far to near."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam3d_label.synthetic.geometry import (
    Array,
    Grid,
    Shape,
    Structure,
    log_uniform,
    ramp,
    random_rotation,
    small_rotation,
    smooth_noise,
    texture_noise,
    union,
)

Modality = Literal["ct", "mr"]


@dataclass(frozen=True)
class Tissues:
    """Typical values of one acquisition: HU for CT, share of the scale for MR."""

    air: float
    fat: float
    muscle: float
    organs: tuple[float, float]
    cortex: tuple[float, float]
    marrow: float
    lung: float
    vessel: float
    fluid: float
    texture: float
    contrasts: tuple[float, float]


@dataclass
class Scene:
    """A volume that is being painted, with the organs in which a lesion may be placed."""

    grid: Grid
    tissues: Tissues
    image: Array
    body: Array
    hosts: list[Structure] = field(default_factory=list)
    organs: NDArray[np.uint8] = field(init=False)
    """Visible organ of each voxel, (I, J, K): 1 for the first in `hosts`, and so on; 0 for none."""

    def __post_init__(self) -> None:
        self.organs = np.zeros(self.grid.shape, np.uint8)

    def paint(self, structure: Structure, value: Array | float, edge: float, opacity: float = 1.0) -> None:
        """Blend `value` over the image inside `structure`, never outside the body.

        Args:
            structure: Where to paint.
            value: Intensity, one number or one for each voxel of the structure's box.
            edge: Width of the blurred border, mm.
            opacity: Share of `value` in the result, 0 to 1.
        """
        share = structure.share(edge) * self.body[structure.box] * np.float32(opacity)
        self.image[structure.box] += share * (value - self.image[structure.box])

    def show_organ(self, structure: Structure, organ: int) -> None:
        """Record that ``structure`` is now visible: an organ by its number, or 0 for a structure that hides organs."""
        shown = (structure.depth > 0) & (self.body[structure.box] > 0.5)
        self.organs[structure.box][shown] = organ


def random_tissues(rng: np.random.Generator, modality: Modality) -> Tissues:
    """Return random values of CT with or without contrast agent, or of one of four MR sequences."""
    if modality == "ct":
        enhanced = rng.random() < 0.5
        return Tissues(
            air=-1000.0,
            fat=rng.uniform(-115, -85),
            muscle=rng.uniform(35, 65),
            organs=(20.0, 120.0 if enhanced else 75.0),
            cortex=(300.0, 900.0),
            marrow=rng.uniform(0, 250),
            lung=rng.uniform(-900, -700),
            vessel=rng.uniform(100, 260) if enhanced else rng.uniform(35, 55),
            fluid=rng.uniform(0, 20),
            texture=rng.uniform(2, 12),
            contrasts=(12.0, 110.0),
        )
    # Fat, muscle and fluid of T1, T2, fat-suppressed T1 with contrast agent, and fat-suppressed T2.
    sequences = ((0.9, 0.35, 0.15), (0.65, 0.2, 0.95), (0.12, 0.35, 0.2), (0.1, 0.2, 0.95))
    fat, muscle, fluid = np.array(sequences[rng.integers(len(sequences))]) * rng.uniform(0.75, 1.25, size=3)
    return Tissues(
        air=0.0,
        fat=fat,
        muscle=muscle,
        organs=(0.15, 0.8),
        cortex=(0.02, 0.1),
        marrow=fat * rng.uniform(0.6, 1.0),
        lung=rng.uniform(0.02, 0.08),
        vessel=rng.uniform(0.02, 0.9),
        fluid=fluid,
        texture=rng.uniform(0.01, 0.06),
        contrasts=(0.06, 0.6),
    )


def paint_anatomy(rng: np.random.Generator, grid: Grid, tissues: Tissues, long_axis: int) -> Scene:
    """Paint air, body, organs, bones and vessels.

    Args:
        rng: Source of randomness.
        grid: Grid of the volume.
        tissues: Values of the tissues.
        long_axis: Array axis along which the body extends.
    """
    scene = _paint_body(rng, grid, tissues, long_axis)
    for _ in range(rng.integers(2, 7)):
        _paint_organ(rng, scene)
    for _ in range(rng.integers(0, 3)):
        _paint_bone(rng, scene, long_axis)
    for _ in range(rng.integers(0, 5)):
        _paint_vessel(rng, scene)
    return scene


def random_centre(rng: np.random.Generator, scene: Scene) -> NDArray[np.float64]:
    """Return a random position inside the body, mm, (3,); anywhere if the body is too small to be found."""
    shape = scene.grid.shape
    for _ in range(50):
        index = tuple(int(rng.integers(n)) for n in shape)
        if scene.body[index] > 0.9:
            break
    return scene.grid.position(index)


def _paint_body(rng: np.random.Generator, grid: Grid, tissues: Tissues, long_axis: int) -> Scene:
    """Return a trunk or limb along ``long_axis``: skin, a layer of fat, muscle that fat septa divide."""
    radii = grid.extent * rng.uniform(0.4, 0.62, size=3)
    radii[long_axis] = grid.extent[long_axis] * rng.uniform(0.8, 3.0)
    if rng.random() < 0.25:
        radii *= 1.5
    shape = Shape(
        grid.extent * rng.uniform(-0.06, 0.06, size=3),
        radii,
        small_rotation(rng, 0.3),
        roughness=rng.uniform(0.02, 0.07),
        grain=rng.uniform(0.5, 1.2),
    )
    depth = shape.depth(rng, grid)
    depth += np.float32(np.abs(depth).max() * 1e-6)
    body = ramp(depth, 2.0)
    fat_layer = np.float32(min(log_uniform(rng, 2.0, 25.0), 0.15 * float(np.median(grid.extent)))) * (
        1 + np.float32(0.3) * smooth_noise(rng, grid.axes, 40.0)
    )
    inside = ramp(depth - fat_layer, rng.uniform(1.5, 4.0))

    septa = smooth_noise(rng, grid.axes, rng.uniform(18, 45))
    width = np.float32(rng.uniform(0.03, 0.12))
    marbling = np.exp(-((septa / width) ** 2)) * np.float32(rng.uniform(0, 0.9))
    lean = inside * (1 - marbling)
    # Neighbouring muscles, divided by the septa, differ a little.
    muscle = tissues.muscle + np.float32(rng.uniform(-3, 3) * tissues.texture) * ramp(septa, 0.2)
    image = tissues.fat + lean * (muscle - np.float32(tissues.fat))
    image += np.float32(tissues.texture) * texture_noise(rng, grid)
    skin = ramp(depth, 1.0) * (1 - ramp(depth - 2, 1.5))
    image += skin * (tissues.muscle - image)
    image = tissues.air + body * (image - np.float32(tissues.air))
    return Scene(grid, tissues, image.astype(np.float32), inside)


def _paint_organ(rng: np.random.Generator, scene: Scene) -> None:
    radii = np.median(scene.grid.extent) * rng.uniform(0.1, 0.35) * rng.uniform(0.6, 1.4, size=3)
    shape = Shape(
        random_centre(rng, scene),
        radii,
        random_rotation(rng),
        bend=rng.uniform(-0.5, 0.5),
        roughness=rng.uniform(0.04, 0.16),
        grain=rng.uniform(0.4, 1.2),
    )
    structure = union(rng, scene.grid, [shape])
    if structure is None:
        return
    tissues, draw = scene.tissues, rng.random()
    level, amplitude = rng.uniform(*tissues.organs), tissues.texture * rng.uniform(0.4, 2.0)
    if draw < 0.1:
        level, amplitude = tissues.lung, amplitude * 2
    elif draw < 0.2:
        level, amplitude = tissues.fluid, amplitude * 0.3
    texture = texture_noise(rng, scene.grid.crop(structure.box))
    if rng.random() < 0.6:
        scene.paint(Structure(structure.box, structure.depth + 3), tissues.fat, edge=2.0)
    scene.paint(structure, level + np.float32(amplitude) * texture, edge=rng.uniform(1.0, 3.0))
    scene.hosts.append(structure)
    scene.show_organ(structure, len(scene.hosts))


def _paint_bone(rng: np.random.Generator, scene: Scene, long_axis: int) -> None:
    """Paint a shaft or a plate: a cortex around marrow."""
    radii = rng.uniform(6, 18, size=3)
    radii[0] = scene.grid.extent[long_axis] * rng.uniform(0.2, 1.5)
    axes = np.roll(np.eye(3), -long_axis, axis=0)
    rotation = axes @ small_rotation(rng, 0.6)
    shape = Shape(random_centre(rng, scene), radii, rotation, bend=rng.uniform(-0.2, 0.2), roughness=0.08, grain=1.0)
    structure = union(rng, scene.grid, [shape])
    if structure is None:
        return
    scene.paint(structure, rng.uniform(*scene.tissues.cortex), edge=1.5)
    marrow = Structure(structure.box, structure.depth - np.float32(rng.uniform(1.5, 4)))
    scene.paint(marrow, scene.tissues.marrow, edge=2.0)
    scene.show_organ(structure, 0)


def _paint_vessel(rng: np.random.Generator, scene: Scene) -> None:
    thickness = rng.uniform(1.5, 7)
    radii = np.array([np.median(scene.grid.extent) * rng.uniform(0.2, 0.6), thickness, thickness])
    centre, rotation = random_centre(rng, scene), random_rotation(rng)
    shape = Shape(centre, radii, rotation, bend=rng.uniform(-0.6, 0.6), roughness=0.1, grain=0.5)
    structure = union(rng, scene.grid, [shape])
    if structure is not None:
        scene.paint(structure, scene.tissues.vessel, edge=1.5)
        scene.show_organ(structure, 0)
