"""Learning from annotated cases."""

from sam3d_label.training.crops import Case, pair_cases
from sam3d_label.training.fine_tune import TrainReport, fine_tune
from sam3d_label.training.settings import TrainSettings

__all__ = ["Case", "TrainReport", "TrainSettings", "fine_tune", "pair_cases"]
