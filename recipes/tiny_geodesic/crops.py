"""Training crops, cut and augmented on the device, without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_geodesic.sources import Source, Target

SIZE = 128
SERVED_SHARE = 0.5
"""Share of the crops that are positioned as at inference."""

SERVES, USUAL, FILL = (0.5, 1.0, 2.0, 4.0), 2.0, 0.5
"""Spacings at which the weights serve, mm, the first of them, and how far they are approached."""

FILLS, LARGE_FILL, LARGE_SHARE = (0.06, 0.9), 1.6, 0.15
"""Longest edge of a target over the crop's, in the other crops; some are larger than it."""

SPACINGS = (0.4, 6.0)


@dataclass
class StoredVolume:
    """A source on the device; `image` may be shared."""

    source: Source
    image: Tensor
    label: Tensor

    @classmethod
    def of(cls, source: Source, device: torch.device) -> StoredVolume:
        """Copy a source to the device, from pinned memory: any other copy to a GPU waits for all that is under way."""
        arrays = [torch.from_numpy(array) for array in (source.image, source.label)]
        pinned = [array.pin_memory() for array in arrays] if device.type == "cuda" else arrays
        image, label = (array.to(device, non_blocking=True) for array in pinned)
        return cls(source, image, label)

    @property
    def edge(self) -> np.ndarray:
        """Voxels along each axis."""
        return np.array(self.image.shape)


@dataclass(frozen=True)
class CropPosition:
    """The place of a crop: its centre, voxels of the source, and its spacing along each axis, mm."""

    centre: np.ndarray
    spacing: np.ndarray


