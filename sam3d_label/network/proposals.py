"""The result of the decoder with candidates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Proposals:
    """Candidate masks of one set of prompts.

    Attributes:
        logit: What the network answers, (B, 1, D, H, W).
        candidates: Logits of other answers, (B, candidates, D, H, W).
        dice: Predicted Dice of each candidate, (B, candidates).
    """

    logit: Tensor
    candidates: Tensor
    dice: Tensor
