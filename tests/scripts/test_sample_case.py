"""The script that cuts the real sample case out of PyRadiomics' source distribution."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import sample_case
import SimpleITK as sitk

SHAPE_KJI = (50, 490, 490)
ORIGIN, SPACING = (170.5, 324.5, -360.0), (0.625, 0.625, 5.0)


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """An archive laid out as PyRadiomics' is, with one bright voxel in the tumour."""
    image = np.full(SHAPE_KJI, -1024, np.int16)
    image[20, 360, 361] = 55
    path = tmp_path / "pyradiomics-3.0.1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for kind, array in (("image", image), ("label", (image == 55).astype(np.int32) * 7)):
            stored = sitk.GetImageFromArray(array)
            stored.SetOrigin(ORIGIN)
            stored.SetSpacing(SPACING)
            file = tmp_path / f"lung2_{kind}.nrrd"
            sitk.WriteImage(stored, str(file), useCompression=True)
            archive.add(file, f"pyradiomics-3.0.1a3/data/{file.name}")
    return path


def test_the_crop_keeps_voxels_and_their_places(sdist: Path, tmp_path: Path) -> None:
    image, label = (sitk.ReadImage(str(path)) for path in sample_case.write_case(sdist, tmp_path / "out"))
    assert image.GetSize() == label.GetSize() == (200, 200, 48)
    assert image.GetPixelID() == sitk.sitkInt16
    assert label.GetPixelID() == sitk.sitkUInt8
    bright = image.TransformPhysicalPointToIndex(
        [o + s * n for o, s, n in zip(ORIGIN, SPACING, (361, 360, 20), strict=True)]
    )
    assert (image[bright], label[bright]) == (55, 1)
    assert sitk.GetArrayViewFromImage(label).sum() == 1


def test_another_archive_is_rejected(sdist: Path) -> None:
    with pytest.raises(SystemExit, match=r"is not pyradiomics-3\.0\.1\.tar\.gz"):
        sample_case.require_known(sdist)
