"""Learning from annotated cases."""

from typing import TYPE_CHECKING

from sam3d_label.lazy import exports

if TYPE_CHECKING:
    from sam3d_label.training.crops import Case, pair_cases
    from sam3d_label.training.fine_tune import TrainReport
    from sam3d_label.training.settings import TrainSettings

__all__ = ["Case", "TrainReport", "TrainSettings", "pair_cases"]
__getattr__ = exports(
    __name__, {"Case": "crops", "TrainReport": "fine_tune", "TrainSettings": "settings", "pair_cases": "crops"}
)
