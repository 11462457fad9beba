"""Write the upload of a session as one image; nothing else is written, and no name of the client is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path

from lib.configs.limits import RequestLimits
from lib.server.uploads import archives
from lib.server.uploads.archives import CHUNK, Upload
from sam3d_label.errors import VolumeError
from sam3d_label.image.dicom_file import HEAD, begins_as_dicom
from sam3d_label.image.dicom_file import SUFFIXES as DICOM_SUFFIXES
from sam3d_label.image.limits import MIB
from sam3d_label.image.suffixes import MASK_SUFFIXES
from sam3d_label.image.volume import Volume

SUFFIXES = tuple(sorted(MASK_SUFFIXES, key=len, reverse=True))
"""Suffixes of image files that hold their header and their voxels, the longest first."""

SERIES = "series"


def store_image(
    uploads: Iterable[Upload],
    folder: Path,
    limits: RequestLimits,
    unpack: bool = False,
    grow: Callable[[int], None] = lambda size: None,
) -> Path:
    """Write the image of a client to an empty folder, and read it once to check that it is complete.

    Args:
        uploads: One image file, the files of one DICOM series, or one archive of these.
        folder: Where to; on an error the caller removes it.
        limits: What an image may hold at most.
        unpack: Whether an archive is unpacked.
        grow: Called with the number of bytes that are about to be written; it may raise.

    Returns:
        The image's file, or the folder of its DICOM series.

    Raises:
        VolumeError: There is no image, more than one, or one that is damaged or too large.
    """
    with ExitStack() as opened:
        members: Iterable[Upload] = uploads
        most_bytes = limits.max_inflated_mb * MIB
        if unpack:
            first, *more = uploads
            if more:
                raise VolumeError("Send one archive to unpack, or several files without unpacking them")
            members = opened.enter_context(closing(archives.members(first, most_bytes)))
        try:
            image = _write(members, folder, most_bytes, grow, strict=not unpack)
        except archives.ERRORS as error:
            if isinstance(error, VolumeError) or not unpack:
                raise
            raise archives.rejected(error) from error
    try:
        Volume.open(image)
    except VolumeError as error:
        raise VolumeError(str(error).replace(str(image), "The image")) from error
    return image


def _write(members: Iterable[Upload], folder: Path, most_bytes: int, grow: Callable[[int], None], strict: bool) -> Path:
    """Write the images among the members; other members are skipped here, and rejected elsewhere."""
    images: list[Path] = []
    slices, written = 0, 0
    for number, member in enumerate(members):
        if number >= archives.MOST_FILES:
            raise VolumeError(f"More than {archives.MOST_FILES} files are not allowed in one session")
        head = member.content.read(HEAD)
        suffix = next((suffix for suffix in SUFFIXES if member.name.lower().endswith(suffix)), "")
        if begins_as_dicom(head):
            target = folder / SERIES / f"{slices:05d}.dcm"
            slices += 1
        elif suffix:
            target = folder / f"image{suffix}"
            images.append(target)
        elif strict or member.name.lower().endswith(DICOM_SUFFIXES):
            raise VolumeError(
                f"{member.name[-100:]!r} is no image: send one file of type {', '.join(MASK_SUFFIXES)},"
                " or the DICOM files of one series"
            )
        else:
            continue
        if len(images) + bool(slices) > 1:
            raise VolumeError("Send one image, or the DICOM files of one series, in a session")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            chunk = head
            while chunk:
                grow(len(chunk))
                written += file.write(chunk)
                chunk = member.content.read(CHUNK)
                if written > most_bytes:
                    raise VolumeError(
                        f"This is larger than the {most_bytes // MIB} MiB that are allowed (--conf max_inflated_mb)"
                    )
    if not images and not slices:
        raise VolumeError(f"There is no image in it: neither a file of type {', '.join(MASK_SUFFIXES)} nor DICOM files")
    return images[0] if images else folder / SERIES
