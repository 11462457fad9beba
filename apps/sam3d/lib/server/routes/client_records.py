"""Records of images and labels that clients can store."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lib.activelearning.strategies import INFO, STRATEGY
from lib.datastores.dicom_seg_list import SEGMENTATION
from lib.datastores.reconcile import CHECKSUM
from lib.datastores.studies import UPLOADED
from lib.server.json_checks import JsonError
from lib.server.routes.form_routes import sender
from sam3d_label.errors import VolumeError
from sam3d_label.studies.label_names import name_fault, normal_name, require_one_name

SERIES = frozenset({"StudyInstanceUID", "SeriesInstanceUID", SEGMENTATION})
"""Where an image or a label is on a DICOM server."""

IMAGE_KEYS = SERIES | {*("ts", "name", "id", "path", "image", "user", "imported_from", INFO, STRATEGY), "weight", "why"}
IMAGE_KEYS |= {"instances", "counted", "refused", UPLOADED}
"""Keys of an image's info that only the server writes: clients name files by them, and the server reads them again."""

LABEL_KEYS = SERIES | {"ts", "name", "user", CHECKSUM}
"""The same of a label."""


class NamedStructure(BaseModel):
    """One structure of a label map.

    Attributes:
        name: What it is called.
        idx: Its value in the label map, as the client counts.
        color: Red, green, blue and maybe opacity.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)
    idx: int | None = Field(default=None, ge=0, le=65535)
    color: list[float] | None = Field(default=None, max_length=4)

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if reason := name_fault(name):
            raise ValueError(f"{name[:60]!r} cannot be a name: {reason}")
        return normal_name(name)


class LabelInfo(BaseModel):
    """A client's record of a label; further keys are kept unchanged.

    Attributes:
        label_info: The structures in it.
        client_id: Who drew it.
        model: Which model drew it.
    """

    model_config = ConfigDict(extra="allow")

    label_info: list[NamedStructure] | None = None
    client_id: str | None = None
    model: str | None = None
    params: dict[str, object] | None = None

    @field_validator("label_info", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """Accept a mapping of names to numbers, too."""
        if isinstance(given, Mapping):
            return [{"name": name, "idx": number} for name, number in given.items()]
        return given

    @model_validator(mode="after")
    def _one_name_for_each_value(self) -> LabelInfo:
        try:
            require_one_name(self.model_dump(exclude_none=True))
        except VolumeError as error:
            raise ValueError(str(error)) from None
        return self


def without(info: Mapping[str, object], keys: frozenset[str]) -> dict[str, object]:
    """Drop the keys that only the server may set; clients may send them back."""
    return {key: value for key, value in info.items() if key not in keys}


def unreserved(info: Mapping[str, object], keys: frozenset[str]) -> Mapping[str, object]:
    """Return a client's record; one with keys that only the server may set is a `JsonError`."""
    reserved = sorted(keys & info.keys())
    if reserved:
        raise JsonError(f"info: {', '.join(reserved)} is set by the server and cannot be changed: leave it out")
    return info


def signed(info: Mapping[str, object], request: Request) -> Mapping[str, object]:
    """Return the same dictionary with the user who is logged in."""
    user = sender(request)
    return {**info, "user": user} if user else info
