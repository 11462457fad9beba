"""Four feature maps, the image and the prompts to a mask."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_label.network.config import Config
from sam3d_label.network.resize import trilinear


class MaskDecoder(nn.Module):
    """The decoder, split into a part for each crop and a part for each click.

    The first convolution over [map 1, map 2, map 3, map 4, image] is linear in its input channels: the share
    of every input except map 4 is the same for all clicks in a crop (`fixed_share`) and is computed once.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.grid, self.width = config.half, config.decoder
        self.heads = nn.ModuleList(head(config.neck, config.decoder) for _ in range(4))
        self.fuse = nn.Conv3d(4 * config.decoder + 1, config.decoder, kernel_size=3, padding=1, bias=False)
        self.fuse_dense = nn.Conv3d(config.prompt_channels, config.decoder, kernel_size=3, padding=1, bias=False)
        self.classify = nn.Conv3d(config.decoder, 2, kernel_size=3, padding=1, bias=False)
        nn.init.zeros_(self.fuse_dense.weight)

    def fixed_share(self, maps: list[Tensor], crop: Tensor) -> Tensor:
        """Return the contribution of maps 1 to 3 and the crop (B, 1, H, W, D) to the first convolution.

        Returns:
            (B, decoder, half, half, half), axes H, W, D.
        """
        image = trilinear(crop, self.grid, align_corners=False)
        share = F.conv3d(image, self.fuse.weight[:, 4 * self.width :], padding=1)
        for index, feature in enumerate(maps[:3]):
            share = share + self._map_share(index, feature)
        return share

    def forward(self, prompted: Tensor, fixed_share: Tensor, dense: Tensor) -> Tensor:
        """Return background and foreground logits (B, 2, half, half, half), axes H, W, D, for one set of prompts.

        Args:
            prompted: Map 4 with the prompts written in, (B, neck, grid, grid, grid).
            fixed_share: Result of `fixed_share` for the crop.
            dense: The dense prompt, (B, C, half, half, half).
        """
        fused = fixed_share + self._map_share(3, prompted) + self.fuse_dense(dense).contiguous()
        return self.classify(F.relu(F.instance_norm(fused)))

    def _map_share(self, index: int, feature: Tensor) -> Tensor:
        """Return the contribution of map `index`, counted from 0, to the first convolution."""
        kernel = self.fuse.weight[:, index * self.width : (index + 1) * self.width]
        enlarged = trilinear(self.heads[index](feature), self.grid, align_corners=True)
        return F.conv3d(enlarged, kernel, padding=1)


def head(neck: int, width: int) -> nn.Sequential:
    """Return the two convolutions that every map passes."""
    return nn.Sequential(
        nn.Conv3d(neck, width, kernel_size=3, padding=1, bias=False),
        nn.InstanceNorm3d(width),
        nn.ReLU(),
        nn.Conv3d(width, width, kernel_size=3, padding=1, bias=False),
        nn.InstanceNorm3d(width),
        nn.ReLU(),
    )
