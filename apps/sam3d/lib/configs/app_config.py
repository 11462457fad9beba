"""The app's `--conf` keys, checked once at start."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from lib.configs.limits import RequestLimits
from lib.requests import RESERVED_KEYS
from sam3d_label.errors import Sam3dError, plain_words
from sam3d_label.image.intensity import IntensityRule
from sam3d_label.model_update.report import REFERENCE_LIMIT
from sam3d_label.studies.label_names import name_fault, normal_name
from sam3d_label.training.dataset import pair_cases
from sam3d_label.weights.load import UNTRAINED_INTENSITY

HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
SHOWN = 100
"""Characters of a value that a message repeats."""

Preset = Literal["tiny", "tiny-geodesic", "vit_b", "vit_l", "vit_h"]

INTENSITIES: dict[str, IntensityRule] = {
    "ct": UNTRAINED_INTENSITY.ct,
    "mr": UNTRAINED_INTENSITY.mr,
    "ct_or_mr": UNTRAINED_INTENSITY,
}


class ConfigError(Sam3dError):
    """A `--conf` key or value that the app does not know."""


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _none_or_number(value: object) -> object:
    return None if value == "none" else value


def _intensity_rule(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value in INTENSITIES:
        return INTENSITIES[value]
    try:
        return TypeAdapter(IntensityRule).validate_json(value)
    except ValidationError:
        example = '{"kind":"percentile","lower":1,"upper":99}'
        raise ValueError(f"choose from {', '.join(INTENSITIES)}, or give a rule such as {example}") from None


class AppConfig(RequestLimits):
    """The settings of `--conf KEY VALUE`, including the limits of requests.

    Attributes:
        preset: Size of the network; without it, that of the weights.
        weights: Name of shipped weights or path of a file; without it, the shipped weights of the preset.
        sam_checkpoint: Official SAM checkpoint that holds the frozen trunk of `vit_b`, `vit_l` or `vit_h`.
        labels: Names of the structures to segment, in the order of the voxel values that clients expect.
        auto_train_every: Saved labels after which training starts automatically; 0 = never.
        auto_train_at: Time of day, HH:MM, at which it starts when a label was saved since the last one.
        train_epochs: Epochs of a training whose request does not set them.
        reference_limit: Largest loss of Dice on any kind of reference cases with which an update is published; None,
            given as `none`, lets the model specialise on the team's cases whatever it loses elsewhere.
        reference_cases: Folder with images/ and labels/ of a team's own reference cases.
        reference_seconds: Time after which an update tries no further share of the new weights.
        model_dir: Folder for versions, runs and learning curve; without it, `model` in the app's folder.
        patient: Regular expression whose group matches the patient in an image's id, so that all images of a patient
            have the same split; without it, every image counts as one patient.
        next_sample: Strategy that answers when a client asks for `random`, as OHIF always does.
        idle_seconds: Seconds without a click after which images are scored for `next_sample`.
        click_log: Whether requests are logged in `clicks` in the model folder.
        infer_workers: Clicks that are computed at the same time on one device; 0 = one on a GPU, a few on the CPU.
        infer_queue: Clicks that may wait for a device; more are answered with status 503. One user may have a
            quarter of the places (429).
        cache_mb: Budget of the embedding cache, MiB.
        spacing: Voxel size of the model grid, mm; without it, that of the weights' card.
        intensity: A name of `INTENSITIES` or a rule of a weights' card in JSON; without it, that of the card.
        modalities: DICOM modalities whose series are images, where the studies are on a DICOMweb server.
        dicomweb_refresh: Seconds after which that server is asked again what it has.
        min_free_mb: Free disk space below which `/sam3d/health` reports a problem, MiB.
        api_keys: File of API keys, made with `python -m sam3d_label api-key add`; with it, the server has a login.
        login_hours: Hours after which a user of the page or of Slicer has to log in again.
        allowed_hosts: Further names by which clients address the server, such as that of a proxy in front of it.
        trusted_proxies: Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
        server_mode: Key of MONAI Label itself, passed through.
    """

    preset: Preset | None = None
    weights: str | None = None
    sam_checkpoint: Path | None = None
    labels: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ("tumor",)
    auto_train_every: int = Field(default=0, ge=0)
    auto_train_at: str | None = None
    train_epochs: int = Field(default=20, ge=1)
    reference_limit: Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_none_or_number)] = REFERENCE_LIMIT
    reference_cases: Path | None = None
    reference_seconds: float = Field(default=900, ge=0, allow_inf_nan=False)
    model_dir: Path | None = None
    patient: str | None = None
    next_sample: Literal["random", "first", "uncertainty", "diverse"] = "random"
    idle_seconds: float = Field(default=10, ge=0, allow_inf_nan=False)
    click_log: bool = True
    infer_workers: int = Field(default=0, ge=0, le=64)
    infer_queue: int = Field(default=128, ge=1, le=10_000)
    cache_mb: int = Field(default=1024, ge=1)
    spacing: float | None = Field(default=None, gt=0, le=20, allow_inf_nan=False)
    intensity: Annotated[IntensityRule | None, BeforeValidator(_intensity_rule)] = None
    modalities: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ("CT", "MR")
    dicomweb_refresh: float = Field(default=5, gt=0, allow_inf_nan=False)
    min_free_mb: int = Field(default=512, ge=0)
    api_keys: Path | None = None
    login_hours: float = Field(default=12, gt=0, le=24 * 30, allow_inf_nan=False)
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ()
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_comma_list)] = ()
    server_mode: bool = False

    @field_validator("labels")
    @classmethod
    def _usable_names(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not labels:
            raise ValueError("give at least one name, such as tumor or tumor,cyst")
        for name in labels:
            if reason := name_fault(name):
                raise ValueError(f"{name[:60]!r} cannot be a name: {reason}")
        labels = tuple(map(normal_name, labels))
        if len(set(labels)) < len(labels):
            raise ValueError(f"a name is given twice in {', '.join(labels)}")
        reserved = sorted(set(labels) & RESERVED_KEYS)
        if reserved:
            raise ValueError(f"{', '.join(reserved)} is a word of the protocol and cannot name a label")
        return labels

    @field_validator("allowed_hosts")
    @classmethod
    def _plain_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not HOST_NAME.fullmatch(host):
                raise ValueError(f"{host} is not a name or address without port, such as sam3d.example.org")
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(f"{proxy} is not an address or network, such as 10.0.0.7 or 10.0.0.0/24") from None
        return proxies

    @field_validator("auto_train_at")
    @classmethod
    def _time_of_day(cls, value: str | None) -> str | None:
        if value is not None and not TIME_OF_DAY.fullmatch(value):
            raise ValueError("give a time of day from 00:00 to 23:59, such as 02:00")
        return value

    @field_validator("patient")
    @classmethod
    def _with_a_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(r"put the part that names the patient in one pair of parentheses, such as sts_(\d+)_")
        return value

    @field_validator("reference_cases")
    @classmethod
    def _labelled_cases(cls, folder: Path | None) -> Path | None:
        if folder is not None:
            pair_cases(folder / "images", folder / "labels")
        return folder

    @field_validator("sam_checkpoint")
    @classmethod
    def _existing_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not a file")
        return path


def parse_config(conf: Mapping[str, object]) -> AppConfig:
    """Check the `--conf` pairs that MONAI Label passes to the app.

    Args:
        conf: Key to value, both strings as typed; an empty value counts as not given.

    Returns:
        The configuration, with defaults for what was not given.

    Raises:
        ConfigError: A key is unknown or a value is not allowed; the message names each and the allowed values.
    """
    try:
        return AppConfig.model_validate({key: value for key, value in conf.items() if value != ""})
    except ValidationError as error:
        complaints = "; ".join(_complaint(item) for item in error.errors())
        raise ConfigError(f"{complaints}. Keys of --conf: {', '.join(_keys())}") from None


def _keys() -> list[str]:
    keys = [key for key in AppConfig.model_fields if key != "server_mode"]
    return sorted(keys, key=lambda key: key in RequestLimits.model_fields)


def _complaint(item: ErrorDetails) -> str:
    key = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        return f"--conf {key}: unknown key"
    given = repr(item["input"])
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    return f"--conf {key} {shown}: {plain_words(item['msg'])}"
