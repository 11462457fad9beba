"""Download a file: continue after an interruption, verify it, and move it to its name when it is complete.

Our own instead of `torch.hub.download_url_to_file`, which starts again after an interruption.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sam3d_label.errors import WeightsError
from sam3d_label.weights.tensors import sha256

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead."""

BLOCK = 1 << 20
RANGE_NOT_SATISFIABLE, PARTIAL_CONTENT = 416, 206


@dataclass(frozen=True)
class RemoteFile:
    """A file, where it is published, and its digest."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rsplit("/", 1)[-1]


def download(remote: RemoteFile, folder: Path, *, overwrite: bool = False) -> Path:
    """Download a file into a folder, unless it is there already.

    Received data are kept in a `.part` file: a later call continues from there.

    Args:
        remote: The file.
        folder: Made when missing.
        overwrite: Whether to replace another file of its name.

    Returns:
        Path of the file, its SHA-256 checked.

    Raises:
        WeightsError: There is no network, the connection broke, or the digest is another; the message says
            how to get the file by hand. Or another file or folder has its name.
    """
    target = folder / remote.name
    if target.is_file() and sha256(target) == remote.sha256:
        return target
    if target.is_dir() or (os.path.lexists(target) and not overwrite):
        kind = "is a folder" if target.is_dir() else "exists"
        raise WeightsError(
            f"{target} {kind}, and is not the file of {remote.url} (SHA-256 differs): choose another folder, rename "
            "it, or replace a file by --overwrite"
        )
    part = target.with_name(f"{target.name}.part")
    advice = f"Try again to go on from what has arrived, or download it by hand and put it at {target}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        total = _receive(remote.url, part)
    except (OSError, HTTPException) as error:
        raise WeightsError(f"cannot download {remote.url} ({error}). {advice}") from error
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise WeightsError(f"download of {remote.url} was cut after {arrived} of {total} bytes. {advice}")
    if sha256(part) != remote.sha256:
        part.unlink()
        raise WeightsError(f"{remote.url} arrived damaged (SHA-256 differs) and was removed: try again")
    os.replace(part, target)
    return target


def _receive(url: str, part: Path) -> int | None:
    """Append the missing data to `part`, with progress on stderr; return the full size if the server reports it."""
    start = part.stat().st_size if part.is_file() else 0
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={start}-"} if start else {}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE:
            return None
        raise
    with response, _progress() as progress:
        if response.status != PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        task = progress.add_task(part.stem, total=total, completed=start)
        with part.open("ab" if start else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(task, len(block))
    return total


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
