"""The fused stem: one convolution for enlarging, patch embedding and merging of slices."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sam3d_label.network import Config
from sam3d_label.network.stem import Stem, interpolation_matrix


@pytest.mark.parametrize(("patch", "upsample"), [(16, 4), (16, 2), (8, 4), (8, 1)])
def test_interpolation_matrix_is_linear_enlargement(patch: int, upsample: int) -> None:
    signal = torch.randn(patch // upsample * 3)
    expected = F.interpolate(signal[None, None], scale_factor=upsample, mode="linear", align_corners=False)[0, 0]
    voxels = patch // upsample
    middle = interpolation_matrix(patch, upsample) @ signal[voxels - 1 : 2 * voxels + 1]
    torch.testing.assert_close(middle, expected[patch : 2 * patch])


def test_a_constant_crop_gives_the_same_token_everywhere(small: Config) -> None:
    """The interpolation sums to one and the border is replicated: no token can tell where it lies."""
    tokens = Stem(small)(torch.full((1, 1, 16, 16, 16), 3.0))
    torch.testing.assert_close(tokens, tokens[:, :1, :1, :1].expand_as(tokens))


def test_axes_are_kept(small: Config) -> None:
    """A voxel along the second axis changes tokens along the second axis only."""
    stem, crop = Stem(small), torch.zeros(1, 1, 16, 16, 16)
    blank = stem(crop)
    crop[0, 0, 2, 14, 2] = 1
    changed = (stem(crop) - blank).abs().sum(-1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[0, 3, 0]]


def test_the_kernel_follows_the_trained_slices(small: Config) -> None:
    """The fusion happens at each pass: what training changes in `slice_embed` shows at once."""
    stem, crop = Stem(small), torch.randn(2, 1, 16, 16, 16)
    before = stem(crop)
    before.sum().backward()
    assert stem.slice_embed.weight.grad is not None
    assert stem.slice_embed.weight.grad.any()
    with torch.no_grad():
        assert stem.slice_embed.bias is not None
        stem.slice_embed.weight.mul_(2)
        stem.slice_embed.bias.mul_(2)
    torch.testing.assert_close(stem(crop), 2 * before)
