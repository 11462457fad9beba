"""Sizes that fit together, and a message for those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from sam3d_label.network import PRESETS, Config

REJECTED = [
    ({"patch": 12, "upsample": 4}, "patch must be a multiple of twice upsample"),
    ({"patch": 2, "upsample": 4}, "patch must be a multiple of twice upsample"),
    ({"crop": 100}, "crop must be a multiple of twice the voxels of a token"),
    ({"window": 5}, "the token grid must be a multiple of window"),
    ({"depth": 10}, "depth must be a multiple of four"),
    ({"heads": 7}, "width must be a multiple of heads"),
    ({"sam_grid": 40}, "sam_grid must be a multiple of the token grid"),
    ({"prompt_heads": 3}, "neck must be a multiple of twice prompt_heads"),
]


@pytest.mark.parametrize(("sizes", "rule"), REJECTED)
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Config(**sizes)


def test_defaults_are_the_paper() -> None:
    config = Config()
    assert (config.stride, config.grid, config.half) == (4, 32, 64)
    assert [config.table_length(block) for block in range(4)] == [27, 27, 127, 27]


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "last_global"),
    [("vit_b", 768, 12, 12, 11), ("vit_l", 1024, 24, 16, 23), ("vit_h", 1280, 32, 16, 31)],
)
def test_presets_have_the_published_sizes_of_sam(
    name: str, width: int, depth: int, heads: int, last_global: int
) -> None:
    preset = PRESETS[name]
    assert (preset.width, preset.depth, preset.heads) == (width, depth, heads)
    assert preset.global_blocks[-1] == last_global == depth - 1
    assert preset.grid == 32


def test_tiny_sees_the_same_crop() -> None:
    assert PRESETS["tiny"].crop == PRESETS["vit_b"].crop
