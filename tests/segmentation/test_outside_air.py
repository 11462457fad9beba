"""Air outside the body is not in masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam3d_label.image.intensity import SOFT_TISSUE, CtOrMr, Percentile
from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.outside_air import OutsideAir, connected_to_sides
from sam3d_label.segmentation.prompts import Click
from sam3d_label.segmentation.segmenter import Segmenter
from tests.helpers.networks import Constant

RULE = CtOrMr(ct=SOFT_TISSUE, mr=Percentile())
SHAPE = (48, 40, 20)


def body(tissue: float, air: float, noise: float, lung: float | None = None) -> np.ndarray:
    """Return a body with an organ of half its intensity, and perhaps a lung inside, in the middle of noisy air."""
    rng = np.random.default_rng(0)
    array = np.full(SHAPE, air)
    array[10:38, 6:34] = tissue
    array[16:24, 14:24, 4:16] = tissue / 2
    if lung is not None:
        array[26:34, 12:26] = lung
    return (array + np.abs(rng.normal(0, noise, SHAPE))).astype(np.float32)


def found(array: np.ndarray, modality: str) -> np.ndarray | None:
    volume = Volume(array, np.diag([2.0, 2.0, 3.0, 1.0]), modality=modality)
    air = OutsideAir.find(volume, RULE.fit(array, modality))
    return None if air is None else air.within((slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2])))


@pytest.mark.parametrize(
    ("array", "modality"),
    [(body(40, -1000, 20, lung=-850), "CT"), (body(600, 5, 6), "MR")],
)
def test_air_is_found_around_the_body_and_not_in_it(array, modality):
    air = found(array, modality)
    assert air is not None
    assert air[:9].all() if modality == "CT" else air[:9].mean() > 0.99
    assert not air[10:38, 6:34].any(), "the lung and the organ are inside"


@pytest.mark.parametrize(
    ("array", "modality"),
    [
        (body(600, 5, 6)[12:36, 12:28], "MR"),  # nothing but tissue
        (body(600, 110, 60), "MR"),  # too bright to be sure
        (body(8, 0.2, 0.1), "PT"),
        (body(40, -60, 10), "CT"),  # fat up to the sides
    ],
)
def test_where_air_is_not_clear_there_is_none(array, modality):
    assert found(array, modality) is None


def test_components_at_the_ends_of_other_axes_do_not_count():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2] = True
    assert connected_to_sides(mask, (0, 1)).sum() == 0
    assert connected_to_sides(mask, (2,)).sum() == 5


@pytest.fixture
def everything(small_weights):
    """Return weights that find a target in every voxel."""
    card = small_weights.card.model_copy(update={"intensity": RULE})
    return replace(small_weights, model=Constant(small_weights.model, 5.0), card=card)


def test_masks_leave_air_out_unless_a_click_is_in_it(everything):
    array = body(40, -1000, 20)
    segmenter = Segmenter(Volume(array, np.eye(4), modality="CT"), everything)
    inside = segmenter.segment([Click((20, 20, 10))])
    assert inside.mask[15:35, 12:28].all()
    assert not inside.mask[array < -800].any()
    assert np.array_equal(inside.mask, inside.probability > 0.5)
    assert segmenter.segment([Click((20, 20, 10)), Click((4, 20, 10))]).mask.all()


@pytest.mark.parametrize(
    ("case", "offset"), [("sts_029_mr", 0), ("sts_034_mr", 0), ("sts_029_ct", 0), ("sts_029_ct", 1024)]
)
def test_no_tumour_of_a_real_volume_is_in_the_air(real_data: Path, case: str, offset: int) -> None:
    stored = Volume.open(real_data / "sts" / "images" / f"{case}.nii.gz")
    volume = Volume(stored.array + offset, stored.affine)
    truth = Volume.open(real_data / "sts" / "labels" / f"{case}.nii.gz").array > 0
    air = OutsideAir.find(volume, RULE.fit(volume.array))
    assert air is not None
    outside = air.within((slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2])))
    assert outside.mean() > 0.05
    assert not (outside & truth).any()
