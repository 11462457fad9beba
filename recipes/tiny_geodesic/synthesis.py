"""Images for training that are made while it runs: phantoms, mosaics, planted lesions, and images from label maps."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from recipes.tiny_geodesic.crops import rotation
from recipes.tiny_geodesic.pack import PackedVolume
from recipes.tiny_geodesic.sources import Source, find_targets
from sam3d_label.image.volume import Volume
from sam3d_label.masks import depth
from sam3d_label.synthetic import Modality
from sam3d_label.synthetic.label_mosaic import make_mosaic
from sam3d_label.synthetic.lesion_insertion import insert_lesions
from sam3d_label.synthetic.phantoms import make_phantom

KINDS = {"drawn": 0.34, "phantom": 0.26, "mosaic": 0.08, "planted": 0.32}
"""How often each kind of image is made."""

MOST_WAITING = 300
"""Images that may wait to be read."""

LARGEST = 6_000_000
"""Voxels above which a part of a volume, of `PART` voxels along each edge, is used."""

PART = 160
GRID = 112
"""Longest edge of an image from a label map, voxels."""

GRID_MM = (0.8, 2.2)
TISSUES = (0.35, 0.6, 0.8, 0.93)
"""Quantiles of the grey values that divide the unlabelled voxels."""

UNNAMED, LUMEN, FLUID, LESION = 1000, 1300, 1600, 1900
"""First number of these parts in a label map."""


def work(number: int, seed: int, reals: Sequence[PackedVolume], feed: Path) -> None:
    """Write one image after the other to the folder `feed`, until stopped."""
    rng = np.random.default_rng([seed, number])
    feed.mkdir(parents=True, exist_ok=True)
    written = 0
    while True:
        if len(os.listdir(feed)) > MOST_WAITING:
            time.sleep(1)
            continue
        try:
            for source in make(rng, reals):
                if source.targets:
                    path = feed / f"{number:03d}_{written:05d}.pkl"
                    path.with_suffix(".part").write_bytes(pickle.dumps(source, protocol=4))
                    path.with_suffix(".part").rename(path)
                    written += 1
        except Exception:  # one image that cannot be made must not end the others
            traceback.print_exc()
            time.sleep(1)


def make(rng: np.random.Generator, reals: Sequence[PackedVolume]) -> Iterator[Source]:
    """Make one image and return it once for each kind of target in it."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "phantom":
        phantom = make_phantom(rng)
        yield of_volume("lesion", phantom.image, phantom.label, phantom.affine, rng)
        yield of_volume("organ", phantom.image, phantom.organs, phantom.affine, rng, fewest=200)
    elif kind == "mosaic":
        mosaic = make_mosaic(rng)
        yield of_volume("region", mosaic.image, mosaic.label, mosaic.affine, rng)
    elif kind == "planted":
        yield planted(rng, [real for real in reals if real.kind in ("mr", "ct", "other")])
    else:
        yield drawn(rng, reals)


def of_volume(
    pool: str, image: np.ndarray, label: np.ndarray, affine: np.ndarray, rng: np.random.Generator, fewest: int = 1
) -> Source:
    """Normalize a synthetic volume with the shipped intensity rule."""
    packed = PackedVolume.of(pool, pool, Volume(np.asarray(np.rint(image), np.float32), affine), label)
    targets = find_targets(packed.label, rng, fewest)
    return Source(pool, packed.image, packed.label, packed.spacing, packed.norm, targets)


def planted(rng: np.random.Generator, reals: Sequence[PackedVolume]) -> Source:
    """Paint small lesions into a real image, more often into images of sarcomas."""
    ours = rng.random() > 0.4
    some = [real for real in reals if (real.kind != "other") == ours]
    real = some[rng.integers(len(some))]
    lower, upper, *_ = real.norm
    part = tuple(slice(0, None) for _ in range(3))
    if real.image.size > LARGEST:
        begin = [int(rng.integers(0, max(1, edge - PART))) for edge in real.image.shape]
        part = tuple(slice(first, first + PART) for first in begin)
    grey = real.image[part].astype(np.float32) + rng.uniform(-2, 2, real.image[part].shape).astype(np.float32)
    modality: Modality = "ct" if real.kind == "ct" or real.name.startswith("ct") else "mr"
    image, label = insert_lesions(
        rng, grey / 255 * (upper - lower) + lower, real.spacing.tolist(), modality, real.label[part] > 0
    )
    share = (np.clip(image, lower, upper) - lower) / (upper - lower)
    return Source(
        "planted", np.round(share * 255).astype(np.uint8), label, real.spacing, real.norm, find_targets(label, rng)
    )


def drawn(rng: np.random.Generator, reals: Sequence[PackedVolume]) -> Source:
    """Make an image with random contrasts from a deformed label map (Billot et al., arXiv 2107.09559).

    Some organs become hollow, with one or two contents. In some images the targets are lesions in organs.
    """
    named = rng.random() < 0.55
    some = [real for real in reals if real.pieces is not None and (real.kind in ("organs", "vessels")) == named]
    real = some[rng.integers(len(some))]
    use_pieces = not named or (real.kind == "vessels" and rng.random() < 0.3)
    parts, spacing = label_map(rng, real, real.pieces if use_pieces and real.pieces is not None else real.label)
    target = np.where(parts < UNNAMED, parts, 0)
    parts = hollow(rng, parts)
    if rng.random() < 0.3:
        lesions, parts = add_lesions(rng, parts, target)
        target = lesions if rng.random() < 0.7 else target
    image = painted(rng, parts)
    lower, upper = (float(v) for v in np.percentile(image, [0.5, 99.5]))
    clipped = np.clip(image, lower, upper)
    share = (clipped - lower) / max(upper - lower, 1e-3)
    target = target.astype(np.uint8)
    return Source(
        "synth",
        np.round(share * 255).astype(np.uint8),
        target,
        spacing,
        (lower, upper, float(clipped.mean()), float(clipped.std()) or 1.0),
        find_targets(target, rng, fewest=60),
    )


