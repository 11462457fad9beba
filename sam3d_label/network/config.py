"""The sizes of the network, and presets of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

COSTS = 2
"""Kinds of geodesic distance, see `geodesic`."""

DRAWN = 6
"""Channels of the dense prompt that are drawn: the previous mask, two of either kind of click, the boxes."""

LIKENESS = 4
"""Channels of the dense prompt with the likeness to the clicks, see `slice_features`."""

SLICE_STRIDE = 4
"""Voxels of the crop along the edge of a feature of its slices."""


@dataclass(frozen=True)
class Config:
    """Sizes of a 3DSAM-adapter.

    Lengths are in voxels of the crop, tokens of the grid or channels. The defaults are those of the paper for
    ViT-B.

    Attributes:
        crop: Edge of the cubic crop, voxels.
        patch: Edge of SAM's 2D patch, pixels of the upsampled slice, a multiple of twice `upsample`.
        upsample: Factor by which the crop is enlarged before the patch embedding; a token covers
            patch / upsample voxels.
        width: Channels C of a token.
        depth: Number of transformer blocks, a multiple of four: one neck follows each quarter.
        heads: Attention heads of a block.
        mlp_ratio: Hidden width of a block's MLP over `width`.
        window: Edge of the cubic attention window, tokens.
        sam_grid: Edge of SAM's 2D position embedding, tokens.
        sam_window: Edge of SAM's own attention window: it sets the length of the relative-position tables.
        global_blocks: Blocks that SAM runs without a window: their tables span `sam_grid`.
        neck: Channels of the four feature maps.
        prompt_layers: Layers of the prompt encoder.
        prompt_heads: Attention heads of the prompt encoder.
        prompt_mlp: Hidden width of the prompt encoder's MLP.
        queries: Learned global queries of each prompt-encoder layer.
        decoder: Channels of the mask decoder.
        dense: Channels of the convolutions that spread the dense prompt.
        fine: Channels of the fine path at half the crop and at each halving down to the grid; none as in the paper.
        deep: Channels of the fine path at each halving below the grid.
        geodesic: Distances over which the geodesic maps of the clicks fade; None without such maps.
        candidates: Masks that one prompt may mean, each with a predicted Dice; 0 without such a head.
        slice_features: Whether features of LiteMedSAM's frozen 2D encoder are added, see `slice_features`.
    """

    crop: int = 128
    patch: int = 16
    upsample: int = 4
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    window: int = 8
    sam_grid: int = 64
    sam_window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    neck: int = 256
    prompt_layers: int = 2
    prompt_heads: int = 8
    prompt_mlp: int = 2048
    queries: int = 10
    decoder: int = 128
    dense: int = 64
    fine: tuple[int, ...] = ()
    deep: tuple[int, ...] = ()
    geodesic: tuple[float, ...] | None = None
    candidates: int = 0
    slice_features: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "global_blocks", tuple(self.global_blocks))
        object.__setattr__(self, "fine", tuple(self.fine))
        object.__setattr__(self, "deep", tuple(self.deep))
        if self.geodesic is not None:
            object.__setattr__(self, "geodesic", tuple(self.geodesic))
        if self.patch % (2 * self.upsample):
            raise ValueError(f"patch must be a multiple of twice upsample: {self}")
        rules = {
            "crop must be a multiple of twice the voxels of a token": self.crop % (2 * self.stride) == 0,
            "the token grid must be a multiple of window": self.grid % self.window == 0,
            "depth must be a multiple of four": self.depth % 4 == 0,
            "width must be a multiple of heads": self.width % self.heads == 0,
            "fine must name a width for each halving of the crop down to the token grid": not self.fine
            or self.stride == 2 ** len(self.fine),
            "deep needs fine, and a grid that can be halved so often and once more": not self.deep
            or (bool(self.fine) and self.grid % 2 ** (len(self.deep) + 1) == 0),
            "geodesic must name positive distances, or be None": self.geodesic is None
            or (bool(self.geodesic) and all(scale > 0 for scale in self.geodesic)),
            "candidates need fine, and are not negative": self.candidates == 0
            or (self.candidates > 0 and bool(self.fine)),
            "slice_features need fine of two levels": not self.slice_features
            or (len(self.fine) > 1 and self.stride >= SLICE_STRIDE),
            "sam_grid must be a multiple of the token grid": self.sam_grid % self.grid == 0,
            "neck must be a multiple of twice prompt_heads": self.neck % (2 * self.prompt_heads) == 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"{rule}: {self}")

    @property
    def stride(self) -> int:
        """Voxels of the crop along the edge of one token."""
        return self.patch // self.upsample

    @property
    def grid(self) -> int:
        """Tokens along the edge of the crop."""
        return self.crop // self.stride

    @property
    def half(self) -> int:
        """Edge of the decoder's working grid: half the crop."""
        return self.crop // 2

    @property
    def prompt_channels(self) -> int:
        """Channels of the dense prompt."""
        return DRAWN + self.geodesic_channels + LIKENESS * self.slice_features

    @property
    def geodesic_channels(self) -> int:
        """Channels of the dense prompt with geodesic maps."""
        return 0 if self.geodesic is None else COSTS * (2 * len(self.geodesic) + 1)

    def table_length(self, block: int) -> int:
        """Return the number of rows of the relative-position tables of a block."""
        return 2 * (self.sam_grid if block in self.global_blocks else self.sam_window) - 1


TINY = Config(
    upsample=2,
    width=192,
    depth=4,
    heads=6,
    sam_grid=16,
    sam_window=8,
    global_blocks=(),
    neck=64,
    prompt_heads=4,
    prompt_mlp=256,
    decoder=16,
    fine=(16, 32, 64),
    deep=(96, 128),
)

PRESETS: dict[str, Config] = {
    "tiny": TINY,
    "tiny-geodesic": replace(TINY, geodesic=(3.0, 12.0, 48.0), candidates=3),
    "vit_b": Config(),
    "vit_l": Config(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": Config(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
}
