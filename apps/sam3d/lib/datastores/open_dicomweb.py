"""Open the datastore of a DICOMweb URL with MONAI Label's settings."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dicomweb_client.session_utils import create_session_from_gcp_credentials
from monailabel.config import settings

from lib.configs.app_config import AppConfig
from lib.datastores.dicom_client import DicomWeb
from lib.datastores.dicomweb import DicomWebDatastore


def open_dicom_web(url: str, config: AppConfig) -> DicomWebDatastore:
    """Return the datastore on a server, with MONAI Label's settings; a server that does not respond is only logged.

    Of `MONAI_LABEL_DICOMWEB_SEARCH_FILTER` the modality counts unless it is CT, which is MONAI Label's default: the
    configuration's do otherwise.

    Raises:
        Sam3dError: The URL holds a user or password.
    """
    filters = dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)
    asked = str(filters.pop("Modality", "CT"))
    server = DicomWeb(url, create_session_from_gcp_credentials() if "googleapis.com" in url else None)
    place = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or Path.home() / ".cache" / "monailabel" / "dicom"
    store = DicomWebDatastore(
        server,
        Path(place, f"sam3d-{hashlib.sha256(server.url.encode()).hexdigest()[:32]}"),
        modalities=config.modalities if asked == "CT" else (asked,),
        labels=config.labels,
        refresh=config.dicomweb_refresh,
        filters=filters,
    )
    store.refresh()
    return store
