"""The real crops of the reference set: the surroundings of a target, on a coarser grid."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.reference_set.cut import MARGIN, cut
from sam3d_label.errors import Sam3dError
from sam3d_label.image.volume import Volume


def test_a_crop_shows_the_target_and_its_surroundings_where_they_were():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    image = np.random.default_rng(0).normal(size=(120, 100, 20)).astype(np.float32) * 100
    label = np.zeros(image.shape, np.uint8)
    label[60:70, 40:48, 8:11] = 1
    cropped, target, placed = cut(Volume(image, affine), Volume(label, affine), 2)
    assert cropped.dtype == np.int16
    assert cropped.shape == target.shape == (30, 29, 13)
    assert target.sum() * 4 == pytest.approx(label.sum(), rel=0.4), "blocks along its border are either in or out"
    middle = placed @ [*np.argwhere(target).mean(0), 1]
    np.testing.assert_allclose(middle, affine @ [*np.argwhere(label).mean(0), 1], atol=1)
    lower = np.argwhere(target).min(0) * np.linalg.norm(placed[:3, :3], axis=0)
    assert np.all(lower >= MARGIN - 2)
    first = image[60 - 25 : 60 - 23, 40 - 25 : 40 - 23, 8 - 5]
    assert cropped[0, 0, 0] == round(float(first.mean()))


def test_a_volume_without_a_target_is_an_error():
    empty = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(Sam3dError, match="no target"):
        cut(empty, empty, 1)
