import torch
from segment_anything.modeling.common import MLPBlock as SamMLPBlock
from torch import nn

from sam3d_label.network.mlp import MLPBlock


def test_the_block_is_that_of_sam() -> None:
    ours, sams = MLPBlock(6, 10, act=nn.ReLU), SamMLPBlock(6, 10, act=nn.ReLU)
    ours.load_state_dict(sams.state_dict())
    tokens = torch.randn(2, 3, 6)
    assert torch.equal(ours(tokens), sams(tokens))
