"""A whole phantom, in memory and as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from sam3d_label.errors import Sam3dError
from sam3d_label.io import replacing
from sam3d_label.synthetic.anatomy import Modality, Scene, paint_anatomy, random_tissues
from sam3d_label.synthetic.geometry import Array, Grid
from sam3d_label.synthetic.label_mosaic import make_mosaic
from sam3d_label.synthetic.lesions import Lesion, grow_distractors, grow_lesion, paint_lesions
from sam3d_label.synthetic.scanner import acquire, choose_grid, random_affine

MODALITIES: tuple[Modality, ...] = get_args(Modality)
PATIENTS = 30


class PhantomMeta(TypedDict):
    """Kind, size and contrast of a phantom's lesion.

    Attributes:
        modality: ``ct`` or ``mr``.
        lesion: kind of the lesion.
        contrast: lesion minus the tissue before; HU, or the share of the MR scale.
        diameter_mm: the longest, as drawn.
        volume_ml: of the label.
        distractors: how many there are.
        orientation: axis codes such as ``LPS``.
    """

    modality: Modality
    lesion: str
    contrast: float
    diameter_mm: float
    volume_ml: float
    distractors: int
    orientation: str


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume and its ground truth.

    Attributes:
        image: float32 (I, J, K); HU for CT, an arbitrary positive scale for MR.
        label: uint8 (I, J, K), 1 in the lesion (its necrotic core included), 0 elsewhere.
        affine: float64 (4, 4), voxel (i, j, k) to RAS millimetres.
        meta: kind, size and contrast of the lesion, and the grid's orientation.
        distractors: uint8 (I, J, K), 1 in look-alike lesions that are not labelled; disjoint from ``label``.
        organs: uint8 (I, J, K), 1 to n in the visible parts of the organs, without lesions.
    """

    image: Array
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    meta: PhantomMeta
    distractors: NDArray[np.uint8]
    organs: NDArray[np.uint8]


def make_phantom(
    rng: np.random.Generator,
    shape: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    modality: Modality | None = None,
) -> Phantom:
    """Make one phantom, which depends only on the state of ``rng``.

    Args:
        rng: the source of randomness.
        shape: voxels (I, J, K), each at least 8; random (96 to 160 in plane, 32 to 64 slices) without it.
        spacing: millimetres per voxel along I, J, K; random (0.6 to 1.5 in plane, 1 to 6 between slices)
            without it.
        modality: ``"ct"`` or ``"mr"``; either without it.

    Returns:
        The phantom. Its label is never empty and never fills more than 60 % of the volume.

    Raises:
        Sam3dError: an axis under 8 voxels, a spacing that is not positive, or an unknown modality.
    """
    shape, spacing = choose_grid(rng, shape, spacing)
    if modality is None:
        modality = "ct" if rng.random() < 0.5 else "mr"
    if modality not in MODALITIES:
        raise Sam3dError(f"modality must be one of {', '.join(MODALITIES)}, not {modality!r}")
    affine = random_affine(rng, shape, spacing)
    long_axis = int(np.argmax(np.abs(affine[2, :3]) / np.array(spacing)))

    scene, lesion = _paint_patient(rng, Grid.centred(shape, spacing), modality, long_axis)
    others = grow_distractors(rng, scene, lesion)
    contrast = paint_lesions(rng, scene, lesion, others)
    image = acquire(rng, scene, modality, abs(contrast))

    label = lesion.mask.astype(np.uint8)
    distractors = np.zeros(shape, dtype=np.uint8)
    for other in others:
        distractors[other.mask] = 1
    organs = np.where(label | distractors, 0, scene.organs).astype(np.uint8)
    meta: PhantomMeta = {
        "modality": modality,
        "lesion": lesion.kind,
        "contrast": contrast,
        "diameter_mm": lesion.diameter,
        "volume_ml": float(label.sum() * np.prod(spacing) / 1000),
        "distractors": len(others),
        "orientation": "".join(nib.aff2axcodes(affine)),
    }
    return Phantom(image=image, label=label, affine=affine, meta=meta, distractors=distractors, organs=organs)


def write_phantoms(
    out: Path, cases: int, seed: int, organs: bool = False, progress: Callable[[str, int, int], None] | None = None
) -> list[Path]:
    """Write ``OUT/images/phantom_000.nii.gz`` … and ``OUT/labels/phantom_000.nii.gz`` … .

    Every case has its own stream of randomness, so case n does not depend on the number of cases. Images are int16
    (values rounded), labels uint8, both with the same affine. Files are written atomically.

    Args:
        out: the folder to write to; made when missing.
        cases: how many, at least 1.
        seed: of the whole set, not negative.
        organs: write ``OUT/organs/phantom_000.nii.gz`` …, the organs around the lesion, too.
        progress: called with the name, the number of cases done and the number of all, before each case and at the end.

    Returns:
        The paths of the images, in order.

    Raises:
        Sam3dError: no cases, or a negative seed.
    """
    paths = []
    for index, rng in enumerate(_streams(cases, seed)):
        name = phantom_name(index)
        if progress:
            progress(name, index, cases)
        phantom = make_phantom(rng)
        save_nifti(out / "labels" / name, phantom.label, phantom.affine)
        if organs:
            save_nifti(out / "organs" / name, phantom.organs, phantom.affine)
        paths.append(save_nifti(out / "images" / name, np.rint(phantom.image).astype(np.int16), phantom.affine))
    if progress:
        progress("", cases, cases)
    return paths


def phantom_name(index: int) -> str:
    """Return the file name of a phantom of a set."""
    return f"phantom_{index:03d}.nii.gz"


def write_mosaics(out: Path, cases: int, seed: int) -> list[Path]:
    """Write ``OUT/images/mosaic_000.nii.gz`` … and ``OUT/labels/mosaic_000.nii.gz`` …, as `write_phantoms` does."""
    paths = []
    for index, rng in enumerate(_streams(cases, seed)):
        mosaic = make_mosaic(rng)
        name = f"mosaic_{index:03d}.nii.gz"
        save_nifti(out / "labels" / name, mosaic.label, mosaic.affine)
        paths.append(save_nifti(out / "images" / name, np.rint(mosaic.image).astype(np.int16), mosaic.affine))
    return paths


def _streams(cases: int, seed: int) -> list[np.random.Generator]:
    """Return a stream of randomness for each case of a set."""
    if cases < 1:
        raise Sam3dError(f"the number of cases must be at least 1, not {cases}")
    if seed < 0:
        raise Sam3dError(f"the seed must not be negative, and it is {seed}")
    return [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(cases)]


def _paint_patient(rng: np.random.Generator, grid: Grid, modality: Modality, long_axis: int) -> tuple[Scene, Lesion]:
    """Return an anatomy that has room for a lesion, and the lesion, which is not painted yet."""
    for _ in range(PATIENTS):
        scene = paint_anatomy(rng, grid, random_tissues(rng, modality), long_axis)
        lesion = grow_lesion(rng, scene)
        if lesion is not None:
            return scene, lesion
    raise Sam3dError(f"no lesion fits into {grid.shape} voxels of {grid.spacing} mm: ask for a larger volume")


def save_nifti(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64]) -> Path:
    """Write an array (I, J, K) as a NIfTI file, atomically, and make its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti = nib.Nifti1Image(array, affine)
    nifti.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(nifti, temporary)
    return path
