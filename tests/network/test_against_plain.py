"""The network against the plain formulation: the same values, and the same gradient of every parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sam3d_label.benchmark.plain import PlainSAM3D
from sam3d_label.network import SAM3D, Config

NEVER_CALLED = "cross_attn_token_to_image"


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Small configurations: every ratio of the network may differ from the paper's."""
    upsample = draw(st.sampled_from([2, 4]))
    window = draw(st.sampled_from([2, 4, 8]))
    stride = draw(st.sampled_from([2, 4]))
    grid = window * (1 if window == 8 else draw(st.sampled_from([1, 2, 3] if window == 2 else [1, 2])))
    heads, prompt_heads = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    return Config(
        crop=grid * stride,
        patch=stride * upsample,
        upsample=upsample,
        width=heads * draw(st.sampled_from([4, 6])),
        depth=draw(st.sampled_from([4, 8])),
        heads=heads,
        mlp_ratio=draw(st.sampled_from([1, 2])),
        window=window,
        sam_grid=grid * draw(st.sampled_from([1, 2])),
        sam_window=draw(st.integers(1, 10)),
        global_blocks=draw(st.sampled_from([(), (0,), (1, 2)])),
        neck=4 * prompt_heads * draw(st.sampled_from([1, 2])),
        prompt_layers=draw(st.integers(1, 2)),
        prompt_heads=prompt_heads,
        prompt_mlp=draw(st.integers(3, 9)),
        queries=draw(st.integers(1, 4)),
        decoder=draw(st.integers(1, 4)),
        dense=draw(st.integers(1, 4)),
    )


def gradients(network: SAM3D, logit: Tensor, seed: int) -> dict[str, Tensor]:
    """Gradient of a random projection of the logit, by parameter; zeros where it does not enter."""
    weight = torch.randn(logit.shape, generator=torch.Generator().manual_seed(seed), dtype=logit.dtype)
    names, parameters = zip(*network.named_parameters(), strict=True)
    grads = torch.autograd.grad((logit * weight).sum(), parameters, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if grad is None else grad
        for name, parameter, grad in zip(names, parameters, grads, strict=True)
    }


def agree(network: SAM3D, crop: Tensor, points: Tensor, signs: Tensor, **more: Any) -> dict[str, Tensor]:
    """Compare logits and gradients of both formulations in float64; returns the gradients."""
    fast = network.decode(network.encode(crop), points, signs, **more)
    plain = PlainSAM3D(network).click(crop, points, signs, **more)
    torch.testing.assert_close(fast, plain, rtol=1e-7, atol=1e-8)
    fast_gradients, plain_gradients = gradients(network, fast, 0), gradients(network, plain, 0)
    for name, expected in plain_gradients.items():
        scale = float(expected.abs().max()) + 1e-3
        torch.testing.assert_close(
            fast_gradients[name],
            expected,
            rtol=1e-6,
            atol=1e-7 * scale,
            msg=f"{name}: {{}}".format,
        )
    return fast_gradients


def inputs(config: Config, batch: int, clicks: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A crop and as many clicks, of both signs."""
    generator = torch.Generator().manual_seed(seed)
    crop = torch.randn(batch, 1, *(config.crop,) * 3, generator=generator, dtype=torch.float64)
    points = torch.randint(0, config.crop, (batch, clicks, 3), generator=generator)
    return crop, points, torch.randint(0, 2, (batch, clicks), generator=generator)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(config=configs(), batch=st.integers(1, 2), clicks=st.sampled_from([0, 1, 3]), seed=st.integers(0, 99))
def test_values_and_gradients_on_random_configurations(
    make_network: Callable[..., SAM3D], config: Config, batch: int, clicks: int, seed: int
) -> None:
    agree(make_network(config, seed=seed), *inputs(config, batch, clicks, seed))


@pytest.mark.parametrize(
    ("window", "grid"), [(2, 2), (2, 4), (2, 6), (4, 4), (4, 8), (8, 8), (8, 16)], ids=lambda n: str(n)
)
def test_values_on_every_window_and_grid(make_network: Callable[..., SAM3D], window: int, grid: int) -> None:
    config = Config(
        crop=2 * grid, patch=8, upsample=4, width=8, depth=4, heads=2, window=window, sam_grid=2 * grid,
        sam_window=5, global_blocks=(1,), neck=8, prompt_heads=1, prompt_mlp=8, decoder=2, dense=2,
    )  # fmt: skip
    network = make_network(config)
    crop, points, signs = inputs(config, 2, 3, seed=1)
    with torch.no_grad():
        fast = network(crop, points, signs)
        torch.testing.assert_close(fast, PlainSAM3D(network).click(crop, points, signs), rtol=1e-7, atol=1e-8)


def test_every_kind_of_prompt_in_one_padded_batch(make_network: Callable[..., SAM3D], small: Config) -> None:
    crop, points, _ = inputs(small, 3, 3, seed=2)
    signs = torch.tensor([[1, 0, 1], [0, -1, 1], [-1, -1, -1]])
    boxes = torch.full((3, 2, 2, 3), torch.nan)
    boxes[0, 1] = torch.tensor([[2.0, 3.0, 1.0], [9.0, 12.0, 5.0]])
    boxes[1, 0] = torch.tensor([[0.0, 0.0, 0.0], [15.0, 15.0, 15.0]])
    mask = torch.randn(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = agree(make_network(small), crop, points, signs, boxes=boxes, mask=mask)
    silent = [name for name, gradient in found.items() if not gradient.any()]
    assert all(NEVER_CALLED in name for name in silent), "every parameter that is used takes part"


def test_the_published_block_in_single_precision(make_network: Callable[..., SAM3D]) -> None:
    """Heads of 64, windows of 8³ and the table lengths of ViT-B, in the precision of use."""
    config = Config(crop=64, width=128, depth=4, heads=2, neck=16, prompt_heads=2, prompt_mlp=16, decoder=4, dense=4)
    network = make_network(config, dtype=torch.float32)
    crop, points, signs = inputs(config, 1, 1, seed=4)
    with torch.no_grad():
        fast = network(crop.float(), points, signs)
        plain = PlainSAM3D(network).click(crop.float(), points, signs)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
