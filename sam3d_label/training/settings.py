"""Settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from sam3d_label.weights import Card

FEW_CASES: Mapping[str, object] = {"learning_rate": 2e-3, "clicks": 2, "inference_share": 0.9, "homogeneous": True}
"""Settings for a few hundred steps on a few cases, as measured on hippocampi (benchmarks/learning_curve.py): a
high learning rate for the adapters, short sessions, and crops positioned as at inference, in their stored
orientation."""

FEW_CASES_FINE: Mapping[str, object] = {"learning_rate": 4e-3, "clicks": 1, "encoder_share": 0.15}
"""Replacements for networks with a fine path, such as `tiny`: it learns most of a new structure, so that most steps
train it and not the encoder, which makes them cheaper."""

FEW_CASES_KEEPING: Mapping[str, object] = {"learning_rate": 1e-3, "clicks": 2}
"""Replacements for networks with a fine path that must keep what they know of other targets: smaller steps, and
sessions with corrections, since sessions of one round unlearn how to take them (benchmarks/forgetting.py)."""

CROPS_PER_CASE = 4
"""Crops of each case in an epoch, within `FEWEST_STEPS` and `MOST_STEPS`."""

FEWEST_STEPS, MOST_STEPS = 10, 100


class TrainSettings(BaseModel):
    """Settings of `fine_tune`; a run is a function of these, the cases and the weights it starts from.

    Attributes:
        epochs: Epochs to train; a checkpoint is written after each.
        steps_per_epoch: Optimizer steps in an epoch.
        batch: Crops of a step, whose gradients are added up; the processes that train together share them.
        learning_rate: Peak of AdamW's learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: Steps over which the learning rate rises from zero.
        decay: Share of the steps, at the end, over which it falls linearly to a hundredth.
        clip: Largest gradient norm.
        trunk: Train SAM's encoder too, as for a network that has no SAM weights of its size.
        encoder_share: Share of the steps whose gradients reach the encoder's adapters; in the others, which take less
            time, only what follows the encoder learns.
        average: Decay of the running average of the weights, which is validated and stored; 0 for none.
        clicks: Mean number of simulated rounds on each crop; the first and the last are trained on.
        box_share: Share of crops whose first prompt is a box around the target.
        several_share: Share of crops that begin with several clicks at once.
        no_click_share: Share of crops with a salient target that begin without any prompt.
        two_passes: Let prompts correct the mask of the initial one (`segmentation.two_pass`); else no round has a mask.
        rough_mask_share: Share of crops with a rough mask to correct, like that of a wider view.
        inference_share: Share of crops positioned as at inference; the others show the target at any scale.
        inference_spacings: Spacings of inference, mm, the usual one first; if empty, `inference_share` has no effect.
        homogeneous: The cases are of one kind, such as those of one team: crops keep their contrast and, except for
            left-right flips and small rotations, their orientation. Stored as `alike`, and the two settings above as
            `served_share` and `serves_at`.
        patience: Validations without a better Dice after which the run ends early; None for never.
        validate_every: Epochs between two validations.
        seed: Fixes every random choice.
        workers: Processes that prepare crops.
        precision: bf16 autocast, fp32, or bf16 where the device computes in it (auto).
        activation_checkpointing: Recompute the encoder's activations to save memory; auto if they do not fit otherwise.
        crops_at_once: Crops of a step that are encoded together in a process; auto for as many as fit, if that is
            faster. It does not change the meaning of `batch`, since the gradients of a step are accumulated.
        cases_mb: Mebibytes for opened cases in each process; others are opened again when they are drawn. auto for
            half of the memory that training leaves free.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    epochs: int = Field(default=20, ge=1)
    steps_per_epoch: int = Field(default=50, ge=1)
    batch: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=4e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=10, ge=0)
    decay: float = Field(default=0.4, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    trunk: bool = False
    encoder_share: float = Field(default=1.0, ge=0, le=1)
    average: float = Field(default=0.99, ge=0, lt=1)
    clicks: int = Field(default=3, ge=1)
    box_share: float = Field(default=0.1, ge=0, le=1)
    several_share: float = Field(default=0.25, ge=0, le=1)
    no_click_share: float = Field(default=0.1, ge=0, le=1)
    two_passes: bool = True
    rough_mask_share: float = Field(default=0.15, ge=0, le=1)
    inference_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        validation_alias=AliasChoices("inference_share", "served_share"),
        serialization_alias="served_share",
    )
    inference_spacings: tuple[float, ...] = Field(
        default=(), validation_alias=AliasChoices("inference_spacings", "serves_at"), serialization_alias="serves_at"
    )
    homogeneous: bool = Field(
        default=False, validation_alias=AliasChoices("homogeneous", "alike"), serialization_alias="alike"
    )
    patience: int | None = Field(default=None, ge=1)
    validate_every: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    activation_checkpointing: bool | Literal["auto"] = "auto"
    crops_at_once: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    cases_mb: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"

    @classmethod
    def few_cases(cls, cases: int, card: Card, *, keeping: bool = False, **chosen: object) -> TrainSettings:
        """Return the settings to adapt trained weights to a few cases; epochs grow with the number of cases.

        Args:
            cases: Number of cases.
            card: Card of the weights.
            keeping: The weights must keep what they know of other targets.
            chosen: Settings that replace the defaults.
        """
        steps = min(max(CROPS_PER_CASE * cases, FEWEST_STEPS), MOST_STEPS)
        few = {**FEW_CASES, **(FEW_CASES_FINE if card.config.fine else {})}
        if keeping and card.config.fine:
            few |= FEW_CASES_KEEPING
        of_these = {"steps_per_epoch": steps, "inference_spacings": inference_spacings_of(card)}
        return cls.model_validate({**few, **of_these, **chosen})

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def learning_rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step: a rise, a plateau, a fall."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return rise * min(1.0, max(0.01, left))


def inference_spacings_of(card: Card) -> tuple[float, ...]:
    """Return the spacings, mm, at which weights process a volume, the usual one first."""
    return (card.spacing, *(card.spacing * scale for scale in card.scales if scale != 1))
