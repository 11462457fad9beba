"""Cut the real crops of the reference set: python -m recipes.reference_set.cut DATA OUT.

DATA is the folder `data` of pyradiomics 3.0.1's source distribution, which PyPI has as pyradiomics-3.0.1.tar.gz:
SHA-256 47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5. OUT gets images/NAME.nii.gz and
labels/NAME.nii.gz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sam3d_label.errors import Sam3dError
from sam3d_label.image.labels import open_label
from sam3d_label.image.volume import Volume
from sam3d_label.masks import corners
from sam3d_label.synthetic import save_nifti
from sam3d_label.weights.tensors import sha256

SOURCES = {
    "brain1": (2, "fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf"),
    "brain2": (2, "d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e"),
    "breast1": (1, "0e8b668f3ce9b9aacff20dc3c216866f43069ff96b269fb45b76f5e205a431e2"),
    "lung1": (2, "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed"),
    "lung2": (2, "aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651"),
}
"""By name: voxels of a slice that become one, along each edge, and the SHA-256 of the image."""

MARGIN = 25.0
"""Surroundings that are kept on each side of the target, mm."""


def cut(image: Volume, label: Volume, merged: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image (I, J, K), int16, label, uint8, and affine of the surroundings of the target.

    Args:
        image: The whole volume.
        label: Its label.
        merged: Voxels of a slice that become one, along each edge: the mean of the image, the majority of the label.
    """
    found = corners(label.array > 0)
    if found is None:
        raise Sam3dError(f"{label.path} has no target")
    margin = np.ceil(MARGIN / image.spacing).astype(int)
    lower = np.maximum(found[0] - margin, 0)
    edge = np.minimum(found[1] + 1 + margin, image.shape) - lower
    step = np.array([merged, merged, 1])
    edge -= edge % step
    box = tuple(slice(start, start + length) for start, length in zip(lower, edge, strict=True))
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (lower + (step - 1) / 2)
    affine[:3, :3] *= step
    means = [_merged(array[box], step) for array in (image.array, (label.array > 0).astype(np.float32))]
    return np.rint(means[0]).astype(np.int16), (means[1] >= 0.5).astype(np.uint8), affine


def _merged(array: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the mean of each block of `step` voxels."""
    blocks = array.reshape(*(part for pair in zip(array.shape // step, step, strict=True) for part in pair))
    return np.asarray(blocks.mean(axis=(1, 3, 5)))


def main(
    data: Annotated[Path, typer.Argument(help="Folder `data` of pyradiomics 3.0.1.")],
    out: Annotated[Path, typer.Argument(help="Folder for images/ and labels/.")],
) -> None:
    """Cut all crops."""
    for name, (merged, digest) in SOURCES.items():
        source = data / f"{name}_image.nrrd"
        if not source.is_file() or sha256(source) != digest:
            raise Sam3dError(f"{source} is not the file of pyradiomics 3.0.1")
        image, label, affine = cut(Volume.open(source), open_label(data / f"{name}_label.nrrd"), merged)
        save_nifti(out / "images" / f"{name}.nii.gz", image, affine)
        save_nifti(out / "labels" / f"{name}.nii.gz", label, affine)


if __name__ == "__main__":
    typer.run(main)
