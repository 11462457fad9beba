"""Whether the server can do its work: weights, datastore, disk space, queue."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from monailabel.interfaces.datastore import Datastore
from pydantic import BaseModel

from lib.errors import StudiesGoneError
from sam3d_label.errors import Sam3dError
from sam3d_label.image.limits import MIB

logger = logging.getLogger(__name__)
FRESH_SECONDS = 5.0
"""Seconds for which a report is cached, so that requests cannot keep the disks busy."""

STUCK_SECONDS = 600.0
"""A click that has waited this long shows that the queue is stuck."""


class Check(BaseModel):
    """The result of a health check.

    Attributes:
        ok: Whether it works.
        detail: What is wrong and how to fix it, without paths; empty when it works.
    """

    ok: bool
    detail: str = ""


class Health(BaseModel):
    """Whether the server can do its work.

    Attributes:
        ready: Whether every check passed.
        checks: By name.
    """

    ready: bool
    checks: dict[str, Check]


class Probe(Protocol):
    """A health check; raises if it fails."""

    def __call__(self) -> None:
        """Raise `UnhealthyError` with the problem, or any other error, whose text is only logged."""


class UnhealthyError(Sam3dError):
    """Something does not work; the message holds no paths, names or addresses."""


class Readiness:
    """The report of all probes, made at most every few seconds.

    Args:
        probes: By name.
    """

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = dict(probes)
        self._lock = threading.Lock()
        self._report: Health | None = None
        self._made = 0.0

    def report(self) -> Health:
        """Run the probes, or return the latest report."""
        with self._lock:
            if self._report is None or time.monotonic() - self._made > FRESH_SECONDS:
                checks = {name: _run(name, probe) for name, probe in self._probes.items()}
                self._report = Health(ready=all(check.ok for check in checks.values()), checks=checks)
                self._made = time.monotonic()
            return self._report


def _run(name: str, probe: Probe) -> Check:
    try:
        probe()
    except UnhealthyError as error:
        return Check(ok=False, detail=str(error))
    except Exception as error:  # a probe may meet any error of a disk, a driver or another server
        logger.warning(f"The health check {name} failed with {type(error).__name__}", exc_info=error)
        return Check(ok=False, detail=f"{name} failed with {type(error).__name__}: the server's log has the details")
    return Check(ok=True)


def writable(folder: Path) -> Callable[[], None]:
    """Return a probe that writes a file of a few bytes into a folder and removes it.

    Args:
        folder: A folder of the app.
    """

    def probe() -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix=".health-", dir=folder)
            try:
                os.write(descriptor, b"ready")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
                os.unlink(name)
        except OSError as error:
            raise UnhealthyError(f"cannot be written ({error.strerror}): check disk, mount and permissions") from error

    return probe


def space(folders: Mapping[str, Path], least_mb: int) -> Callable[[], None]:
    """Return a probe for free disk space.

    Args:
        folders: Folders of the app by their name in the report.
        least_mb: Required free space of each, MiB.
    """

    def probe() -> None:
        short = []
        for name, folder in folders.items():
            if folder.exists() and (free := shutil.disk_usage(folder).free // MIB) < least_mb:
                short.append(f"{free} MiB are free for {name}")
        if short:
            raise UnhealthyError(f"{', '.join(short)}, less than {least_mb} (--conf min_free_mb): free disk space")

    return probe


def listed(store: Callable[[], Datastore]) -> Callable[[], None]:
    """Return a probe that asks a datastore for its images.

    Args:
        store: Returns the datastore.
    """

    def probe() -> None:
        try:
            store().list_images()
        except StudiesGoneError as error:
            raise UnhealthyError(str(error)) from error

    return probe


def moving(oldest: Callable[[], float]) -> Callable[[], None]:
    """Return a probe for a queue that does not move.

    Args:
        oldest: Seconds that the request at the head of the queue has waited; 0 when none waits.
    """

    def probe() -> None:
        if (waited := oldest()) > STUCK_SECONDS:
            raise UnhealthyError(f"a click has waited for {waited:.0f} s: restart the server if this continues")

    return probe
