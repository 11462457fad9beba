"""Phantoms in groups."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import phantoms
import pytest

from sam3d_label.synthetic import write_phantoms
from sam3d_label.synthetic.phantoms import PhantomMeta


def test_phantoms_are_grouped_by_size_and_contrast():
    def measured(diameter, contrast, modality, dice):
        meta: PhantomMeta = {
            "modality": modality,
            "lesion": "solid",
            "contrast": contrast,
            "diameter_mm": diameter,
            "volume_ml": 1.0,
            "distractors": 0,
            "orientation": "RAS",
        }
        return phantoms.PhantomResult("case", meta, (dice, dice), dice / 2)

    several = [measured(12, -80, "ct", 0.2), measured(20, 30, "ct", 0.4), measured(60, -0.1, "mr", 0.9)]
    rows = {row["group"]: row for row in phantoms.groups(several, [1, 2])}
    assert rows["all"]["cases"] == 3
    assert rows["all"]["dice"]["2"] == pytest.approx(0.5)
    sizes = ("under 20 mm", "20 to 50 mm", "over 50 mm")
    assert [rows[size]["dice"]["1"] for size in sizes] == [0.2, 0.4, 0.9]
    assert [rows[size]["dice"]["box"] for size in sizes] == [0.1, 0.2, 0.45]
    assert rows["low contrast"]["dice"]["1"] == pytest.approx(0.65)
    assert rows["over 50 mm, high contrast"]["dice"] == {"1": None, "2": None, "box": None}
    assert rows["MR"]["cases"] == 1
    assert phantoms.table(list(rows.values()), [1, 2], "phantoms").row_count == len(rows)


def test_phantoms_are_those_of_the_command(tmp_path):
    (path,) = write_phantoms(tmp_path, 1, 77)
    ((name, phantom),) = phantoms.phantoms(1, 77)
    assert path.name == f"{name}.nii.gz"
    assert np.array_equal(np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj), np.rint(phantom.image))
