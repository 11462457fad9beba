"""Pack the training volumes into small files that need no image library.

python -m recipes.tiny_geodesic.pack DATA OUT
"""

from __future__ import annotations

import lzma
import pickle
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from sam3d_label.image.frame import CropFrame
from sam3d_label.image.volume import Volume
from sam3d_label.weights.load import UNTRAINED_INTENSITY as INTENSITY

LAST_TRAINING_PATIENT = 28
GREYS = 64
"""Grey values that are kept of a training volume: the crops interpolate between them."""

SEED = 20262
FINEST = {"mr_head_t1w": 1.2, "ct_": 1.6}
"""Voxel edge, mm, to which volumes are downsampled, by the beginning of their name."""

SEVERAL = ("organs", "vessels")
"""Kinds whose labels name several structures."""


@dataclass
class PackedVolume:
    """One volume for training.

    Attributes:
        name: Name of the file.
        kind: mr, ct, pet, organs, vessels, cord or other.
        image: uint8, axes S, P, L; 0 and 255 are the ends of the intensity rule's window.
        label: uint8, the same axes; structures by value.
        spacing: mm along these axes.
        norm: Lower and upper end, mean and deviation of the intensity rule.
        pieces: Supervoxels, uint8, or None.
    """

    name: str
    kind: str
    image: np.ndarray
    label: np.ndarray
    spacing: np.ndarray
    norm: tuple[float, float, float, float]
    pieces: np.ndarray | None = None

    @classmethod
    def of(cls, name: str, kind: str, volume: Volume, label: np.ndarray, *, greys: int = 256) -> PackedVolume:
        """Pack a volume and its label under the shipped intensity rule."""
        norm = INTENSITY.fit(volume.array)
        frame = volume.frame((0, 0, 0), 1.0, 8)
        share = (np.clip(volume.array, norm.lower, norm.upper) - norm.lower) / max(norm.upper - norm.lower, 1e-6)
        image = np.round(np.round(share * (greys - 1)) * (255 / (greys - 1))).astype(np.uint8)
        return cls(
            name,
            kind,
            in_axes(image, frame),
            in_axes(label.astype(np.uint8), frame),
            np.array([volume.spacing[axis] for axis in frame.axes]),
            (norm.lower, norm.upper, norm.mean, norm.std),
        )

    def write(self, path: Path) -> None:
        """Write it compressed."""
        path.write_bytes(lzma.compress(pickle.dumps(asdict(self), protocol=4), preset=4))

    @classmethod
    def read(cls, path: Path) -> PackedVolume:
        """Read a file of `write`; unpickles, so only trusted files may be read."""
        return cls(**pickle.loads(lzma.decompress(path.read_bytes())))


def in_axes(array: np.ndarray, frame: CropFrame) -> np.ndarray:
    """Return an array of a volume in the axes of its crops, S, P, L."""
    turned = np.transpose(array, frame.axes)
    flips = [axis for axis in range(3) if frame.steps[axis] < 0]
    return np.ascontiguousarray(np.flip(turned, flips))


def volumes(data: Path) -> Iterator[tuple[str, str, Path, Path | None]]:
    """Name, kind, image and label of everything that may train."""
    for folder, kind in (("sts", ""), ("sts_pet", "pet"), ("organs_mr", "organs"), ("vessels", "vessels")):
        for image in sorted((data / folder / "images").glob("*.nii.gz")):
            name = image.name.removesuffix(".nii.gz")
            number = re.match(r"sts_(\d{3})_", name)
            if number and int(number.group(1)) > LAST_TRAINING_PATIENT:
                continue
            yield name, kind or ("ct" if "_ct" in name else "mr"), image, data / folder / "labels" / image.name
    for image in sorted((data / "spinal_cord" / "images").glob("*.nii.gz")):
        yield f"cord_{image.name.removesuffix('.nii.gz')}", "cord", image, data / "spinal_cord" / "labels" / image.name
    for image in sorted((data / "unlabelled").glob("*.nii.gz")):
        yield image.name.removesuffix(".nii.gz"), "other", image, None


def downsample(volume: Volume, finest: float) -> Volume:
    """Downsample a volume to voxels of at least this edge, mm."""
    zoom = np.minimum(1.0, volume.spacing / finest)
    if (zoom > 0.95).all():
        return volume
    array = ndimage.gaussian_filter(volume.array, np.where(zoom < 0.95, 0.4 / zoom, 0))
    array = ndimage.zoom(array, zoom, order=1)
    affine = volume.affine.copy()
    affine[:3, :3] /= np.array(array.shape) / np.array(volume.shape)
    return Volume(array, affine)


def main(data: Path, out: Path) -> None:
    """Write one file for each volume that is not there yet."""
    from sam3d_label.synthetic.supervoxels import find_supervoxels  # reading packs needs less than making them

    out.mkdir(parents=True, exist_ok=True)
    for name, kind, image, label in volumes(data):
        path = out / f"{name}.xz"
        if path.exists():
            continue
        volume = Volume.open(image)
        if label is None:
            volume = downsample(volume, next(mm for start, mm in FINEST.items() if name.startswith(start)))
        drawn = np.zeros(volume.shape, np.uint8) if label is None else Volume.open(label).array.astype(np.uint8)
        packed = PackedVolume.of(name, kind, volume, drawn if kind in SEVERAL else drawn > 0, greys=GREYS)
        if kind in ("mr", "ct", "other", "organs", "vessels"):
            rng = np.random.default_rng([SEED, 0, zlib.crc32(name.encode())])
            pieces = find_supervoxels(volume, INTENSITY.fit(volume.array), drawn > 0, rng)
            packed.pieces = in_axes(pieces, volume.frame((0, 0, 0), 1.0, 8))
        packed.write(path)
        print(f"{name}: {packed.image.shape}, {path.stat().st_size / 2**20:.1f} MB", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
