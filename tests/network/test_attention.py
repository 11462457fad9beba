"""Windowed attention: its pieces, one at a time."""

from __future__ import annotations

import pytest
import torch

from sam3d_label.benchmark import plain
from sam3d_label.network import attention
from sam3d_label.network.attention import WindowAttention, coordinate_codes, partition, unpartition


def layer(*, window: int = 4, shift: int = 0, seed: int = 0) -> WindowAttention:
    """A layer with random parameters, in double precision."""
    torch.manual_seed(seed)
    made = WindowAttention(width=12, heads=2, window=window, shift=shift, table_length=9).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.4)
    return made


@pytest.mark.parametrize("shape", [(2, 4, 4, 4, 3), (1, 8, 4, 12, 2), (3, 2, 6, 4, 1)])
def test_partition_is_undone(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    windows = partition(x, 2)
    assert windows.shape == (x[..., 0].numel() // 8, 8, shape[-1])
    assert torch.equal(unpartition(windows, 2, x.shape), x)


def test_a_window_holds_neighbours_of_one_item() -> None:
    x = torch.arange(2 * 4**3).view(2, 4, 4, 4, 1)
    assert torch.equal(partition(x, 2)[8, :, 0], x[1, :2, :2, :2, 0].flatten())


def test_coordinate_codes_name_each_token_once() -> None:
    codes = coordinate_codes(3)
    assert codes.shape == (27, 9)
    assert torch.equal(codes.sum(1), torch.full((27,), 3.0))
    assert len(codes.unique(dim=0)) == 27


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", [(4, 4, 4), (8, 4, 12)])
def test_equals_the_stored_score_matrix(shift: int, grid: tuple[int, int, int]) -> None:
    """Grids need not be cubes."""
    made, x = layer(shift=shift), torch.randn(1, *grid, 12, dtype=torch.float64)
    torch.testing.assert_close(made(x), plain.attend(made, x))


@pytest.mark.parametrize("shift", [0, 1])
def test_items_of_a_batch_do_not_mix(shift: int) -> None:
    made, x = layer(window=2, shift=shift), torch.randn(3, 4, 4, 4, 12, dtype=torch.float64)
    alone = torch.cat([made(item.unsqueeze(0)) for item in x])
    torch.testing.assert_close(made(x), alone)


def test_shift_lets_neighbours_across_windows_meet_and_keeps_the_ends_apart() -> None:
    made, x = layer(window=2, shift=1), torch.randn(1, 4, 4, 4, 12, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    touched = ((made(moved) - made(x)).abs().sum(-1)[0] > 1e-9).nonzero().tolist()
    assert touched == [[0, 0, 0]], "a corner of the grid is alone in its shifted window"
    moved = x.clone()
    moved[0, 1, 1, 1] += 1
    touched = ((made(moved) - made(x)).abs().sum(-1)[0] > 1e-9).nonzero()
    assert (int(touched.min()), int(touched.max()), len(touched)) == (1, 2, 8)


@pytest.mark.parametrize("shift", [0, 1])
def test_chunks_change_the_memory_and_not_the_result(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(window=2, shift=shift), torch.randn(2, 4, 4, 4, 12, dtype=torch.float64)
    whole = made(x)
    monkeypatch.setattr(attention, "CHUNK", {"cpu": 3})
    with torch.no_grad():
        torch.testing.assert_close(made(x), whole)


@pytest.mark.parametrize("most", [0, attention.MOST_SCORES])
def test_in_bf16_it_learns_the_same_with_scores_kept_or_not(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_SCORES", most)
    made, x = layer(shift=2).float(), torch.randn(1, 8, 8, 8, 12)

    def learn(bf16: bool) -> tuple[torch.Tensor, ...]:
        made.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            result = made(x)
        result.float().square().mean().backward()
        return result.detach().float(), made.qkv.weight.grad, made.rel_pos_h.grad  # type: ignore[return-value]

    for rough, exact in zip(learn(bf16=True), learn(bf16=False), strict=True):
        assert float((rough - exact).norm() / exact.norm()) < 0.02


def test_lr_zero_forgets_positions() -> None:
    """With lr = 0 and no shift, a permutation of a window's tokens permutes the result."""
    made, x = layer(window=2), torch.randn(1, 2, 2, 2, 12, dtype=torch.float64)
    torch.nn.init.zeros_(made.lr)
    torch.testing.assert_close(made(x.flip(1, 2)), made(x).flip(1, 2))
    torch.nn.init.ones_(made.lr)
    assert not torch.allclose(made(x.flip(1, 2)), made(x).flip(1, 2))
