"""Cuts the real case of sample-data out of a case of PyRadiomics' source distribution.

    python scripts/sample_case.py pyradiomics-3.0.1.tar.gz sample-data

The source distribution is under "Download files" of https://pypi.org/project/pyradiomics/3.0.1/. It has CT volumes with
lung tumours for the tests of PyRadiomics (BSD-3-Clause). The crop around the tumour of `lung2` is small enough to ship.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path

import SimpleITK as sitk

SHA256 = "11795e5537ba3b2d864fce06ca4b3de883b8c316af336ca94e4aa14200368ce3"
SOURCE = "lung2"
NAME = "lung_ct.nii.gz"
REGION = (slice(280, 480), slice(280, 480), slice(0, 48))
"""Voxels i, j, k of the source: the tumour, lung and spine around it, and the skin of the back."""


def require_known(sdist: Path) -> None:
    """Exit with a message unless a file is the source distribution that the crop was made from."""
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"error: {sdist} is not pyradiomics-3.0.1.tar.gz: its SHA-256 is {digest}, not {SHA256}")


def read_member(sdist: Path, name: str) -> sitk.Image:
    """Return the image of a file `data/NAME` of the source distribution."""
    with tarfile.open(sdist) as archive, tempfile.TemporaryDirectory() as folder:
        (member,) = [each for each in archive.getmembers() if each.name.endswith(f"/data/{name}")]
        content = archive.extractfile(member)
        assert content is not None, f"{member.name} is not a file"
        file = Path(folder, name)
        file.write_bytes(content.read())
        return sitk.ReadImage(str(file))


def write_case(sdist: Path, out: Path) -> list[Path]:
    """Write the crop as ``OUT/images/lung_ct.nii.gz``, int16, and its label, 1 in the tumour; return both paths."""
    image, label = (read_member(sdist, f"{SOURCE}_{kind}.nrrd")[REGION] for kind in ("image", "label"))
    written = []
    for kind, part in (("images", sitk.Cast(image, sitk.sitkInt16)), ("labels", label > 0)):
        path = out / kind / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(part, str(path), useCompression=True)
        written.append(path)
    return written


def main() -> None:
    """Read the arguments, check the source and write the case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path, help="pyradiomics-3.0.1.tar.gz")
    parser.add_argument("out", type=Path, help="folder with images/ and labels/")
    arguments = parser.parse_args()
    require_known(arguments.sdist)
    for path in write_case(arguments.sdist, arguments.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
