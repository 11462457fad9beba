"""Cases in memory under a budget: what is drawn does not depend on it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.errors import VolumeError
from sam3d_label.image.intensity import Percentile
from sam3d_label.training.augmentation import IMAGE, LABEL
from sam3d_label.training.cases import OpenedCases
from sam3d_label.training.dataset import TrainingCrops


def opened(cases, max_bytes: int = 10**9) -> OpenedCases:
    return OpenedCases(cases, Percentile(), max_bytes)


def test_crops_are_the_same_whatever_stays_in_memory(phantom_cases):
    everything, nothing = opened(phantom_cases), opened(phantom_cases, 0)
    for index in range(4):
        kept, read = (
            TrainingCrops(cases, [1, 1, 1], size=16, length=4, seed=0)[index] for cases in (everything, nothing)
        )
        assert torch.equal(kept[IMAGE], read[IMAGE])
        assert torch.equal(kept[LABEL], read[LABEL])
    assert nothing.nbytes == 0 < everything.nbytes


def test_those_used_last_stay_within_the_budget(phantom_cases):
    sizes = [2 * opened(phantom_cases)[index].volume.array.nbytes for index in range(3)]
    cases = opened(phantom_cases, sizes[1] + sizes[2])
    volumes = [cases[index].volume for index in (0, 1, 2)]
    assert cases.nbytes <= sizes[1] + sizes[2]
    assert cases[2].volume is volumes[2]
    assert cases[0].volume is not volumes[0], "it made room, and is read again"


def test_cases_of_one_image_share_it(phantom_cases):
    cases = opened([phantom_cases[0], phantom_cases[1], replace(phantom_cases[0], value=1)])
    first, _, again = cases[:]
    assert first.volume is again.volume
    assert np.array_equal(first.target.array, again.target.array)


def test_another_process_opens_them_anew(phantom_cases):
    cases = opened(phantom_cases)
    copy = pickle.loads(pickle.dumps((cases, cases[0].name)))[0]
    assert copy.nbytes == 0
    assert np.array_equal(copy[0].volume.array, cases[0].volume.array)


def test_a_file_that_is_gone_reports_it(phantom_cases, tmp_path):
    with pytest.raises(VolumeError, match="does not exist"):
        opened([replace(phantom_cases[0], image=tmp_path / "gone.nii.gz")])[0]
