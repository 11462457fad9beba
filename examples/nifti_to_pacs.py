"""Writes volumes as DICOM series and sends them to a DICOMweb server (STOW-RS), as test data for a PACS.

    python examples/nifti_to_pacs.py http://127.0.0.1:8042/dicom-web ct.nii.gz mr.nii.gz

Each volume becomes one study of one patient, named after the file. The identifiers depend on name and content only, so
a volume that is sent again replaces itself. Not for clinical data: what DICOM requires and a NIfTI file does not have
is left empty.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.volume import Volume

RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])
STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}
AIR = -200
"""Volumes with intensities below it are CT, HU."""

START_SECONDS = 120


def slices(path: Path) -> Iterator[pydicom.Dataset]:
    """Yield the slices of a volume as DICOM instances.

    Raises:
        VolumeError: It cannot be read, its axes are not perpendicular, or its intensities do not fit into 16 bits.
    """
    volume = Volume.open(path)
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    affine, spacing = RAS_TO_LPS @ volume.affine, volume.spacing
    axes = affine[:3, :3] / spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise VolumeError(f"{path.name}: its axes are not perpendicular, so its slices are no DICOM series")
    voxels = np.rint(volume.array)
    if voxels.min() < -(2**15) or voxels.max() >= 2**15:
        raise VolumeError(f"{path.name}: its intensities do not fit into 16 bits")
    stored = voxels.astype(np.int16)
    modality = "CT" if stored.min() < AIR else "MR"
    digest = hashlib.sha256(stored.tobytes() + affine.tobytes()).hexdigest()
    for k in range(stored.shape[2]):
        instance = _instance(
            modality, *(generate_uid(entropy_srcs=[name, digest, part]) for part in ("study", "series"))
        )
        instance.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, digest, str(k)])
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID
        instance.PatientID = instance.PatientName = instance.StudyDescription = name
        instance.InstanceNumber = k + 1
        instance.ImageOrientationPatient = [round(float(value), 8) for value in (*axes[:, 0], *axes[:, 1])]
        instance.ImagePositionPatient = [round(float(value), 6) for value in affine[:3] @ (0, 0, k, 1)]
        instance.PixelSpacing = [round(float(spacing[1]), 6), round(float(spacing[0]), 6)]
        instance.SliceThickness = round(float(spacing[2]), 6)
        pixels = np.ascontiguousarray(stored[:, :, k].T)
        instance.Rows, instance.Columns = pixels.shape
        instance.PixelData = pixels.tobytes()
        yield instance


def _instance(modality: str, study: str, series: str) -> pydicom.Dataset:
    """Return what the instances of a series share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = STORAGE[modality], ExplicitVRLittleEndian
    instance = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    instance.is_little_endian, instance.is_implicit_VR = True, False
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SOPClassUID, instance.Modality = STORAGE[modality], modality
    instance.StudyInstanceUID, instance.SeriesInstanceUID = study, series
    instance.FrameOfReferenceUID = series
    instance.SeriesNumber = 1
    instance.StudyDate = instance.StudyTime = instance.PatientBirthDate = instance.PatientSex = ""
    instance.AccessionNumber = instance.StudyID = instance.ReferringPhysicianName = ""
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        instance.RescaleSlope, instance.RescaleIntercept = 1, 0
    return instance


def wait_for(url: str, seconds: float = START_SECONDS) -> None:
    """Wait until a DICOMweb server answers; raise a Sam3dError if it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(f"{url}/studies", params={"limit": 1}, timeout=10).raise_for_status()
            return
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                raise Sam3dError(f"{url} does not answer: {error}") from None
            time.sleep(1)


def main() -> None:
    """Send each volume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the DICOMweb server")
    parser.add_argument("volumes", type=Path, nargs="+", help="NIfTI, NRRD or MHA files")
    arguments = parser.parse_args()
    try:
        wait_for(arguments.url)
        client = DICOMwebClient(arguments.url)
        for path in arguments.volumes:
            instances = list(slices(path))
            client.store_instances(instances)
            print(f"sent {path.name}: {len(instances)} slices", flush=True)
    except (Sam3dError, OSError) as error:  # a RequestException is an OSError
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
