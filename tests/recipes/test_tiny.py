"""How the shipped weights are made: what of it can be seen without training for an hour."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from recipes.tiny import train
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D
from sam3d_label.training.dataset import OpenedCase
from tests.helpers.networks import SMALL


def test_shares_of_the_crops_add_up():
    assert sum(train.SHARES.values()) == pytest.approx(1)


def test_the_result_keeps_a_share_of_what_it_went_on_from(small_weights):
    earlier = small_weights.model
    model = copy.deepcopy(earlier)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    train.mix_in(model, earlier, 0.25)
    for mixed, before in zip(model.parameters(), earlier.parameters(), strict=True):
        assert torch.allclose(mixed - before, torch.full_like(mixed, 0.75), atol=1e-5)


def test_what_the_earlier_network_had_not_stays(small_weights):
    model = SAM3D(replace(SMALL, fine=(4, 8)))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train.mix_in(model, small_weights.model, 1.0)
    known = dict(small_weights.model.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, known.get(name, before[name]))


def test_lesions_are_planted_once_beside_what_is_drawn(phantom_cases, tmp_path):
    cases = train.planted_cases(phantom_cases, tmp_path)
    assert sum(case.weight for case in cases) == pytest.approx(train.SHARES["planted"])
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert train.planted_cases(phantom_cases, tmp_path) == cases
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == written
    for case in cases:
        opened = OpenedCase.open(case, train.INTENSITY)
        (drawn,) = (Volume.open(c.label).array > 0 for c in phantom_cases if c.image.name == case.image.name)
        assert not np.logical_and(opened.target.array > 0, drawn).any()
