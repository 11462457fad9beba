"""Volumes as stored, and the conversion between their voxels and crops for the network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from sam3d_label.errors import StorageError, VolumeError
from sam3d_label.image.dicom import read_dicom_folder
from sam3d_label.image.frame import CropFrame
from sam3d_label.image.grid import corner_shift, same_place
from sam3d_label.image.intensity import Normalization, sample
from sam3d_label.image.itk_geometry import LPS_FROM_RAS
from sam3d_label.image.limits import Limits, default_limits
from sam3d_label.image.nifti_header import Forms
from sam3d_label.image.read import read_image
from sam3d_label.image.region import Region
from sam3d_label.image.suffixes import MASK_SUFFIXES, NIFTI_SUFFIXES
from sam3d_label.io import replacing, require_space

if TYPE_CHECKING:
    from torch import Tensor

CROP_AXES = "SPL"
"""Where the axes D, H and W of a crop point: superior, posterior, left, as slices of an axial scan are stacked."""

SHEARED = 1e-4
"""Cosine of the angle between two axes from which on ITK does not take them to be at right angles."""

PART, HASHERS = 2**22, 4
"""Voxels that are hashed at a time, and threads that do so."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is checked here and raised in one line


class Volume:
    """One scalar 3D image as it is stored.

    Args:
        array: Intensities (I, J, K).
        affine: 4 x 4, voxel i, j, k to world mm, RAS as in nibabel.
        path: File or folder that it came from.
        forms: How the header of a NIfTI file places the voxels; masks in NIfTI files get the same.
        modality: DICOM modality, such as CT or MR, where it is known.
        digest: Hash of the voxels as stored, where they were read from a file.

    Raises:
        VolumeError: It is not 3D, has no voxels, holds NaN or infinity, or its affine is degenerate.
    """

    def __init__(
        self,
        array: np.ndarray,
        affine: np.ndarray,
        *,
        path: Path | None = None,
        forms: Forms | None = None,
        modality: str | None = None,
        digest: bytes | None = None,
    ) -> None:
        name = "it" if path else "the array"
        if array.ndim != 3:
            raise VolumeError(f"{name} has {array.ndim} dimensions {array.shape}: one scalar 3D volume is needed")
        if min(array.shape) < 2:
            raise VolumeError(f"{name} is {array.shape}: a volume needs at least two voxels along each axis")
        with np.errstate(over="ignore"):  # counted below
            self.array = np.ascontiguousarray(array, dtype=np.float32)
        if broken := count_broken(self.array):
            raise VolumeError(f"{name} holds {broken} voxels that are NaN or infinite: replace them and store it again")
        self.affine = np.asarray(affine, float)
        if not is_regular(self.affine):
            raise VolumeError(f"{name} has a degenerate affine, so its geometry is unknown: {self.affine.tolist()}")
        self.path = path
        self.forms = forms
        self.modality = modality
        self._digest = digest

    @classmethod
    def open(cls, path: str | os.PathLike[str], limits: Limits | None = None) -> Volume:
        """Read a NIfTI, NRRD or MetaImage file that holds its own voxels, or a folder with one DICOM series.

        Every byte is verified: sizes against the header, checksums of compressed voxels, and the end of the file.

        Args:
            path: File or folder.
            limits: How large the volume may be; without it, the default limits.

        Raises:
            VolumeError: It does not exist, is damaged, too large, or not one scalar 3D image, or refers to other files.
        """
        if not os.fspath(path):
            raise VolumeError("the volume has no file: it was removed")
        path = Path(path)
        limits = limits or default_limits()
        if not path.exists():
            raise VolumeError(f"{path.name} does not exist")
        try:
            if path.is_dir():
                image = read_dicom_folder(path, limits)
            elif path.is_file():
                image = read_image(path, limits)
            else:
                raise VolumeError("it is neither a file nor a folder")
            return cls(
                image.array,
                image.affine,
                path=path,
                forms=image.forms,
                modality=image.modality,
                digest=image.digest,
            )
        except VolumeError as error:
            raise VolumeError(f"{path.name} cannot be read as a volume: {error}") from error
        except MemoryError as error:
            raise VolumeError(f"{path.name} does not fit into memory: crop it, or close other programs") from error
        except OSError as error:
            raise VolumeError(f"{path.name} cannot be read: {error.strerror or type(error).__name__}") from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j and k."""
        i, j, k = self.array.shape
        return i, j, k

    @cached_property
    def spacing(self) -> np.ndarray:
        """Edges of a voxel along i, j and k, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @cached_property
    def sample(self) -> np.ndarray:
        """The intensities from which statistics are taken, (N,): see `sam3d_label.image.intensity.sample`."""
        return np.ascontiguousarray(sample(self.array))

    @cached_property
    def signature(self) -> str:
        """Hash of the intensities, the shape and the affine.

        For a volume from a file the intensities are hashed as stored: a file of another type has another hash.
        """
        digest = hashlib.blake2b(repr(self.shape).encode(), digest_size=16)
        for part in [self._digest] if self._digest else self._part_digests():
            digest.update(part)
        digest.update(self.affine.tobytes())
        return digest.hexdigest()

    def _part_digests(self) -> Iterator[bytes]:
        flat = self.array.reshape(-1)
        with ThreadPoolExecutor(HASHERS) as threads:
            yield from threads.map(part_digest, (flat[at : at + PART] for at in range(0, flat.size, PART)))

    def frame(self, centre: Sequence[float], spacing: float, size: int) -> CropFrame:
        """Return a crop of `size` voxels of `spacing` mm around the stored voxel `centre`."""
        stored = nib.orientations.io_orientation(self.affine)
        wanted = nib.orientations.axcodes2ornt(tuple(CROP_AXES))
        world_to_stored = {int(world): (axis, sign) for axis, (world, sign) in enumerate(stored)}
        pairs = [(world_to_stored[int(world)], sign) for world, sign in wanted]
        d, h, w = (axis for (axis, _), _ in pairs)
        sd, sh, sw = (float(sign * flip / self.spacing[axis]) for (axis, flip), sign in pairs)
        i, j, k = (float(c) for c in centre)
        return CropFrame((i, j, k), float(spacing), size, (d, h, w), (sd, sh, sw))

    def cropped(self, region: Region) -> Volume:
        """Return the voxels of a region as a volume at the same place, at least two along each axis."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ [*(along.start for along in region), 1])[:3]
        return Volume(self.array[region], affine, modality=self.modality)

    def crop(self, frame: CropFrame, normalization: Normalization | None = None) -> Tensor:
        """Return intensities (D, H, W), float32, of a crop; 0 outside the volume.

        Resampling is linear, averaging over the crop's voxel where it is coarser than the stored ones.
        """
        from sam3d_label.image.resample import read_crop  # imports torch, which reading a volume does not need

        return read_crop(self.array, self.spacing, frame, normalization)

    def uncrop(self, values: Tensor, frame: CropFrame, within: Region | None = None) -> tuple[np.ndarray, Region]:
        """Return a crop's values (D, H, W) on the stored grid.

        Args:
            values: (D, H, W).
            frame: The crop.
            within: Compute only this region of the stored grid.

        Returns:
            The values (i, j, k), float32, of the part of the stored grid that the crop covers, and that part's slices.
        """
        from sam3d_label.image.resample import write_crop

        return write_crop(values, frame, self.shape, self.spacing, within)

    def require_plausible_size(self, limits: Limits | None = None) -> None:
        """Check that voxels and volume have sizes that scanners produce; others could make computations endless.

        Args:
            limits: Shortest and longest edges; without it, the default limits.

        Raises:
            VolumeError: A size is outside the limits.
        """
        try:
            (limits or default_limits()).check_spacing(self.shape, self.spacing)
        except VolumeError as error:
            raise VolumeError(f"{self.path.name if self.path else 'the volume'} cannot be used: {error}") from error

    def require_same_grid(self, other: Volume) -> None:
        """Check that another volume, such as a label, has this one's voxels at the same places.

        Raises:
            VolumeError: The shapes differ, or a corner is more than half a voxel away.
        """
        if other.shape != self.shape:
            raise VolumeError(f"the label's shape {other.shape} is not the image's {self.shape}")
        apart = corner_shift(self.affine, other.affine, self.shape)
        if not same_place(apart, self.affine):
            raise VolumeError(f"the label is up to {apart:.1f} mm away from the image: both need the same affine")


def count_broken(array: np.ndarray) -> int:
    """Return the number of values that are NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):  # the sum of any such value is none, and takes a third of the time
            return 0
    return int(array.size - np.isfinite(array).sum())


