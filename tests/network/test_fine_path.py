from dataclasses import replace

import pytest
import torch

from sam3d_label.network import SAM3D
from sam3d_label.network.fine_path import voxels_of_cells
from tests.helpers.networks import SMALL

FINE = replace(SMALL, fine=(4, 8))
DEEP = replace(FINE, deep=(6, 10))


@pytest.fixture
def pair():
    """A network without a fine path, and one of the same weights with it."""
    torch.manual_seed(0)
    plain, fine = SAM3D(SMALL).eval(), SAM3D(FINE).eval()
    fine.load_state_dict(plain.state_dict(), strict=False)
    return plain, fine


@pytest.fixture
def crop():
    return torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))


def test_it_changes_nothing_until_it_is_trained(pair, crop):
    points, signs = torch.tensor([[[10.0, 12, 14]]]), torch.ones(1, 1)
    plain, fine = (model.decode(model.encode(crop), points, signs) for model in pair)
    assert torch.equal(plain, fine)


def test_what_lies_below_the_grid_changes_nothing_until_it_is_trained_and_then_takes_part(pair, crop):
    fine, deep = pair[1], SAM3D(DEEP).eval()
    points, signs = torch.tensor([[[10.0, 12, 14]]]), torch.ones(1, 1)
    torch.nn.init.normal_(fine.fine_path.out.weight)
    deep.load_state_dict(fine.state_dict(), strict=False)
    before = deep.decode(deep.encode(crop), points, signs)
    assert torch.equal(before, fine.decode(fine.encode(crop), points, signs))

    below = dict(deep.fine_path.deep.named_parameters())
    for parameter in below.values():
        parameter.data = torch.randn_like(parameter)
    after = deep.decode(deep.encode(crop), points, signs)
    after.square().mean().backward()
    assert not torch.allclose(before, after, atol=1e-3)
    assert {name for name, parameter in below.items() if parameter.grad is None or not parameter.grad.any()} == set()


def test_its_levels_belong_to_the_embedding(pair, crop):
    plain, fine = (model.encode(crop) for model in pair)
    assert [tuple(level.shape[1:]) for level in fine.levels] == [(4, 16, 16, 16), (8, 8, 8, 8)]
    assert fine.nbytes - plain.nbytes == 4 * sum(level.numel() for level in fine.levels)


def test_the_image_the_clicks_and_the_earlier_mask_all_reach_it(pair, crop):
    model = pair[1]
    torch.nn.init.normal_(model.fine_path.out.weight)
    embedding = model.encode(crop)
    points, signs = torch.tensor([[[10.0, 12, 14]]]), torch.ones(1, 1)
    prompted, dense = embedding.feature, model.dense_prompt(points, signs, points.new_empty(1, 0, 2, 3), None)
    base = model.fine_path(prompted, embedding.levels, dense)
    bumps = torch.eye(6)[:, None, :, None, None, None] * torch.rand(16, 16, 16)
    other_image = model.encode(crop.flip(2)).levels
    for changed in (
        model.fine_path(prompted, other_image, dense),
        model.fine_path(prompted + 1, embedding.levels, dense),
        *(model.fine_path(prompted, embedding.levels, dense + bump) for bump in bumps),
    ):
        assert base.shape == (1, 1, 32, 32, 32)
        assert not torch.allclose(base, changed, atol=1e-5)


def test_a_width_is_named_for_each_halving():
    with pytest.raises(ValueError, match="fine must name a width for each halving"):
        replace(SMALL, fine=(4,))


@pytest.mark.parametrize("sizes", [{"deep": (4,)}, {"fine": (4, 8), "deep": (8, 8, 8)}])
def test_below_the_grid_it_needs_a_path_above_and_a_grid_to_halve(sizes):
    with pytest.raises(ValueError, match="deep needs fine, and a grid that can be halved so often and once more"):
        replace(SMALL, **sizes)


def test_the_eight_values_of_a_cell_are_its_voxels():
    cells = torch.arange(8.0)[None, :, None, None, None] + 10 * torch.tensor([[[0.0, 1.0]]])
    voxels = voxels_of_cells(cells)
    assert voxels.shape == (1, 1, 2, 2, 4)
    assert voxels[0, 0, 1].tolist() == [[4, 5, 14, 15], [6, 7, 16, 17]]
