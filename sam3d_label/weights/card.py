"""The card next to the weights: everything that is needed to use them, and their origin."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sam3d_label.errors import WeightsError
from sam3d_label.image.intensity import IntensityRule
from sam3d_label.io import complaints, replacing
from sam3d_label.network import PRESETS, Config

FORMAT = 1
CUSTOM = "custom"
"""The preset of a network whose sizes are none of `PRESETS`."""

NEW_SIZES: dict[str, object] = {"deep": (), "geodesic": None, "candidates": 0, "slice_features": False}
"""Sizes that older cards do not name, as networks of any preset had them then."""

Capability = Literal["positive_click", "negative_click", "mask", "box", "no_click"]

ABILITIES: dict[Capability, str] = {
    "positive_click": "segment from clicks",
    "negative_click": "take clicks outside the target",
    "mask": "correct a rough mask",
    "box": "take boxes",
    "no_click": "segment without a click",
}
"""Capabilities in words that continue "it can"."""


class Base(BaseModel):
    """The file that holds the frozen trunk.

    Attributes:
        name: A shipped name (tiny), a SAM checkpoint (vit_b, vit_l, vit_h) or a file name.
        sha256: Digest of that file; None if the trunk is next to the adapter as trunk.safetensors.
        checkpoint: File name of a checkpoint in SAM's layout that is not SAM's own, such as medsam_vit_b.pth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    checkpoint: str | None = Field(default=None, min_length=1)


class DataSource(BaseModel):
    """Volumes that the weights were trained on, and under which licence.

    Attributes:
        cases: Number of training volumes; None if it was not recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    source: str = ""
    cases: int | None = Field(default=None, ge=0)


class Training(BaseModel):
    """Training of the weights: the data, and other records of the trainer."""

    model_config = ConfigDict(extra="allow", frozen=True)
    data: list[DataSource] = []


class Card(BaseModel):
    """Describes one adapter, or one self-contained network.

    Attributes:
        preset: Name of the network's sizes, or "custom".
        config: The sizes; may be left out for a named preset.
        base: The trunk that the adapter belongs to.
        spacing: Edge of the isotropic voxels that the network sees, millimetres.
        scales: Multiples of `spacing` at which the weights can be used.
        intensity: How intensities are normalised.
        capabilities: Prompts that the weights have learned; empty for weights that were never trained.
        labels: Structures that the weights were trained on.
        training: Training data, with licences.
        licence: Licence of the weights themselves.
        metrics: What was measured, by name.
        version: Version of the weights.
        date: Day on which they were made, ISO 8601.
        format: Version of this format.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    preset: str
    config: Config
    base: Base
    spacing: float = Field(gt=0, allow_inf_nan=False)
    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    intensity: IntensityRule
    capabilities: list[Capability]
    labels: list[str] = []
    training: Training
    licence: str = Field(min_length=1)
    metrics: dict[str, object] = {}
    version: str = Field(min_length=1)
    date: str
    format: int = FORMAT

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_preset(cls, values: object) -> object:
        if isinstance(values, dict) and "config" not in values and values.get("preset") in PRESETS:
            return {**values, "config": PRESETS[values["preset"]]}
        return values

    @field_validator("config", mode="before")
    @classmethod
    def _known_sizes(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        names, value = {field.name for field in fields(Config)}, {**NEW_SIZES, **value}
        if value.keys() != names:
            raise ValueError(f"unknown sizes {sorted(value.keys() - names)}, missing {sorted(names - value.keys())}")
        return value

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        if value != CUSTOM and value not in PRESETS:
            raise ValueError(f"{value!r} is none of {[*PRESETS, CUSTOM]}")
        return value

    @field_validator("scales")
    @classmethod
    def _positive_scales(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < scale < float("inf") for scale in value):
            raise ValueError("scales are positive multiples of the spacing")
        return value

    @field_validator("date")
    @classmethod
    def _iso_date(cls, value: str) -> str:
        date.fromisoformat(value)
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: int) -> int:
        if value != FORMAT:
            raise ValueError(f"this version reads format {FORMAT}: update sam3d_label")
        return value

    @model_validator(mode="after")
    def _preset_and_sizes_agree(self) -> Card:
        preset = PRESETS.get(self.preset, self.config)
        older = {name: size for name, size in NEW_SIZES.items() if getattr(self.config, name) == size}
        if asdict(self.config) != asdict(preset) | older:
            raise ValueError(f"config differs from preset {self.preset!r}: call the preset {CUSTOM!r}")
        if len(set(self.capabilities)) != len(self.capabilities):
            raise ValueError(f"capabilities repeat: {self.capabilities}")
        return self

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card.

        Raises:
            WeightsError: It is missing, not JSON, or breaks a rule; the message names each field.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise WeightsError(f"{path} is missing: weights are used with the card they were saved with") from error
        except ValidationError as error:
            raise WeightsError(f"{path} is not a valid card: {complaints(error, 'card')}") from error
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read as a JSON card: {error}") from error

    def write(self, path: Path) -> None:
        """Write the card to a temporary file that then replaces the target.

        Raises:
            WeightsError: It cannot be written.
        """
        try:
            with replacing(path) as temporary:
                temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise WeightsError(f"{path} cannot be written: {error}") from error


def lost(card: Card, before: Card) -> list[Capability]:
    """Return the capabilities of earlier weights that others lack.

    Args:
        card: Of the other weights.
        before: Of the earlier weights.
    """
    return [capability for capability in ABILITIES if capability in set(before.capabilities) - set(card.capabilities)]
