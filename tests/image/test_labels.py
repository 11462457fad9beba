"""Label files hold whole numbers; negative ones are ignored, in training and evaluation alike."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from sam3d_label.errors import VolumeError
from sam3d_label.evaluation.cases import EvaluationCase, read_case
from sam3d_label.evaluation.session import evaluate_case
from sam3d_label.image.intensity import Percentile
from sam3d_label.image.labels import open_label, structures
from sam3d_label.network import Embedding
from sam3d_label.segmentation.prompts import Prompts
from sam3d_label.training.augmentation import LABEL
from sam3d_label.training.dataset import OpenedCase, TrainingCase, TrainingCrops, with_ignored
from sam3d_label.training.settings import TrainSettings
from sam3d_label.training.simulation import set_ignored, train_rounds

SHAPE = (20, 18, 16)
TARGET = (slice(6, 12), slice(5, 11), slice(4, 10))
UNKNOWN = (slice(6, 12), slice(5, 11), slice(10, 14))


def store(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def label_map() -> np.ndarray:
    """A target, next to it voxels that nobody knows, and background."""
    array = np.zeros(SHAPE, np.int16)
    array[TARGET] = 1
    array[UNKNOWN] = -1
    return array


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    return store(tmp_path / "image.nii.gz", image), store(tmp_path / "label.nii.gz", label_map())


@pytest.mark.parametrize("noise", [0.0, 9e-4, -9e-4, 6e-8])
def test_almost_whole_numbers_are_whole(noise: float, tmp_path: Path) -> None:
    values = np.arange(27, dtype=np.float64).reshape(3, 3, 3) % 3
    label = open_label(store(tmp_path / "label.nii.gz", (values + noise).astype(np.float32)))
    np.testing.assert_array_equal(label.array, values)
    assert structures(label) == [1, 2]


@pytest.mark.parametrize("noise", [2e-3, 0.5])
def test_other_numbers_are_no_label(noise: float, tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"label\.nii\.gz holds values that are not whole numbers"):
        open_label(store(tmp_path / "label.nii.gz", np.full((3, 3, 3), 1 + noise, np.float32)))


def test_numbers_beyond_16_bits_are_no_structures(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="number structures from 1 to 65535"):
        open_label(store(tmp_path / "label.nii.gz", np.full((3, 3, 3), 70_000, np.int32)))


def test_a_slope_gives_whole_numbers_too(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(27, dtype=np.int16).reshape(3, 3, 3) % 3 * 10, np.eye(4))
    image.header.set_slope_inter(0.1, 0)
    nib.save(image, tmp_path / "label.nii.gz")
    assert structures(open_label(tmp_path / "label.nii.gz")) == [1, 2]


def test_ignored_voxels_are_neither_target_nor_background_in_training(files: tuple[Path, Path]) -> None:
    case = OpenedCase.open(TrainingCase(*files), Percentile())
    assert case.target.array.sum() == np.count_nonzero(label_map() == 1)
    assert case.ignored is not None
    crop = case.crop(case.volume.frame((9.5, 8.5, 7.5), 1.0, 16))
    assert set(np.unique(with_ignored(crop).numpy())) == {-1, 0, 1}
    assert (with_ignored(crop) == -1).sum() == np.count_nonzero(label_map() == -1)
    drawn = [TrainingCrops([case], [1.0], size=16, length=8, seed=3)[index][LABEL] for index in range(8)]
    assert any(bool((label < 0).any()) for label in drawn)
    assert set(torch.cat([label.flatten() for label in drawn]).tolist()) <= {-1, 0, 1}


def test_a_label_without_ignored_voxels_trains_as_before(tmp_path: Path, files: tuple[Path, Path]) -> None:
    whole = store(tmp_path / "whole.nii.gz", np.maximum(label_map(), 0))
    case = OpenedCase.open(TrainingCase(files[0], whole), Percentile())
    assert case.ignored is None
    crop = TrainingCrops([case], [1.0], size=16, length=1, seed=3)[0]
    assert set(np.unique(crop[LABEL].numpy())) <= {0, 1}


def test_ignored_voxels_give_no_gradient() -> None:
    logit = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    ignored = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    ignored[..., 2:] = True
    set_ignored(logit, ignored).sum().backward()
    assert logit.grad is not None
    assert not logit.grad[ignored].any()
    assert logit.grad[~ignored].all()


def test_no_simulated_click_is_placed_on_ignored_voxels(small_weights, monkeypatch) -> None:
    truth = torch.zeros(1, 1, 32, 32, 32)
    truth[..., 8:24, 8:24, 8:16] = 1
    truth[..., 8:24, 8:24, 16:24] = -1
    seen = []
    monkeypatch.setattr(
        "sam3d_label.training.simulation.SimulatedPrompts.decode",
        lambda self, model, embedding, base=None: seen.append(list(self.clicks)) or torch.full((1, 1, 32, 32, 32), 9.0),
    )
    unused = Embedding(torch.zeros(1), torch.zeros(1))
    settings = TrainSettings(clicks=6, box_share=0, no_click_share=0, rough_mask_share=0)
    for seed in range(4):
        list(train_rounds(small_weights.model, unused, truth, settings, np.random.default_rng(seed)))
    clicks = {click.ijk for given in seen for click in given}
    assert len(clicks) > 4
    assert not [ijk for ijk in clicks if truth[0, 0, 2 * ijk[0], 2 * ijk[1], 2 * ijk[2]] < 0]


class _Answer:
    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask


class _Fixed:
    """A segmenter that always finds the target and what is ignored."""

    def segment(self, prompts: Prompts) -> _Answer:
        return _Answer((label_map() != 0).astype(np.uint8))


def test_ignored_voxels_do_not_count_in_an_evaluation(files: tuple[Path, Path]) -> None:
    from sam3d_label.evaluation.annotators import error_centre

    volume, truth, ignored = read_case(EvaluationCase("a", *files), None)
    assert np.count_nonzero(truth) == np.count_nonzero(label_map() == 1)
    records = evaluate_case(
        _Fixed(), truth, error_centre, spacing=volume.spacing.tolist(), clicks=[1, 2], ignored=ignored
    )
    assert [record.dice for record in records] == [1.0, 1.0]
    assert records[-1].nsd == (1.0, 1.0)
    assert records[-1].placed == 1