class Cropper:
    """Cuts batches of crops.

    Args:
        device: Where the sources are.
        rng: Chance, on the host.
    """

    def __init__(self, device: torch.device, rng: np.random.Generator) -> None:
        self.device, self.rng = device, rng
        self.half = torch.float16 if device.type == "cuda" else torch.float32
        self.along = torch.arange(SIZE, device=device, dtype=torch.float32) - (SIZE - 1) / 2

    @torch.no_grad()
    def batch(self, chosen: Sequence[tuple[StoredVolume, int]], elsewhere: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return images and labels, (B, 1, SIZE, SIZE, SIZE); a share `elsewhere` of the crops is at any position."""
        rows = []
        for stored, value in chosen:
            target = stored.source.targets[value]
            place = self.anywhere(stored, target) if self.rng.random() < elsewhere else self.place(stored, target)
            rows.append(self.turn(self.cut(stored, value, place)))
        crops = self.slant(torch.stack(rows))
        images = torch.cat([self.intensities(image) for image in crops[:, :1].split(1)])
        return images * (crops[:, 2:] >= 0.5), (crops[:, 1:2] >= 0.5).float()

    def place(self, stored: StoredVolume, target: Target) -> CropPosition:
        """Choose the position and spacing of a crop that shows the target."""
        rng, spacing = self.rng, stored.source.spacing
        extent = float(((target.upper - target.lower + 1) * spacing).max())
        click = target.voxels[rng.integers(len(target.voxels))] + rng.uniform(-0.5, 0.5, 3)
        stretch = np.exp(rng.uniform(-0.15, 0.15, 3)) if rng.random() < 0.5 else np.ones(3)
        if rng.random() < SERVED_SHARE:
            longest = float((stored.edge * spacing).max())
            first = min([s for s in SERVES if s * SIZE >= longest] + [USUAL])
            wider = [s for s in SERVES if first < s and first * SIZE < extent]
            closer = [s for s in SERVES if s < first and extent <= FILL * s * SIZE]
            own = float(rng.choice([first, *wider, *closer])) * math.exp(rng.uniform(-0.2, 0.2))
            edge = own * SIZE / spacing
            nearby = np.round(click / edge * 4) * edge / 4
            inside = np.clip(nearby, edge / 2 - 0.5, np.maximum(stored.edge - edge / 2 - 0.5, edge / 2 - 0.5))
            return CropPosition(np.where(edge >= stored.edge, (stored.edge - 1) / 2, inside), own * stretch)
        large = rng.random() < LARGE_SHARE
        fill = math.exp(rng.uniform(*np.log((FILLS[1], LARGE_FILL) if large else FILLS)))
        own = float(np.clip(extent / fill / SIZE, *SPACINGS))
        reach = 0.45 * SIZE * own / spacing
        middle = (target.lower + target.upper) / 2 + rng.uniform(-1, 1, 3) * (fill / 2 if large else 0.3) * reach / 0.45
        return CropPosition(np.clip(middle, click - reach, click + reach), own * stretch)

    def anywhere(self, stored: StoredVolume, target: Target) -> CropPosition:
        """Choose the position and spacing of a crop that need not show the target."""
        return CropPosition(self.rng.random(3) * (stored.edge - 1), self.place(stored, target).spacing)

    def cut(self, stored: StoredVolume, value: int, place: CropPosition) -> Tensor:
        """Return image, label and the mask of the volume, (3, SIZE, SIZE, SIZE)."""
        parts, slices, there = [], [], []
        for axis in range(3):
            step = float(place.spacing[axis] / stored.source.spacing[axis])
            size, centre = stored.image.shape[axis], float(place.centre[axis])
            weights, inside = line_weights(centre + self.along * step, size, step)
            first = max(0, math.floor(centre - (SIZE / 2 + 1) * step - 1))
            last = min(size, math.ceil(centre + (SIZE / 2 + 1) * step + 2))
            first, last = (first, last) if first < last else (0, size)
            parts.append(weights[:, first:last].to(self.half))
            slices.append(slice(first, last))
            there.append(inside.float())
        inside = torch.einsum("d,h,w->dhw", *there)
        lower, upper, mean, deviation = stored.source.norm
        if self.rng.random() < 0.15:  # a field of view with brighter or darker things in it
            factor = math.exp(self.rng.uniform(-0.5, 0.5))
            mean, deviation = mean + self.rng.normal(0, 0.2) * deviation, deviation * factor
        image = resample(stored.image[tuple(slices)].to(self.half), parts)
        label = resample((stored.label[tuple(slices)] == value).to(self.half), parts)
        grey = (image * ((upper - lower) / 255) + (lower - mean)) / deviation
        visible = self.narrow(stored, value, place, inside) if self.rng.random() < 0.15 else inside
        return torch.stack([grey * inside, label, visible])

    def narrow(self, stored: StoredVolume, value: int, place: CropPosition, inside: Tensor) -> Tensor:
        """Return `inside` without voxels far from the target, as in a cropped volume."""
        target, near = stored.source.targets[value], torch.zeros_like(inside)
        first, last = ((t - place.centre) * stored.source.spacing / place.spacing for t in (target.lower, target.upper))
        margin = self.rng.uniform(0.1, 1, (2, 3)) * (last - first + 1)
        lower = np.clip(np.round(first - margin[0] + SIZE / 2), 0, SIZE - 1).astype(int)
        upper = np.clip(np.round(last + margin[1] + SIZE / 2), lower + 1, SIZE).astype(int)
        near[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))] = 1
        return inside * near

    def turn(self, rows: Tensor) -> Tensor:
        """Turn the crops to another orientation."""
        axes = [0, 1, 2] if self.rng.random() < 0.7 else list(self.rng.permutation(3))
        flips = [axis + 1 for axis in range(3) if self.rng.random() < 0.5]
        return rows.permute(0, *(int(axis) + 1 for axis in axes)).flip(flips).contiguous()

    def slant(self, crops: Tensor) -> Tensor:
        """Rotate some of the crops by an angle and shear them."""
        rng, chosen, turns = self.rng, [], []
        for index in range(len(crops)):
            if rng.random() < 0.3:
                shear = np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3)) * (1 - np.eye(3))
                chosen.append(index)
                turns.append(rotation(rng.uniform(-0.4, 0.4, 3)) @ shear @ np.diag(rng.uniform(0.85, 1.2, 3)))
        if chosen:
            theta = torch.from_numpy(np.pad(np.stack(turns), ((0, 0), (0, 0), (0, 1)))).float().to(self.device)
            grid = F.affine_grid(theta, [len(chosen), 3, SIZE, SIZE, SIZE], align_corners=False)
            for index, where in zip(chosen, grid, strict=True):
                crops[index] = F.grid_sample(crops[index : index + 1], where[None], align_corners=False)[0]
        return crops

    def intensities(self, x: Tensor) -> Tensor:
        """Change the intensities of an image (1, 1, SIZE, SIZE, SIZE) to those of another scanner."""
        rng = self.rng
        if rng.random() < 0.1:
            edge, size = max(32, int(SIZE * rng.uniform(0.4, 0.9))), [SIZE] * 3
            size = [edge] * 3 if rng.random() < 0.5 else size
            size[rng.integers(3)] = edge
            x = F.interpolate(F.interpolate(x, size=size, mode="trilinear"), size=(SIZE,) * 3, mode="trilinear")
        lower, upper = x.amin(), x.amax()
        span = (upper - lower).clamp(min=1e-3)
        if rng.random() < 0.2:
            nodes = int(rng.integers(4, 10))
            heights = np.sort(np.concatenate([[0, 1], rng.random(nodes - 2)]))
            curve = torch.from_numpy(0.5 * heights + 0.5 * np.linspace(0, 1, nodes)).float().to(self.device)
            place = ((x - lower) / span).clamp(0, 1) * (nodes - 1)
            index = place.long().clamp(max=nodes - 2)
            x = torch.lerp(curve[index], curve[index + 1], place - index) * span + lower
        if rng.random() < 0.3:
            x = ((x - lower) / span).clamp(0, 1) ** math.exp(rng.uniform(-0.5, 0.5)) * span + lower
        if rng.random() < 0.7:
            x = x * (1 + rng.uniform(-0.4, 0.4))
        if rng.random() < 0.7:
            x = x + rng.uniform(-0.4, 0.4)
        if rng.random() < 0.1:
            x = -x
        if rng.random() < 0.12:
            x = blur(x, rng.uniform(0.5, 1.2))
        if rng.random() < 0.25:
            x = x + torch.randn_like(x) * rng.uniform(0, 0.25)
        return x


def line_weights(positions: Tensor, size: int, step: float) -> tuple[Tensor, Tensor]:
    """Return weights (SIZE, size) for samples of a line at a spacing, and which samples are on the line."""
    samples = torch.arange(size, device=positions.device, dtype=torch.float32)
    weights = (1 - (positions.clamp(0, size - 1)[:, None] - samples).abs() / max(1.0, step)).clamp(min=0)
    inside = (positions >= -0.5) & (positions <= size - 0.5)
    return weights / weights.sum(1, keepdim=True) * inside[:, None], inside


def resample(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Apply weights (SIZE, x), (SIZE, y), (SIZE, z) along the axes of a volume; (SIZE, SIZE, SIZE), float32."""
    values = torch.matmul(weights[1], torch.matmul(values, weights[2].T))
    return torch.matmul(weights[0], values.flatten(1)).reshape(SIZE, SIZE, SIZE).float()


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur an image (1, 1, D, H, W) with a Gaussian."""
    kernel = torch.exp(-(torch.arange(-3, 4, device=x.device).float() ** 2) / (2 * sigma**2))
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[axis + 2], padding[axis] = 7, 3
        x = F.conv3d(x, (kernel / kernel.sum()).view(shape), padding=padding)
    return x


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return a rotation by three angles, one about each axis."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        one = np.eye(3)
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn
