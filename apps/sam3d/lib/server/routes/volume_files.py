"""Files of volumes in requests and responses."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, HTTPException, Query, UploadFile
from fastapi.responses import FileResponse
from monailabel.utils.others.generic import get_mime_type

from lib.datastores.checks import is_volume
from lib.datastores.studies import EXTENSIONS
from sam3d_label.image.listing import end_of

Text = Annotated[str, Form()]
Upload = Annotated[UploadFile, File()]
Name = Annotated[str, Query()]


def suffix_of(upload: UploadFile) -> str:
    """Return the suffix of an uploaded volume's temporary file, one of `EXTENSIONS`.

    Raises:
        HTTPException: 400; the client's name for it ends otherwise.
    """
    name = (upload.filename or "").lower()
    for suffix in EXTENSIONS:
        if name.endswith(suffix):
            return suffix
    shown = f".{name.rpartition('.')[2]}"[:20] if "." in name else "(none)"
    raise HTTPException(400, f"A file of type {shown!r} is not supported: send one of {', '.join(EXTENSIONS)}")


def existing(file: str, kind: str, name: str) -> str:
    """Return the path of a file of the datastore.

    Args:
        file: The path; empty for none.
        kind: image or label, for the message.
        name: Its id.

    Raises:
        HTTPException: 404; there is no such file, or it is no volume.
    """
    if not file or not is_volume(file):
        raise HTTPException(404, f"There is no {kind} {name[:200]!r} in the datastore")
    return file


def sent(file: str, name: str) -> FileResponse:
    """Return a file under the id of its image, since a link leads to a file of any name."""
    return FileResponse(file, media_type=get_mime_type(file), filename=f"{name}{end_of(file)}")
