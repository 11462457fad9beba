"""A depth-wise convolution whose backward pass is fast on a GPU."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F


class DepthwiseConvolution(torch.autograd.Function):
    """Depth-wise 3×3×3 convolution, padded by one.

    cuDNN takes ten times as long for the gradient of the kernel as for the rest of a training step. Here the gradient
    of each of the 27 weights of a channel is the product of the shifted input and the gradient of the result.
    """

    @staticmethod
    @custom_fwd(device_type="cuda")
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve x (B, C, H, W, D) with weight (C, 1, 3, 3, 3)."""
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, bias, padding=1, groups=len(weight))

    @staticmethod
    @custom_bwd(device_type="cuda")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # PyTorch's type allows one saved tensor
        """Return the gradients of x, weight and bias, of their shapes."""
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_x = F.conv3d(grad, weight.flip(2, 3, 4), padding=1, groups=len(weight))
        padded, size, precise = F.pad(x, (1,) * 6), grad.shape[2:], torch.promote_types(x.dtype, torch.float32)
        shares = [
            (padded[:, :, i : i + size[0], j : j + size[1], k : k + size[2]] * grad).sum((0, 2, 3, 4), dtype=precise)
            for i, j, k in product(range(3), repeat=3)
        ]
        grad_weight = torch.stack(shares, 1).view_as(weight)
        return grad_x, grad_weight.to(weight.dtype), grad.sum((0, 2, 3, 4), dtype=precise).to(weight.dtype)