def part_digest(part: np.ndarray) -> bytes:
    """Return a hash of a contiguous array's bytes."""
    return hashlib.blake2b(part.data, digest_size=16).digest()


def is_regular(affine: np.ndarray) -> bool:
    """Return whether an affine is finite and its three axes span the space, whatever their lengths."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)


def require_mask_suffix(path: Path) -> None:
    """Raise `VolumeError` unless masks can be written in the format that a file's name asks for."""
    if not path.name.endswith(MASK_SUFFIXES):
        raise VolumeError(f"{path} cannot be written: the name of a mask ends in {', '.join(MASK_SUFFIXES)}")


def require_mask_geometry(path: Path, volume: Volume) -> None:
    """Raise `VolumeError` unless every program shows a mask in a file of this name at the position of its volume.

    ITK and Slicer do not open NIfTI files whose axes are sheared, as those of a series with a tilted gantry are. A mask
    of a NIfTI file has the fields of that file, so the same programs open it. Volumes without a file are not checked.
    """
    is_other_file = volume.path is not None and volume.forms is None
    if path.name.endswith(NIFTI_SUFFIXES) and is_other_file and _shear(volume.affine) > SHEARED:
        raise VolumeError(
            f"{path.name} cannot be a NIfTI file: the volume's axes are sheared (as with a tilted gantry), and ITK and "
            "Slicer do not open such NIfTI files; write .nrrd"
        )


