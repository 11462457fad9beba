"""Features of slices in the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Config
from sam3d_label.network.slice_features import SliceFeatures, grey_slices, likeness
from sam3d_label.training.memory.step_peak import need
from sam3d_label.weights.adapter import freeze_trunk

MakeNetwork = Callable[..., SAM3D]
POINTS, SIGNS = torch.tensor([[[3, 9, 12], [7, 7, 7]]]), torch.tensor([[1, 0]])


@pytest.fixture
def with_slices(small: Config) -> Config:
    """Sizes with slice features."""
    return replace(small, fine=(4, 6), slice_features=True)


@pytest.fixture
def network(make_network: MakeNetwork, with_slices: Config) -> SAM3D:
    return make_network(with_slices, dtype=torch.float32)


def crops(batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_slice_is_the_mean_of_the_two_middle_planes_of_four_in_0_to_1():
    crop = torch.zeros(2, 1, 8, 8, 8)
    crop[0, 0, :, :, 5], crop[0, 0, :, :, 6], crop[1] = 10, 20, 7
    slices = grey_slices(crop)
    assert slices.shape == (4, 1, 8, 8)
    torch.testing.assert_close(slices[:, 0, 0, 0], torch.tensor([0, 0.75, 0, 0]))


def test_features_are_those_of_the_slices(network):
    assert isinstance(network.slice_features, SliceFeatures)
    crop = crops(2)
    features = network.slice_features.encode(crop)
    assert features.shape == (2, 416, 4, 4, 4)
    with torch.no_grad():
        _, neck = network.slice_features.encoder(grey_slices(crop)[6:7])  # the third of the second crop
    torch.testing.assert_close(features[1, 160:, :, :, 2], neck[0], rtol=0, atol=0.1 * float(neck.abs().max()))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_encoder_computes_in_the_precision_of_its_surroundings(network, bf16):
    seen = []
    for module in network.slice_features.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network.encode(crops())
    assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}


def test_additions_are_zero_before_training(with_slices):
    torch.manual_seed(0)
    contribution = SliceFeatures(with_slices)(crops())
    assert [tuple(level.shape) for level in contribution.levels] == [(1, 6, 4, 4, 4)]
    assert contribution.deepest.shape == (1, with_slices.neck, 4, 4, 4)
    assert not any(added.any() for added in (*contribution.levels, contribution.deepest))
    torch.testing.assert_close(contribution.keys.norm(dim=1), torch.ones(1, 4, 4, 4))


def test_a_network_starts_as_the_one_without_slices(make_network, with_slices):
    torch.manual_seed(0)
    before, after = make_network(replace(with_slices, slice_features=False)), SAM3D(with_slices).double().eval()
    state = after.state_dict()
    for name, tensor in before.state_dict().items():
        state[name].zero_()
        state[name][tuple(slice(0, edge) for edge in tensor.shape)] = tensor
    after.load_state_dict(state)
    asked = (crops().double(), POINTS.double(), SIGNS)
    torch.testing.assert_close(after(*asked), before(*asked))


def test_slices_change_the_answer_by_features_and_by_likeness(network):
    embedding = network.encode(crops())
    answer = network.decode(embedding, POINTS, SIGNS)
    other = replace(embedding, keys=embedding.keys.flip(2))
    assert not torch.allclose(network.decode(other, POINTS, SIGNS), answer)
    with torch.no_grad():
        for parameter in network.slice_features.deepest.parameters():
            parameter.zero_()
    assert not torch.allclose(network.encode(crops()).feature, embedding.feature)


def test_likeness_is_1_at_the_clicks_of_its_sign_and_0_without_any():
    keys = torch.nn.functional.normalize(torch.randn(1, 8, 4, 4, 4), dim=1)
    points = torch.tensor([[[2.0, 5.0, 14.0], [9.0, 9.0, 9.0], [0.0, 0.0, 0.0]]])  # d, h, w
    largest_in, mean_in, largest_out, mean_out = likeness(keys, points, torch.tensor([[1, 1, -1]]), 4)[0]
    assert largest_in.shape == (4, 4, 4)
    torch.testing.assert_close(largest_in[1, 3, 0], torch.tensor(1.0))  # h, w, d
    torch.testing.assert_close(largest_in[2, 2, 2], torch.tensor(1.0))
    assert (mean_in <= largest_in + 1e-6).all()
    assert not largest_out.any()
    assert not mean_out.any()
    assert not likeness(keys, points[:, :0], torch.zeros(1, 0), 8).any()


def test_every_item_of_a_batch_keeps_its_keys(network):
    batch = network.encode(crops(2))
    items = list(batch.items())
    assert torch.equal(torch.cat([item.keys for item in items]), batch.keys)
    assert sum(item.nbytes for item in items) == batch.nbytes


@pytest.mark.parametrize("trunk", [True, False])
def test_the_encoder_of_slices_is_never_trained(network, trunk):
    freeze_trunk(network, trunk=trunk)
    network(crops(), POINTS, SIGNS).square().mean().backward()
    assert all(parameter.grad is None for parameter in network.slice_features.encoder.parameters())
    assert network.slice_features.narrow.weight.grad.abs().sum() > 0
    assert network.slice_features.key.weight.grad.abs().sum() > 0


def test_memory_of_training_is_estimated(network):
    assert need(freeze_trunk(network), torch.device("cpu"), bf16=False, checkpointing=False).crop > 0


@pytest.mark.parametrize("sizes", [{"fine": ()}, {"patch": 4, "upsample": 2, "fine": (4,)}])
def test_slice_features_need_a_fine_path_of_two_levels(with_slices, sizes):
    with pytest.raises(ValueError, match="slice_features need fine"):
        replace(with_slices, **sizes)
