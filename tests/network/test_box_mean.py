import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sam3d_label.network.box_mean import box_mean


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boxes_are_cut_off_at_the_faces_as_in_pooling_without_the_padding(radius):
    values = torch.randn(2, 1, 9, 12, 7, dtype=torch.float64)
    expected = F.avg_pool3d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    assert torch.allclose(box_mean(values, radius), expected)


def test_the_ends_are_repeated_as_in_padding_by_replication():
    values = torch.randn(2, 1, 9, 12, 7, dtype=torch.float64)
    expected = F.avg_pool3d(F.pad(values, (2,) * 6, mode="replicate"), 5, stride=1)
    assert torch.allclose(box_mean(values, 2, repeat_ends=True), expected)


def test_the_precision_is_that_of_the_values():
    assert box_mean(torch.ones(4, 4, 4), 1).dtype == torch.float32
    assert box_mean(torch.ones(4, 4, 4, dtype=torch.float64), 1).dtype == torch.float64


def test_sizes_without_values_leave_nothing_behind():
    with FakeTensorMode():
        box_mean(torch.empty(5, 5, 5), 1)
    assert type(box_mean(torch.ones(5, 5, 5), 1)) is torch.Tensor
