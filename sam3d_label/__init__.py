"""SAM3D for MONAI Label: one click on a volume, a 3D mask back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.1.0"
__all__ = ["Box", "Click", "Prompts", "Segmenter", "Volume", "load_model", "open_weights"]

if TYPE_CHECKING:
    from sam3d_label.image.volume import Volume
    from sam3d_label.segmentation.prompts import Box, Click, Prompts
    from sam3d_label.segmentation.segmenter import Segmenter
    from sam3d_label.weights import load_model, open_weights

__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "segmentation.prompts": ["Box", "Click", "Prompts"],
        "segmentation.segmenter": ["Segmenter"],
        "image.volume": ["Volume"],
        "weights": ["load_model", "open_weights"],
    },
)
