import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sam3d_label.network.resize import trilinear, weights_at


@pytest.mark.parametrize(("samples", "size"), [(8, 16), (8, 8), (16, 6), (5, 17)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_it_is_torch_interpolation_in_value_and_gradient(samples, size, align_corners):
    ours = torch.randn(2, 3, *(samples,) * 3, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weights = torch.randn(2, 3, *(size,) * 3, dtype=torch.float64)
    found = trilinear(ours, size, align_corners=align_corners)
    expected = F.interpolate(theirs, size=(size,) * 3, mode="trilinear", align_corners=align_corners)
    assert torch.allclose(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad)


def test_gradients_pass_after_inference():
    weights_at.cache_clear()
    values = torch.randn(1, 1, 4, 4, 4, requires_grad=True)
    with torch.inference_mode():
        trilinear(values, 8, align_corners=True)
    trilinear(values, 8, align_corners=True).sum().backward()
    assert values.grad.abs().sum() > 0


def test_sizes_without_values_leave_nothing_behind():
    """Planning a training goes through the network with tensors that have no memory, before the training does."""
    with FakeTensorMode():
        trilinear(torch.empty(1, 1, 5, 5, 5), 10, align_corners=False)
    assert type(trilinear(torch.ones(1, 1, 5, 5, 5), 10, align_corners=False)) is torch.Tensor
