"""Geodesic maps in the network: what they change, and that each is made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sam3d_label.network import SAM3D, Config, Embedding

MakeNetwork = Callable[..., SAM3D]
POINTS, SIGNS = torch.tensor([[[3, 9, 12], [7, 7, 7]]]), torch.tensor([[1, 0]])


@pytest.fixture
def with_maps(small: Config) -> Config:
    """Sizes with geodesic maps and candidates."""
    return replace(small, fine=(4, 6), geodesic=(3.0, 12.0), candidates=3)


def crops(batch: int = 1) -> Tensor:
    """Random crops."""
    return torch.randn(batch, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_weights_without_maps_answer_as_before_when_the_new_channels_are_zero(
    make_network: MakeNetwork, with_maps: Config
) -> None:
    before = make_network(replace(with_maps, geodesic=None))
    after = make_network(with_maps, seed=1)
    state = after.state_dict()
    for name, tensor in before.state_dict().items():
        state[name].zero_()
        state[name][tuple(slice(0, edge) for edge in tensor.shape)] = tensor
    after.load_state_dict(state)
    asked = (POINTS.double(), SIGNS)
    torch.testing.assert_close(
        after.decode(after.encode(crops()), *asked), before.decode(before.encode(crops()), *asked)
    )


def test_maps_change_the_answer_once_their_channels_count(make_network: MakeNetwork, with_maps: Config) -> None:
    network = make_network(with_maps)
    embedding = network.encode(crops())
    other = replace(embedding, scene=network.encode(crops() ** 3).scene)
    assert not torch.allclose(network.decode(embedding, POINTS, SIGNS), network.decode(other, POINTS, SIGNS))


def test_maps_that_are_given_are_not_made_again(make_network: MakeNetwork, with_maps: Config) -> None:
    network = make_network(with_maps)
    embedding = network.encode(crops())
    maps = [network.geodesic_maps(embedding, POINTS[:, index : index + 1])[0] for index in range(2)]
    expected = network.decode(embedding, POINTS, SIGNS)
    assert embedding.scene is not None
    blind = replace(embedding, scene=torch.full_like(embedding.scene, torch.nan))
    torch.testing.assert_close(network.decode(blind, POINTS, SIGNS, geodesic_maps=maps), expected)


def test_without_a_click_there_is_nothing_to_map(make_network: MakeNetwork, with_maps: Config) -> None:
    network = make_network(with_maps)
    embedding = network.encode(crops())
    assert embedding.scene is not None
    blind = replace(embedding, scene=torch.full_like(embedding.scene, torch.nan))
    nothing = (POINTS[:, :0], SIGNS[:, :0])
    torch.testing.assert_close(network.decode(blind, *nothing), network.decode(embedding, *nothing))


def test_items_of_a_batch_keep_their_scenes(make_network: MakeNetwork, with_maps: Config) -> None:
    network = make_network(with_maps)
    whole = network.encode(crops(2))
    items: list[Embedding] = list(whole.items())
    asked = (POINTS.expand(2, -1, -1), SIGNS.expand(2, -1))
    apart = [network.decode(item, POINTS, SIGNS) for item in items]
    torch.testing.assert_close(torch.cat(apart), network.decode(whole, *asked))
    assert sum(item.nbytes for item in items) == whole.nbytes


def test_networks_without_maps_make_none(make_network: MakeNetwork) -> None:
    network = make_network()
    embedding = network.encode(crops())
    assert embedding.scene is None
    assert network.geodesic_maps(embedding, POINTS) == ()


def test_gradients_pass_the_maps_by(make_network: MakeNetwork, with_maps: Config) -> None:
    network = make_network(with_maps)
    network.decode(network.encode(crops()), POINTS, SIGNS).sum().backward()
    assert network.fine_path is not None
    first = network.fine_path.drawn[0]
    assert isinstance(first, torch.nn.Conv3d)
    assert first.weight.grad is not None
    assert first.weight.grad[:, 6:].abs().sum() > 0


def test_proposals_hold_the_answer_and_candidates_with_a_predicted_dice(
    make_network: MakeNetwork, with_maps: Config
) -> None:
    network = make_network(with_maps)
    embedding = network.encode(crops(2))
    asked = (POINTS.expand(2, -1, -1), SIGNS.expand(2, -1))
    proposals = network.propose(embedding, *asked)
    torch.testing.assert_close(proposals.logit, network.decode(embedding, *asked))
    assert proposals.candidates.shape == (2, 3, 16, 16, 16)
    assert proposals.dice.shape == (2, 3)
    assert ((proposals.dice > 0) & (proposals.dice < 1)).all()
    assert proposals.dice.unique().numel() == 6


def test_untrained_candidates_are_the_answer_of_the_paper(small: Config) -> None:
    network = SAM3D(replace(small, fine=(4, 6), geodesic=(3.0,), candidates=2)).double()
    proposals = network.propose(network.encode(crops()), POINTS, SIGNS)
    torch.testing.assert_close(proposals.candidates, proposals.logit.expand(-1, 2, -1, -1, -1))


def test_the_quality_of_candidates_teaches_nothing_but_its_own_layers(
    make_network: MakeNetwork, with_maps: Config
) -> None:
    network = make_network(with_maps)
    network.propose(network.encode(crops()), POINTS, SIGNS).dice.sum().backward()
    learning = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learning
    assert all("candidates.quality" in name for name in learning)


def test_networks_without_candidates_report_it(make_network: MakeNetwork) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="no candidates"):
        network.propose(network.encode(crops()), POINTS, SIGNS)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"geodesic": ()}, "geodesic"),
        ({"geodesic": (3.0, -1.0)}, "geodesic"),
        ({"candidates": 2}, "candidates need fine"),
        ({"fine": (4, 6), "candidates": -1}, "candidates"),
    ],
)
def test_impossible_sizes_are_refused(small: Config, sizes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(small, **sizes)
