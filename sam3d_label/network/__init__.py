"""The 3DSAM-adapter network (Gong et al., arXiv 2306.13465): tensors in, tensors out."""

from typing import TYPE_CHECKING

import lazy_loader

from sam3d_label.network.config import PRESETS, Config

if TYPE_CHECKING:
    from sam3d_label.network.sam3d import SAM3D, Embedding, Proposals

__all__ = ["PRESETS", "SAM3D", "Config", "Embedding", "Proposals"]
__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"sam3d": ["SAM3D", "Embedding", "Proposals"]})
