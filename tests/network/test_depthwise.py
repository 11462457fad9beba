"""The fast backward pass has the values of the plain one."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sam3d_label.network.depthwise import DepthwiseConvolution


def test_values_and_gradients_are_those_of_the_plain_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 4, 5, 6), (3, 1, 3, 3, 3), (3,)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, weight, bias = inputs
    plain = F.conv3d(x, weight, bias, padding=1, groups=3)
    fast = DepthwiseConvolution.apply(x, weight, bias)
    torch.testing.assert_close(fast, plain)
    along = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(fast, inputs, along), torch.autograd.grad(plain, inputs, along))
