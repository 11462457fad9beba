"""Requests to a DICOMweb server, with timeouts and with error messages without secrets."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from lib.datastores.metadata import PATIENT
from lib.errors import RemoteError
from sam3d_label.errors import Sam3dError

CONNECT_SECONDS, READ_SECONDS = 5, 30
"""How long the server may take to accept a connection, and to send the next piece of an answer."""

MOST_DOWNLOADS = 16
"""Downloads at a time, fewer than the server has threads."""

FIELDS = ("StudyInstanceUID", "PatientID", "SeriesDescription", "StudyDate", "NumberOfSeriesRelatedInstances")
PIXELS = "7FE00010"
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
ENVIRONMENT = "MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD"
ANY_TRANSFER_SYNTAX = (("application/dicom", "*"),)

config.settings.reading_validation_mode = config.IGNORE  # its warnings show the values of elements
logging.getLogger("dicomweb_client").setLevel(logging.WARNING)  # it logs every call


@dataclass(frozen=True)
class Series:
    """A series as the server lists it.

    Attributes:
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        modality: Such as CT.
        instances: How many instances it has; None where the server does not say.
        info: What clients may know about it; its patient only as a hash.
    """

    uid: str
    study: str
    modality: str
    instances: int | None
    info: Mapping[str, object]


class DicomWeb:
    """A DICOMweb server.

    Args:
        url: Of its DICOMweb service.
        session: Session to reach it with, such as one that knows Google's credentials; without it, a new one with the
            user and password of MONAI Label's settings, if there are any.

    Raises:
        Sam3dError: The URL holds a user or password.
    """

    def __init__(self, url: str, session: requests.Session | None = None) -> None:
        self.url = checked_url(url)
        session = session or _session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _InTime())
        self._client = DICOMwebClientX(
            url=self.url,
            session=session,
            qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
            wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
            stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        )
        self._downloads = threading.BoundedSemaphore(MOST_DOWNLOADS)
        self._client.set_http_retry_params(retry=False)

    def series(self, modality: str, filters: Mapping[str, object] | None = None) -> list[Series]:
        """Return all series of a modality that match QIDO filters.

        Raises:
            RemoteError: The server does not answer, or not as it should.
        """
        found: dict[str, Series] = {}
        asked = {**(filters or {}), "Modality": modality}
        while True:
            with self._answering():
                page = self._client.search_for_series(
                    search_filters=dict(asked), fields=list(FIELDS), offset=len(found) or None
                )
                listed = [_series(Dataset.from_json(item), modality) for item in page]
            new = {one.uid: one for one in listed if one is not None and one.uid not in found}
            found |= new
            if not new:
                return [one for one in found.values() if one.modality == modality]

    def metadata(self, series: Series) -> list[Dataset]:
        """Return the instances of a series without their pixels.

        Raises:
            RemoteError: The server does not answer, or not as it should.
        """
        with self._answering():
            items = self._client.retrieve_series_metadata(series.study, series.uid)
            return [Dataset.from_json({tag: item[tag] for tag in item if tag != PIXELS}) for item in items]

    def download(self, study: str, series: str, folder: Path) -> int:
        """Write the instances of a series to a folder, named after their InstanceNumber; return their number.

        Raises:
            RemoteError: The server does not answer, or not as it should.
        """
        count = 0
        with self._downloading():
            for instance in self._instances(study, series):
                number = instance.get("InstanceNumber")
                file = folder / f"instance {number}.dcm"
                instance.save_as(folder / f"instance {number} ({count}).dcm" if file.exists() else file)
                count += 1
        return count

    def _instances(self, study: str, series: str) -> Iterator[Dataset]:
        with self._answering():
            yield from self._client.iter_series(study, series, ANY_TRANSFER_SYNTAX)

    def instance(self, study: str, series: str, instance: str) -> Dataset:
        """Return one instance.

        Raises:
            RemoteError: The server does not answer, or not as it should.
        """
        with self._downloading(), self._answering():
            return self._client.retrieve_instance(study, series, instance, ANY_TRANSFER_SYNTAX)

    def store(self, instance: Dataset) -> None:
        """Store an instance.

        Raises:
            RemoteError: The server does not respond, or rejects it.
        """
        with self._answering():
            answer = self._client.store_instances([instance])
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason")
            raise RemoteError(f"The DICOMweb server {self.url} rejected the segmentation (reason {reason})", 502)

    @contextmanager
    def _downloading(self) -> Iterator[None]:
        """Limit downloads, each of which keeps a thread of the server waiting while the DICOM server is slow."""
        if not self._downloads.acquire(blocking=False):
            raise RemoteError(
                f"{MOST_DOWNLOADS} downloads from the DICOM server are running: try again in a minute", 503
            )
        try:
            yield
        finally:
            self._downloads.release()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Convert network and HTTP errors into a `RemoteError` that names only the server."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 502
            raise RemoteError(self._refusal(status), 502) from None
        except (requests.RequestException, HTTPError, ConnectionError, TimeoutError) as error:
            raise RemoteError(
                f"The DICOMweb server {self.url} does not answer ({type(error).__name__}): start it, or check the "
                "address given with --studies",
                503,
            ) from None
        except (InvalidDicomError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            if isinstance(error, Sam3dError):
                raise
            raise RemoteError(
                f"The DICOMweb server {self.url} sent no DICOM response ({type(error).__name__}): check that the "
                "address given with --studies is that of its DICOMweb service",
                502,
            ) from error

    def _refusal(self, status: int) -> str:
        if status in (401, 403):
            return f"The DICOMweb server {self.url} denies access ({status}): set {ENVIRONMENT}"
        return f"The DICOMweb server {self.url} answered {status} {responses.get(status, '')}".rstrip()


def checked_url(url: str) -> str:
    """Return a DICOMweb address without a slash at its end.

    Raises:
        Sam3dError: It holds a user or password, which would be shown and logged.
    """
    parts = urlsplit(url.strip())
    if parts.username is not None or parts.password is not None:
        raise Sam3dError(f"--studies must not hold a user or password: give them in the environment, as {ENVIRONMENT}")
    return url.strip().rstrip("/")


def patient_hash(patient: str) -> str:
    """Return a pseudonym that is equal for all series of a patient; empty for an unknown patient."""
    patient = patient.strip()
    return hashlib.sha256(patient.encode()).hexdigest()[:16] if patient else ""


class _InTime(HTTPAdapter):
    """Adds a timeout to every request, and retries once after a closed connection, as after a restart of the server."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # as inherited
        kwargs["timeout"] = kwargs.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        try:
            return super().send(request, *args, **kwargs)
        except requests.ConnectionError as error:
            if request.method != "GET" or isinstance(error, requests.Timeout):
                raise
        return super().send(request, *args, **kwargs)


def _session() -> requests.Session:
    session = requests.Session()
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if user and password:
        session.auth = (user, password)
    return session


def _series(item: Dataset, asked: str) -> Series | None:
    """Return a series of an answer; None for one whose UIDs are missing or could name another file."""
    uid, study = str(item.get("SeriesInstanceUID", "")), str(item.get("StudyInstanceUID", ""))
    if not UID.fullmatch(uid) or not UID.fullmatch(study):
        return None
    modality = str(item.get("Modality") or asked)
    count = item.get("NumberOfSeriesRelatedInstances")
    info = {
        "SeriesInstanceUID": uid,
        "StudyInstanceUID": study,
        "Modality": modality,
        "StudyDate": str(item.get("StudyDate") or ""),
        "SeriesDescription": str(item.get("SeriesDescription") or ""),
        PATIENT: patient_hash(str(item.get("PatientID") or "")),
    }
    return Series(uid, study, modality, None if count is None else int(count), info)
