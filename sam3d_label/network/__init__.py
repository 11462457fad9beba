"""The 3DSAM-adapter network (Gong et al., arXiv 2306.13465): tensors in, tensors out."""

from sam3d_label.network.config import PRESETS, Config
from sam3d_label.network.sam3d import SAM3D, Embedding, Proposals

__all__ = ["PRESETS", "SAM3D", "Config", "Embedding", "Proposals"]
