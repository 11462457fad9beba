"""The whole network: its parameters, its shapes, and its modes of running."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sam3d_label.network import PRESETS, SAM3D, Config
from sam3d_label.network.sam3d import is_prompt_addition, is_trunk
from sam3d_label.weights.adapter import freeze_trunk

MakeNetwork = Callable[..., SAM3D]
POINTS, SIGNS = torch.tensor([[[3, 9, 12], [7, 7, 7]]]), torch.tensor([[1, 0]])


def random_crop(batch: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """A crop of the small configuration."""
    return torch.randn(batch, 1, 16, 16, 16, generator=torch.Generator().manual_seed(5), dtype=dtype)


def count(network: SAM3D, *, prefix: str = "", part: str = "", additions: bool = False) -> int:
    """Trained parameters with this prefix and part in their name, of added prompts or of the paper."""
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        and name.startswith(prefix)
        and part in name
        and is_prompt_addition(name) == additions
    )


@pytest.fixture(scope="module")
def vit_b() -> SAM3D:
    """The published size, without memory behind it."""
    with torch.device("meta"):
        return freeze_trunk(SAM3D(PRESETS["vit_b"]))


@pytest.mark.parametrize(
    ("prefix", "part", "expected"),
    [
        ("", "", 25_462_400),
        ("image_encoder.", "", 15_209_984),
        ("image_encoder.", ".adapter.", 7_220_736),
        ("image_encoder.", "necks.", 7_868_416),
        ("image_encoder.", "slice_embed", 768 * 17),
        ("image_encoder.", "depth_embed", 32 * 768),
        ("image_encoder.", ".norm1.", 12 * 2 * 768),
        ("image_encoder.", ".norm2.", 12 * 2 * 768),
        ("image_encoder.", ".rel_pos_d", (4 * 127 + 8 * 27) * 64),
        ("prompt_encoder.", "", 3_164_160),
        ("mask_decoder.", "", 7_088_256),
    ],
)
def test_trained_parameters_of_vit_b(vit_b: SAM3D, prefix: str, part: str, expected: int) -> None:
    assert count(vit_b, prefix=prefix, part=part) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("", 501_376),
        ("sign_embed", 2 * 256),
        ("corner_embed", 2 * 256),
        ("no_prompt_embed", 256),
        ("dense_embed.drawn", 6 * 8 * 64 + 64),
        ("dense_embed.seen", 256 * 64 + 64),
        ("dense_embed.spread", 4 * (2 * 64 + 27 * 64 * 64 + 64)),
        ("dense_embed.out", 64 * 256 + 256),
        ("fuse_dense", 6 * 128 * 27),
    ],
)
def test_parameters_of_prompts_beyond_the_paper(vit_b: SAM3D, part: str, expected: int) -> None:
    assert count(vit_b, part=part, additions=True) == expected


def test_the_parts_of_the_encoder_are_all_named(vit_b: SAM3D) -> None:
    """Nothing is trained in the encoder beyond the parts counted above."""
    named = ("necks.", ".adapter.", "slice_embed", "depth_embed", ".norm1.", ".norm2.", ".rel_pos_d")
    assert sum(count(vit_b, prefix="image_encoder.", part=part) for part in named) == 15_209_984


def test_freezing_keeps_the_trunk_of_sam(small: Config) -> None:
    network = freeze_trunk(SAM3D(small))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    block = {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "rel_pos_h", "rel_pos_w", "lr"}
    mlp = {f"lin{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    expected = {"pos_embed", "stem.patch_embed.proj.weight", "stem.patch_embed.proj.bias"}
    expected |= {f"blocks.{i}.attn.{name}" for i in range(4) for name in block}
    expected |= {f"blocks.{i}.mlp.{name}" for i in range(4) for name in mlp}
    assert frozen == {f"image_encoder.{name}" for name in expected}
    assert not is_trunk("prompt_encoder.layers.0.mlp.lin1.weight")


@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 8), (1, 3, 16, 16, 16), (1, 16, 16, 16), (1, 1, 32, 32, 32)])
def test_a_crop_of_another_shape_is_refused(small: Config, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 16, 16, 16\), not"):
        SAM3D(small).encode(torch.zeros(shape))


def test_shapes_and_embedding_size(make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float32)
    embedding = network.encode(random_crop(2, torch.float32))
    assert embedding.feature.shape == (2, 16, 4, 4, 4)
    assert embedding.fixed_share.shape == (2, 4, 8, 8, 8)
    assert embedding.nbytes == 4 * 2 * (16 * 4**3 + 4 * 8**3)
    logit = network.decode(embedding, POINTS.expand(2, -1, -1), SIGNS.expand(2, -1))
    assert logit.shape == (2, 1, 16, 16, 16)
    assert logit.dtype == torch.float32


def test_items_of_a_batch_do_not_mix(make_network: MakeNetwork) -> None:
    network, crop = make_network(), random_crop(3)
    points = torch.randint(0, 16, (3, 2, 3), generator=torch.Generator().manual_seed(0))
    together = network(crop, points, SIGNS.expand(3, -1))
    alone = [network(crop[i : i + 1], points[i : i + 1], SIGNS) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_decoding_twice_gives_the_same(make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float32)
    with torch.inference_mode():
        embedding = network.encode(random_crop(dtype=torch.float32))
        first = network.decode(embedding, POINTS, SIGNS)
        network.decode(embedding, POINTS + 1, 1 - SIGNS)
        assert torch.equal(network.decode(embedding, POINTS, SIGNS), first)


def test_encoding_without_gradient_gives_the_same(make_network: MakeNetwork) -> None:
    """Without gradients the encoder works in pieces to save memory."""
    network, crop = make_network(), random_crop(2)
    with_grad = network.encode(crop)
    assert with_grad.feature.requires_grad
    with torch.no_grad():
        without = network.encode(crop)
    torch.testing.assert_close(without.feature, with_grad.feature)
    torch.testing.assert_close(without.fixed_share, with_grad.fixed_share)


def trained_gradients(network: SAM3D, crop: Tensor) -> dict[str, Tensor]:
    """Gradient of every trained parameter that takes part."""
    network.zero_grad()
    network(crop, POINTS, SIGNS).square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_checkpointing_gives_the_same_gradients(make_network: MakeNetwork) -> None:
    network, crop = freeze_trunk(make_network().train()), random_crop()
    expected = trained_gradients(network, crop)
    network.image_encoder.activation_checkpointing = True
    found = trained_gradients(network, crop)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=f"{name}: {{}}".format)
    assert not any(is_trunk(name) for name in found)


def test_checkpointing_recomputes_blocks(make_network: MakeNetwork) -> None:
    network = make_network().train()
    network.image_encoder.activation_checkpointing = True
    calls: list[int] = []
    network.image_encoder.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    trained_gradients(network, random_crop())
    assert len(calls) == 2


def test_a_step_of_training_lowers_the_loss(make_network: MakeNetwork) -> None:
    network, crop = freeze_trunk(make_network(dtype=torch.float32).train()), random_crop(dtype=torch.float32)
    target = torch.zeros(1, 1, 16, 16, 16)
    target[..., :8] = 1
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-3)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(crop, POINTS, SIGNS), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_autocast_is_close(small: Config, checkpointing: bool) -> None:
    """Forward and backward, from a fresh network: that is how training starts."""
    torch.manual_seed(0)
    network, crop = SAM3D(small).train(), random_crop(dtype=torch.float32)
    exact = network(crop, POINTS, SIGNS)
    exact_gradients = trained_gradients(network, crop)
    network.image_encoder.activation_checkpointing = checkpointing
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(crop, POINTS, SIGNS)
        rough_gradients = trained_gradients(network, crop)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert rough_gradients.keys() == exact_gradients.keys()
    flat, rough_flat = (
        torch.cat([g.flatten().float() for g in grads.values()]) for grads in (exact_gradients, rough_gradients)
    )
    assert torch.cosine_similarity(flat, rough_flat, dim=0) > 0.98
