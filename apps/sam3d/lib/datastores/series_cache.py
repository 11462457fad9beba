"""Downloaded series of a DICOMweb server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydicom.dataset import Dataset

from lib.datastores.dicom_client import DicomWeb
from lib.datastores.dicom_seg_list import NIFTI
from lib.datastores.dicom_series import keep_headers, keep_volume, open_series, read_headers
from sam3d_label.errors import VolumeError


class SeriesCache:
    """Series as NIfTI with the headers of their slices, by SeriesInstanceUID.

    Args:
        folder: The cache folder. Volumes are in it, headers in `.sam3d/headers`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def volume_file(self, series: str) -> Path:
        """Return the path of a series as NIfTI, whether it exists or not."""
        return Path(self._folder, series + NIFTI).resolve()

    def read_headers(self, series: str) -> list[Dataset]:
        """Read the headers of the slices of a downloaded series, in the order of the volume."""
        return read_headers(self._header_folder(series))

    def download(self, server: DicomWeb, study: str, series: str) -> None:
        """Download a series.

        Raises:
            VolumeError: Its slices do not form one volume.
            RemoteError: The server does not respond.
        """
        scratch = Path(self._folder, ".sam3d")
        scratch.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="download-") as folder:
            slices, headers = Path(folder, "slices"), Path(folder, "headers")
            slices.mkdir()
            server.download(study, series, slices)
            try:
                volume, headers_read = open_series(slices)
            except VolumeError as error:
                reason = str(error).replace(str(slices), "it")
                raise VolumeError(f"Series {series} cannot be used: {reason}") from error
            keep_headers(headers_read, headers)
            self._header_folder(series).parent.mkdir(exist_ok=True)
            _put(headers, self._header_folder(series), Path(folder, "old"))
            keep_volume(volume, self.volume_file(series))

    def remove(self, series: str) -> None:
        """Remove the files of a series, if there are any."""
        self.volume_file(series).unlink(missing_ok=True)
        for header in self._header_folder(series).glob("*"):
            header.unlink(missing_ok=True)

    def _header_folder(self, series: str) -> Path:
        return Path(self._folder, ".sam3d", "headers", series)


def _put(source: Path, destination: Path, aside: Path) -> None:
    """Move a folder to a path where another version may be, also while another process does the same."""
    if destination.exists():
        os.replace(destination, aside)
    try:
        os.replace(source, destination)
    except OSError:
        if not destination.exists():
            raise
