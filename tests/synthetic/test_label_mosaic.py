import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from sam3d_label.errors import Sam3dError
from sam3d_label.synthetic import write_mosaics, write_phantoms
from sam3d_label.synthetic.label_mosaic import MIN_REGION_VOXELS, make_mosaic


def test_the_same_seed_gives_the_same_mosaic():
    first, second, other = (make_mosaic(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_each_region_is_in_one_piece_and_not_tiny():
    label = make_mosaic(np.random.default_rng(1)).label
    assert label.max() >= 2
    for value in range(1, label.max() + 1):
        assert (label == value).sum() >= MIN_REGION_VOXELS
        assert ndimage.label(label == value)[1] == 1


def test_mosaics_and_organs_are_written_on_the_grid_of_their_images(tmp_path):
    write_mosaics(tmp_path / "mosaics", 1, seed=2)
    write_phantoms(tmp_path / "phantoms", 1, seed=2, organs=True)
    for folder, kind in (("mosaics", "labels"), ("phantoms", "organs")):
        (file,) = (tmp_path / folder / "images").iterdir()
        image = nib.Nifti1Image.from_filename(file)
        label = nib.Nifti1Image.from_filename(tmp_path / folder / kind / file.name)
        assert image.shape == label.shape
        assert np.array_equal(image.affine, label.affine)
    lesion = nib.Nifti1Image.from_filename(next((tmp_path / "phantoms" / "labels").iterdir())).get_fdata()
    organs = nib.Nifti1Image.from_filename(next((tmp_path / "phantoms" / "organs").iterdir())).get_fdata()
    assert organs.any()
    assert not organs[lesion > 0].any()


def test_no_mosaics_are_refused(tmp_path):
    with pytest.raises(Sam3dError, match="at least 1"):
        write_mosaics(tmp_path, 0, seed=1)
