"""The divided decoder: what is kept per crop, and what a click adds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.network import Config
from sam3d_label.network.mask_decoder import MaskDecoder


def undivided(decoder: MaskDecoder, maps: list[Tensor], crop: Tensor, dense: Tensor) -> Tensor:
    """The decoder as one convolution over all its inputs."""
    half = (decoder.grid,) * 3
    inputs = [
        F.interpolate(head(x), half, mode="trilinear", align_corners=True)
        for head, x in zip(decoder.heads, maps, strict=True)
    ]
    inputs.append(F.interpolate(crop, half, mode="trilinear", align_corners=False))
    fused = decoder.fuse(torch.cat(inputs, 1)) + decoder.fuse_dense(dense)
    return decoder.classify(torch.relu(F.instance_norm(fused)))


def parts(small: Config, batch: int = 2) -> tuple[MaskDecoder, list[Tensor], Tensor, Tensor]:
    """A decoder in double precision and random inputs."""
    torch.manual_seed(0)
    decoder = MaskDecoder(small).double()
    maps = [torch.randn(batch, small.neck, 4, 4, 4, dtype=torch.float64) for _ in range(4)]
    crop = torch.randn(batch, 1, 16, 16, 16, dtype=torch.float64)
    return decoder, maps, crop, torch.randn(batch, small.prompt_channels, 8, 8, 8, dtype=torch.float64)


def test_the_shares_add_up(small: Config) -> None:
    decoder, maps, crop, dense = parts(small)
    torch.nn.init.normal_(decoder.fuse_dense.weight)
    divided = decoder(maps[3], decoder.fixed_share(maps, crop), dense)
    assert divided.shape == (2, 2, 8, 8, 8)
    torch.testing.assert_close(divided, undivided(decoder, maps, crop, dense))


def test_the_fixed_share_ignores_the_prompted_map(small: Config) -> None:
    decoder, maps, crop, _ = parts(small)
    before = decoder.fixed_share(maps, crop)
    maps[3] = maps[3] + 1
    assert torch.equal(decoder.fixed_share(maps, crop), before)


def test_the_dense_prompt_is_silent_until_trained(small: Config) -> None:
    decoder, maps, crop, dense = parts(small)
    share = decoder.fixed_share(maps, crop)
    assert torch.equal(decoder(maps[3], share, dense), decoder(maps[3], share, torch.zeros_like(dense)))


def test_decoding_leaves_the_share_as_it_was(small: Config) -> None:
    decoder, maps, crop, dense = parts(small)
    with torch.no_grad():
        share = decoder.fixed_share(maps, crop)
        kept = share.clone()
        decoder(maps[3], share, dense)
    assert torch.equal(share, kept)
