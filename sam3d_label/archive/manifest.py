"""The list of the files of an archive, used to verify that it is complete."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
PART = 2**20
"""Bytes of a file that are in memory at a time."""

Kind = Literal["label", "listing", "clicks", "version", "ledger"]


class ArchivedFile(BaseModel):
    """A file of an archive.

    Attributes:
        path: Path in the archive.
        kind: Kind of the file.
        bytes: Its size.
        sha256: Its SHA-256, in hex.
        case: Id of the image that a label is of.
        tag: Tag of that label.
        names: Names of the values in that label; those without a name are left out.
        version: Version of the weights that it belongs to.
        requests: Number of logged requests in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    kind: Kind
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    case: str | None = None
    tag: str | None = None
    names: dict[int, str] | None = None
    version: str | None = None
    requests: int | None = None

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or "\\" in path or ":" in parts[0] or ".." in parts or path == MANIFEST:
            raise ValueError(f"{path!r} does not name a file inside the archive")
        return path


class LeftOut(BaseModel):
    """An item that could not be exported, and the reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    what: str
    why: str


class Manifest(BaseModel):
    """The content of an archive. Keys that a later release adds are ignored as long as the format version is the same.

    Attributes:
        format: Distinguishes the archives of this package from others.
        format_version: Raised when archives change so that older releases misread them.
        made: Time of the export, UTC, ISO 8601.
        made_by: Release of this package.
        serves: Number of the active version; None if none was active.
        pseudonyms: Whether the ids of images were replaced.
        files: All but the manifest itself.
        left_out: What could not be exported.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    format: Literal["sam3d-label export"] = "sam3d-label export"
    format_version: int = FORMAT_VERSION
    made: str
    made_by: str
    serves: str | None = None
    pseudonyms: bool = False
    files: list[ArchivedFile]
    left_out: list[LeftOut] = []

    @field_validator("format_version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != FORMAT_VERSION:
            raise ValueError(f"this release reads version {FORMAT_VERSION}: update sam3d_label")
        return version

    @field_validator("files")
    @classmethod
    def _each_once(cls, files: list[ArchivedFile]) -> list[ArchivedFile]:
        paths = [file.path for file in files]
        if len(set(paths)) < len(paths):
            raise ValueError("a file is listed twice")
        return files

    def of(self, kind: Kind) -> list[ArchivedFile]:
        """Return the files of one kind."""
        return [file for file in self.files if file.kind == kind]
