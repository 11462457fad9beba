"""The 3DSAM-adapter network (Gong et al., arXiv 2306.13465): tensors in, tensors out."""

from typing import TYPE_CHECKING

import lazy_loader

from sam3d_label.network.config import PRESETS, Config

if TYPE_CHECKING:
    from sam3d_label.network.embedding import Embedding
    from sam3d_label.network.proposals import Proposals
    from sam3d_label.network.protocol import PromptableNetwork
    from sam3d_label.network.sam3d import SAM3D

__all__ = ["PRESETS", "SAM3D", "Config", "Embedding", "PromptableNetwork", "Proposals"]
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "embedding": ["Embedding"],
        "proposals": ["Proposals"],
        "protocol": ["PromptableNetwork"],
        "sam3d": ["SAM3D"],
    },
)