def _shear(affine: np.ndarray) -> float:
    """Return the largest cosine of the angle between two axes of a grid; 0 where they are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def save_mask(path: str | os.PathLike[str], mask: np.ndarray, volume: Volume, *, compress: bool = True) -> None:
    """Write a mask (I, J, K) on the grid of its volume, atomically.

    The format follows the suffix, one of `MASK_SUFFIXES`: NIfTI through nibabel, placed by the same fields of the
    header as the volume's own NIfTI file; NRRD and MetaImage through ITK. `compress` holds for the formats of ITK
    (NRRD: gzip, else raw).

    Raises:
        VolumeError: The shapes differ, the format cannot hold the geometry, or the file cannot be written.
        StorageError: The disk is full or the folder read-only.
    """
    path = Path(path)
    if mask.shape != volume.shape:
        raise VolumeError(f"a mask of {mask.shape} voxels does not fit a volume of {volume.shape}")
    require_mask_suffix(path)
    require_mask_geometry(path, volume)
    try:
        with replacing(path, durable=False) as temporary:
            if path.name.endswith(NIFTI_SUFFIXES):
                nib.save(_nifti(mask, volume), temporary)
            else:
                sitk.WriteImage(to_itk(mask, volume.affine), str(temporary), compress)
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:
        require_space(path, error)
        raise VolumeError(f"{path} cannot be written: {last_line(error)}") from error


def _nifti(mask: np.ndarray, volume: Volume) -> nib.Nifti1Image:
    """Return a mask with the geometry of its volume, in the forms of the volume's own header where it has one.

    Programs differ in the form that they use. With the same forms as its image, a mask has the position of the image in
    all of them.
    """
    if volume.forms is None:
        return nib.Nifti1Image(mask, volume.affine)
    header = nib.Nifti1Header()
    header.set_data_dtype(mask.dtype)
    header.set_data_shape(mask.shape)
    volume.forms.apply(header)
    return nib.Nifti1Image(mask, None, header)


def to_itk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Return an ITK image (LPS) of an array (I, J, K) with a RAS affine."""
    lps = LPS_FROM_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def last_line(error: BaseException) -> str:
    """Return the last non-empty line of an error's message, which in ITK contains the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
