"""The environment of background processes: the variables they need, and no path that a client can write to."""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from monailabel.config import settings

import sam3d_label

NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOOGLE_APPLICATION_CREDENTIALS"),
        *(
            "PYTHONHASHSEED",
            "PYTHONUNBUFFERED",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONNOUSERSITE",
            "VIRTUAL_ENV",
            "MPLCONFIGDIR",
        ),
        *("VIRTUAL_ENV", "MPLCONFIGDIR", "CUBLAS_WORKSPACE_CONFIG", "SAM3D_SERVER", "SAM3D_PRECISION"),
    }
)
"""Variables that a background process inherits."""

PREFIXES = (
    "LC_",
    "XDG_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "OMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS_",
    "TORCH",
    "PYTORCH_",
    "ITK_",
)
"""Prefixes of further variables: locale, caches, torch, CUDA and math libraries."""


def clean_environment(gpus: str = "all") -> dict[str, str]:
    """Return the variables of a process that runs the app without serving requests.

    MONAI Label's settings are passed on as they are in this process, whatever their source. `PYTHONPATH` is the app and
    the library; the inherited value is ignored.

    Args:
        gpus: Numbers of the GPUs to use, separated by commas, among those that this process may use; `all` for all.
    """
    inherited = {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}
    own = {
        "PYTHONPATH": os.pathsep.join(search_path()),
        "PYTHONSAFEPATH": "1",
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
    }
    if gpus not in ("", "all"):
        own["CUDA_VISIBLE_DEVICES"] = visible_devices(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return inherited | _settings() | own


def search_path() -> list[str]:
    """Return the folders of the app and of the library, unless the library is installed."""
    library = Path(sam3d_label.__file__).resolve().parents[1]
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return [str(Path(__file__).resolve().parents[2]), *([] if library in installed else [str(library)])]


def visible_devices(gpus: str, visible: str | None) -> str:
    """Return `CUDA_VISIBLE_DEVICES` for some GPUs among those that this process sees.

    Args:
        gpus: Their numbers as this process counts them, separated by commas.
        visible: The variable as this process has it; None when it sees all.
    """
    numbers = [int(number) for number in gpus.split(",")]
    if visible is None:
        return ",".join(map(str, numbers))
    seen = [name.strip() for name in visible.split(",") if name.strip()]
    return ",".join(seen[number] for number in numbers if number < len(seen))


def _settings() -> dict[str, str]:
    values: Mapping[str, object] = settings.model_dump(mode="json")
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None and not name.startswith("MONAI_LABEL_AUTH_")
    }
