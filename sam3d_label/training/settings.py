"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sam3d_label.weights import Card

FEW_CASES: dict[str, Any] = {"learning_rate": 2e-3, "clicks": 2, "served_share": 0.9, "alike": True}
"""Settings for a few hundred steps on a few cases, as measured on hippocampi (benchmarks/learning_curve.py): a
high learning rate for the adapters, short sessions, and crops as serving lays them, which stay as the scanner laid
them."""

FEW_CASES_FINE: dict[str, Any] = {"learning_rate": 4e-3, "clicks": 1, "encoder_share": 0.15}
"""Instead of those, where a fine path follows the encoder, as in `tiny`: it learns most of a new structure, so that the
time goes to it, in more and cheaper steps."""

CROPS_PER_CASE = 4
"""Crops that each case gives to an epoch, within `FEWEST_STEPS` and `MOST_STEPS`."""

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
        average: Decay of the running average of the weights, which is what is validated and stored; 0 for none.
        clicks: Mean number of rounds simulated on each crop, of which the first and the last train.
        box_share: Share of crops whose first prompt is a box around the target.
        several_share: Share of crops that begin with several clicks at once.
        no_click_share: Share of crops that begin without any prompt, where the target can be found without one.
        two_passes: Let prompts correct what one of them opens (`segmentation.two_pass`); else no round sees a mask.
        rough_mask_share: Share of crops that come with a rough mask to correct, as a wider view gives it.
        served_share: Share of crops positioned as at inference; the others show the target at any scale.
        serves_at: Spacings, mm, of inference, the usual one first; without any, `served_share` has no effect.
        alike: The cases are of one kind, as those of a team are: crops keep their contrast and, but for left and right
            and a slant, their orientation.
        patience: Looks at the validation cases without a better Dice after which the run ends; None for no end.
        validate_every: Epochs between two validations.
        seed: Fixes every random choice.
        workers: Processes that prepare crops.
        precision: bf16 autocast, fp32, or bf16 where the device computes in it (auto).
        activation_checkpointing: Spend time to save memory in the encoder; auto where activations do not fit else.
        crops_at_once: Crops of a step that are encoded together in a process; auto for as many as make it faster and
            fit. The gradients of a step are added up, so that `batch` means the same whatever this is.
        cases_mb: Mebibytes that opened cases may fill in each process, the others being opened again when they are
            drawn; auto for half of the memory that training leaves free.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    served_share: float = Field(default=0.0, ge=0, le=1)
    serves_at: tuple[float, ...] = ()
    alike: bool = False
    patience: int | None = Field(default=None, ge=1)
    validate_every: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    activation_checkpointing: bool | Literal["auto"] = "auto"
    crops_at_once: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    cases_mb: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"

    @classmethod
    def few_cases(cls, cases: int, card: Card, **chosen: Any) -> TrainSettings:
        """Those for trained weights and a team's own cases; an epoch grows with the cases.

        Args:
            cases: How many.
            card: Of the weights that learn from them.
            chosen: Settings that somebody asked for.
        """
        steps = min(max(CROPS_PER_CASE * cases, FEWEST_STEPS), MOST_STEPS)
        few = {**FEW_CASES, **(FEW_CASES_FINE if card.config.fine else {})}
        return cls(**{**few, "steps_per_epoch": steps, "serves_at": spacings_of_serving(card), **chosen})

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def learning_rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step: a rise, a plateau, a fall."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return rise * min(1.0, max(0.01, left))


def spacings_of_serving(card: Card) -> tuple[float, ...]:
    """Return the spacings, mm, at which weights process a volume, the usual one first."""
    return (card.spacing, *(card.spacing * scale for scale in card.scales if scale != 1))
