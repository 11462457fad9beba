"""A real DICOMweb server for the tests: Debian's Orthanc on free ports of this machine, in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sam3d_label.serving import HOST, free_port, serving

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DICOM_WEB = "/dicom-web"


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        url: Of its own REST interface.
        user: Name and password that it asks for; None when it asks for none.
    """

    url: str
    user: tuple[str, str] | None = None

    @property
    def dicom_web(self) -> str:
        """What `--studies` takes."""
        return self.url + DICOM_WEB

    def store(self, files: Iterable[Path]) -> None:
        """Stores DICOM files."""
        with self._client() as client:
            for file in files:
                client.post("/instances", content=file.read_bytes()).raise_for_status()

    def search(self, **filters: str) -> list[dict[str, Any]]:
        """The series that match filters such as `Modality="SEG"`, in DICOM JSON."""
        with self._client() as client:
            answer = client.get(f"{DICOM_WEB}/series", params={**filters, "includefield": "all"})
        return list(answer.raise_for_status().json())

    def instance(self, series: str) -> bytes:
        """The one DICOM file of a series."""
        with self._client() as client:
            found = client.post("/tools/find", json={"Level": "Instance", "Query": {"SeriesInstanceUID": series}})
            (number,) = found.raise_for_status().json()
            return bytes(client.get(f"/instances/{number}/file").raise_for_status().content)

    def remove(self, series: str) -> None:
        """Removes a series."""
        with self._client() as client:
            found = client.post("/tools/find", json={"Level": "Series", "Query": {"SeriesInstanceUID": series}})
            for number in found.raise_for_status().json():
                client.delete(f"/series/{number}").raise_for_status()

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=self.user, timeout=60)


@contextmanager
def orthanc(folder: Path, user: tuple[str, str] | None = None, port: int | None = None) -> Iterator[Orthanc]:
    """Starts Orthanc, waits until it answers, and ends it; skips the test where it is not installed.

    Args:
        folder: Where it keeps its files; a second start on the same folder finds them again.
        user: Name and password to ask for.
        port: Its HTTP port; a free one without it.
    """
    if ORTHANC is None or not PLUGIN.exists():
        pytest.skip("no Orthanc here: apt-get install orthanc orthanc-dicomweb")
    port = port or free_port()
    configuration = folder / "orthanc.json"
    folder.mkdir(parents=True, exist_ok=True)
    configuration.write_text(json.dumps(_configuration(folder, port, user)), encoding="utf-8")
    server = Orthanc(f"http://{HOST}:{port}", user)
    command, log = [ORTHANC, str(configuration)], folder / "log"
    with serving(command, server.url, log, ready="/system", folder=folder, seconds=60):
        yield server


def _configuration(folder: Path, port: int, user: tuple[str, str] | None) -> Mapping[str, Any]:
    return {
        "HttpPort": port,
        "DicomPort": free_port(),
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": user is not None,
        "RegisteredUsers": dict([user]) if user else {},
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": f"{DICOM_WEB}/"},
    }
