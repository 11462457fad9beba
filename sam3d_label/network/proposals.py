"""The result of `PromptableNetwork.propose`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Proposals:
    """Candidate masks of one set of prompts.

    Attributes:
        logit: Result of `decode`, (B, 1, D, H, W).
        candidates: Logits of other masks that the prompts may mean, (B, candidates, D, H, W).
        dice: Predicted Dice of each candidate, (B, candidates).
    """

    logit: Tensor
    candidates: Tensor
    dice: Tensor
