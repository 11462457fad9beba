"""Learning from annotated cases."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from sam3d_label.training.dataset import TrainingCase, pair_cases
    from sam3d_label.training.run import TrainingRun, TrainReport
    from sam3d_label.training.settings import TrainSettings

__all__ = ["TrainReport", "TrainSettings", "TrainingCase", "TrainingRun", "pair_cases"]
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dataset": ["TrainingCase", "pair_cases"],
        "run": ["TrainReport", "TrainingRun"],
        "settings": ["TrainSettings"],
    },
)
