"""Limits of requests; every limit is a `--conf` key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sam3d_label.image import limits


class RequestLimits(BaseModel):
    """The limits of a request.

    Attributes:
        max_upload_mb: Size of the body of an upload, MiB.
        max_inflated_mb: Size of an image or label file once it is decompressed, MiB.
        max_voxels: Voxels of a volume.
        max_axis: Voxels of a volume along one axis.
        max_clicks: Clicks in one request, inside and outside together.
        max_text: Characters of a text in a request: a label's name, an id, a client_id.
        max_json_kb: Size of the JSON in a request, KiB.
        max_json_depth: Nesting of the JSON in a request.
        max_json_items: Values in the JSON of a request.
        max_readers: Uploads and labels that are read at a time, half of them for one user; others wait. Labels that
            are saved have half as many places of their own.
        max_sessions: Images that clients keep in sessions at a time; one user may have half of them.
        max_sessions_mb: Size of these images together, MiB; one user may take half of it.
        max_session_hours: Hours after which a session ends, however often it is used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_upload_mb: int = Field(default=2048, ge=1)
    max_inflated_mb: int = Field(default=4096, ge=1)
    max_voxels: int = Field(default=512 * 512 * 2048, ge=1)
    max_axis: int = Field(default=4096, ge=1)
    max_clicks: int = Field(default=256, ge=1, le=4096)
    max_text: int = Field(default=500, ge=64, le=100_000)
    max_json_kb: int = Field(default=1024, ge=1, le=64 * 1024)
    max_json_depth: int = Field(default=16, ge=4, le=64)
    max_json_items: int = Field(default=50_000, ge=16)
    max_readers: int = Field(default=4, ge=1, le=64)
    max_sessions: int = Field(default=64, ge=1, le=10_000)
    max_sessions_mb: int = Field(default=16_384, ge=1)
    max_session_hours: float = Field(default=24, gt=0, le=24 * 365, allow_inf_nan=False)

    @property
    def volumes(self) -> limits.Limits:
        """Limits of an image or label file, for the library that reads it."""
        return limits.Limits(max_voxels=self.max_voxels, max_axis=self.max_axis, max_inflated_mb=self.max_inflated_mb)

    @property
    def max_upload_bytes(self) -> int:
        """Size of the body of an upload in bytes."""
        return self.max_upload_mb * limits.MIB

    @property
    def max_json_bytes(self) -> int:
        """Size of the JSON in a request in bytes."""
        return self.max_json_kb * 1024