def label_map(rng: np.random.Generator, real: PackedVolume, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of a deformed volume around one of its structures, int16, and the spacing of their grid."""
    smooth = ndimage.gaussian_filter(real.image.astype(np.float32), 0.7)
    rest = smooth[label == 0]
    tissues = UNNAMED + np.digitize(smooth, np.quantile(rest, TISSUES) if rest.size else TISSUES)
    whole = np.where(label == 0, tissues, label).astype(np.int16)
    values = np.unique(label[label > 0])
    about = np.argwhere(label == rng.choice(values)) if values.size else np.argwhere(label == 0)
    centre = about[rng.integers(len(about))].astype(np.float32)
    finest = float(np.clip(real.spacing.min() * 1.2, *GRID_MM))
    mm = float(np.exp(rng.uniform(*np.log((max(GRID_MM[0], 0.5 * finest), max(finest, 1.4))))))
    extent = np.minimum(real.spacing * real.image.shape / mm, GRID).astype(int).clip(min=24)
    grid = np.stack(np.meshgrid(*[np.arange(edge, dtype=np.float32) for edge in extent], indexing="ij"))
    middle = (extent[:, None, None, None] - 1) / 2
    turn = rotation(rng.uniform(-0.4, 0.4, 3)) @ np.diag(rng.uniform(0.75, 1.3, 3))
    moved = np.einsum("ab,bijk->aijk", turn, grid - middle)
    for nodes, reach in ((4, 14.0), (9, 5.0)):
        for axis in range(3):
            noise = rng.normal(size=(nodes,) * 3).astype(np.float32) * reach / mm * rng.uniform(0.1, 1)
            moved[axis] += ndimage.zoom(noise, extent / nodes, order=1)[: extent[0], : extent[1], : extent[2]]
    edge = np.array(real.image.shape)
    half = (extent - 1) / 2 * mm / real.spacing
    centre = np.where(2 * half >= edge, (edge - 1) / 2, np.clip(centre, half, np.maximum(edge - 1 - half, half)))
    places = moved * (mm / real.spacing)[:, None, None, None] + centre[:, None, None, None]
    return ndimage.map_coordinates(whole, places, order=0, mode="nearest"), np.full(3, mm)


def hollow(rng: np.random.Generator, parts: np.ndarray) -> np.ndarray:
    """Make some structures hollow, with a wall and one or two contents that separate at a level like air and fluid."""
    parts = parts.copy()
    for value, box in enumerate(ndimage.find_objects(np.where(parts < UNNAMED, parts, 0)), start=1):
        if box is None or rng.random() > 0.25:
            continue
        inside = parts[box] == value
        depths = depth(inside)
        if depths.max() < 4:
            continue
        lumen = depths > rng.uniform(0.15, 0.6) * depths.max()
        axis, level = int(rng.integers(3)), rng.uniform(0.2, 1.3)
        along = np.arange(inside.shape[axis]) > level * inside.shape[axis]
        above = np.expand_dims(along, [other for other in range(3) if other != axis])
        parts[box][lumen] = LUMEN + value
        parts[box][lumen & above] = FLUID + value
    return parts


def add_lesions(rng: np.random.Generator, parts: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lesions in structures, 1 to n, and the parts with them."""
    parts, lesions = parts.copy(), np.zeros(parts.shape, np.uint8)
    room = ndimage.distance_transform_edt(target > 0)
    grid = np.stack(np.meshgrid(*[np.arange(edge) for edge in parts.shape], indexing="ij"))
    for number in range(1, int(rng.integers(2, 5))):
        deep = np.argwhere(room > 3)
        if not len(deep):
            break
        centre = deep[rng.integers(len(deep))]
        radius = min(rng.uniform(2.5, 11), 1.2 * room[tuple(centre)])
        stretch = np.exp(rng.uniform(-0.35, 0.35, 3))
        away = np.sqrt((((grid - centre[:, None, None, None]) / stretch[:, None, None, None]) ** 2).sum(0))
        nodes = rng.normal(size=(6, 6, 6)) * rng.uniform(0, 0.3)
        rough = ndimage.zoom(nodes, np.array(parts.shape) / 6, order=1)
        blob = (away * (1 + rough) < radius) & (target == target[tuple(centre)])
        lesions[blob] = number
        parts[blob] = LESION + number
        room[blob] = 0
    return lesions, parts


def painted(rng: np.random.Generator, parts: np.ndarray) -> np.ndarray:
    """Paint each part with a random mean and texture, then blur, shade and add noise."""
    count = LESION + 100
    mean, deviation = rng.uniform(10, 245, count), rng.uniform(0.5, 14, count)
    if rng.random() < 0.6:
        mean[UNNAMED], deviation[UNNAMED] = rng.uniform(0, 15), 2
    if rng.random() < 0.4:
        mean[FLUID : FLUID + 300] = rng.uniform(0, 30)
    texture = ndimage.gaussian_filter(rng.normal(size=parts.shape).astype(np.float32), rng.uniform(0, 1.2))
    image = mean[parts] + deviation[parts] * texture / max(texture.std(), 1e-3)
    image = ndimage.gaussian_filter(image, rng.uniform(0.4, 1.2)) + rng.normal(size=parts.shape) * rng.uniform(0, 8)
    nodes = rng.normal(size=(3, 3, 3)) * rng.uniform(0, 0.25)
    shading = ndimage.zoom(nodes, np.array(parts.shape) / 3, order=1)
    return image * np.exp(shading)
