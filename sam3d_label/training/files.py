"""Names of the files that a training run writes into its folder."""

from __future__ import annotations

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
CURVES = "curves.png"
