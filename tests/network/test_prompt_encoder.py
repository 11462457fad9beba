"""What each kind of prompt does, and that none does anything before it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Config, Embedding
from sam3d_label.network.prompt_encoder import DensePrompt, PromptEncoder

MakeNetwork = Callable[..., SAM3D]
POINTS = torch.tensor([[[3, 9, 12], [7, 7, 7]]])
INSIDE = torch.tensor([[1, 1]])
BOX = torch.tensor([[[[2.0, 3.0, 4.0], [9.0, 12.0, 11.0]]]])


def embed(network: SAM3D, batch: int = 1) -> Embedding:
    """The embedding of a random crop."""
    crop = torch.randn(batch, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return network.encode(crop)


def earlier_mask() -> Tensor:
    """The logit of an earlier pass."""
    return torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    "more",
    [{"signs": torch.tensor([[1, 0]])}, {"mask": earlier_mask()}],
    ids=["sign", "mask"],
)
def test_untrained_additions_change_nothing(make_network: MakeNetwork, more: dict[str, Tensor]) -> None:
    network = make_network(additions=False)
    embedding = embed(network)
    plain = network.decode(embedding, POINTS, INSIDE)
    with_more: dict[str, Any] = {"signs": INSIDE, **more}
    assert torch.equal(network.decode(embedding, POINTS, **with_more), plain)


def test_an_untrained_box_is_two_plain_clicks(make_network: MakeNetwork) -> None:
    """Its corners are tokens sampled from the map; what tells them from clicks starts at zero."""
    network = make_network(additions=False)
    embedding, none = embed(network), torch.zeros(1, 0)
    boxed = network.decode(embedding, none.view(1, 0, 3), none, boxes=BOX)
    torch.testing.assert_close(boxed, network.decode(embedding, BOX[:, 0], INSIDE))


def test_untrained_absence_of_prompts_adds_a_zero_token(make_network: MakeNetwork) -> None:
    network = make_network(additions=False)
    nothing = network.decode(embed(network), torch.zeros(1, 0, 3), torch.zeros(1, 0))
    assert nothing.isfinite().all()
    with torch.no_grad():
        network.prompt_encoder.no_prompt_embed.add_(1)
    assert not torch.allclose(network.decode(embed(network), torch.zeros(1, 0, 3), torch.zeros(1, 0)), nothing)


@pytest.mark.parametrize("kind", ["sign", "mask", "box", "absence"])
def test_trained_additions_matter(make_network: MakeNetwork, kind: str) -> None:
    network = make_network(additions=True)
    embedding = embed(network)
    plain = network.decode(embedding, POINTS, INSIDE)
    other = {
        "sign": lambda: network.decode(embedding, POINTS, torch.tensor([[1, 0]])),
        "mask": lambda: network.decode(embedding, POINTS, INSIDE, mask=earlier_mask()),
        "box": lambda: network.decode(embedding, POINTS, INSIDE, boxes=BOX),
        "absence": lambda: network.decode(embedding, POINTS, -INSIDE),
    }[kind]()
    assert (other - plain).abs().max() > 1e-3


def test_the_no_prompt_token_appears_only_without_prompts(make_network: MakeNetwork) -> None:
    """In a batch, an item without prompts does not lend its token to the others."""
    network = make_network()
    embedding = embed(network, batch=2)
    points, signs = POINTS.repeat(2, 1, 1), torch.tensor([[1, 0], [-1, -1]])
    before = network.decode(embedding, points, signs)
    with torch.no_grad():
        network.prompt_encoder.no_prompt_embed.add_(1)
    after = network.decode(embedding, points, signs)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


@pytest.mark.parametrize("clicks", [0, 1, 2])
def test_padding_equals_the_shorter_list(make_network: MakeNetwork, clicks: int) -> None:
    network = make_network()
    embedding = embed(network)
    signs = torch.tensor([[0, 1]])
    short = network.decode(embedding, POINTS[:, :clicks], signs[:, :clicks])
    padded_points = torch.cat([POINTS[:, :clicks], torch.full((1, 3, 3), 5)], 1)
    padded_signs = torch.cat([signs[:, :clicks], torch.full((1, 3), -1)], 1)
    torch.testing.assert_close(network.decode(embedding, padded_points, padded_signs), short)


def test_a_box_of_nan_is_no_box(make_network: MakeNetwork) -> None:
    network = make_network()
    embedding = embed(network)
    without = network.decode(embedding, POINTS, INSIDE)
    torch.testing.assert_close(
        network.decode(embedding, POINTS, INSIDE, boxes=torch.full_like(BOX, torch.nan)), without
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.float32, torch.float64])
def test_signs_and_points_of_any_number_type(make_network: MakeNetwork, dtype: torch.dtype) -> None:
    network = make_network()
    embedding, signs = embed(network), torch.tensor([[0, 1]])
    expected = network.decode(embedding, POINTS, signs)
    torch.testing.assert_close(network.decode(embedding, POINTS.to(dtype), signs.to(dtype)), expected)


def test_order_of_clicks_is_free(make_network: MakeNetwork) -> None:
    network = make_network()
    embedding, signs = embed(network), torch.tensor([[1, 0]])
    expected = network.decode(embedding, POINTS, signs)
    torch.testing.assert_close(network.decode(embedding, POINTS.flip(1), signs.flip(1)), expected)


def test_a_click_samples_its_own_cell(small: Config) -> None:
    """A map that holds its own coordinates, read back at voxel centres; axes d, h, w against H, W, D."""
    encoder = PromptEncoder(small)
    axis = torch.arange(4.0)
    h, w, d = torch.meshgrid(axis, axis, axis, indexing="ij")
    feature = torch.stack([d, h, w]).unsqueeze(0)
    points = torch.tensor([[[5.5, 9.5, 1.5], [5.5, 10.5, 8.5]]])
    expected = (points + 0.5) / 4 - 0.5
    torch.testing.assert_close(encoder._sample(feature, points), expected)


@pytest.mark.parametrize("corner", [(0, 0, 0), (15, 15, 15), (0, 15, 7)])
def test_a_click_on_the_border_reads_beyond_the_map_as_zero(small: Config, corner: tuple[int, int, int]) -> None:
    encoder = PromptEncoder(small)
    beyond = sum(voxel in (0, 15) for voxel in corner)
    value = encoder._sample(torch.ones(1, 1, 4, 4, 4), torch.tensor([[corner]], dtype=torch.float32))
    torch.testing.assert_close(value, torch.full((1, 1, 1), (1 - 0.375) ** beyond))


def test_drawing_has_each_prompt_in_its_channel(small: Config) -> None:
    """The peak of a bump and the middle of a box lie where the prompt was, in axes H, W, D."""
    points, signs = torch.tensor([[[2.5, 8.5, 12.5], [10.5, 4.5, 0.5]]]), torch.tensor([[1, 0]])
    drawing = DensePrompt(small)(points, signs, BOX, None)[0]
    assert drawing.shape == (6, 8, 8, 8)
    assert not drawing[0].any()
    for narrow, wide, (d, h, w) in ((1, 2, (1, 4, 6)), (3, 4, (5, 2, 0))):
        for channel in (narrow, wide):
            assert drawing[channel, h, w, d] == drawing[channel].max() == 1
        assert drawing[wide].mean() > drawing[narrow].mean()
    assert drawing[5].sum() == 4 * 4 * 4
    assert drawing[5, 2:6, 2:6, 1:5].all()


def test_a_mask_on_the_grid_of_the_decoder_needs_no_resizing(make_network: MakeNetwork) -> None:
    network = make_network()
    embedding, coarse = embed(network), torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    found = network.decode(embedding, POINTS, INSIDE, mask=coarse)
    torch.testing.assert_close(found, network.decode(embedding, POINTS, INSIDE, mask=fine), rtol=1e-5, atol=1e-5)


def test_drawing_of_a_mask_keeps_its_sign_and_axes(small: Config) -> None:
    mask = torch.full((1, 1, 16, 16, 16), -40.0)
    mask[0, 0, 0:2, 4:6, 8:10] = 40
    previous = DensePrompt(small)(torch.zeros(1, 0, 3), torch.zeros(1, 0), torch.zeros(1, 0, 2, 3), mask)[0, 0]
    assert (previous > 0).nonzero().tolist() == [[2, 4, 0]]
    torch.testing.assert_close(previous.abs(), torch.ones(8, 8, 8))
