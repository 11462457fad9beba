"""What the comparison of methods writes."""

from __future__ import annotations

import json

import methods
import nibabel as nib
import numpy as np
import pytest
import typer

from sam3d_label.evaluation.cohort import CaseResult, Cohort, Skipped
from sam3d_label.evaluation.session import ClickRecord


@pytest.fixture
def folder(tmp_path):
    """One bright block with its label, and an empty label."""
    truth = np.zeros((24, 20, 12), np.uint8)
    truth[6:18, 6:14, 3:9] = 1
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32) + 20 * truth
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name, label in (("a", truth), ("b", 0 * truth)):
        nib.save(nib.Nifti1Image(image, np.diag([2, 2, 3, 1])), tmp_path / "images" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.diag([2, 2, 3, 1])), tmp_path / "labels" / f"{name}.nii.gz")
    return tmp_path


def test_methods_write_numbers_and_a_picture(folder, capsys):
    out = folder / "out"
    methods.main(folder / "images", folder / "labels", out, clicks="1,2", methods="random_walker")
    written = json.loads((out / "methods.json").read_text())
    assert written["cases"] == ["a"]
    summary = written["methods"]["random_walker"]
    assert set(summary["dice"]) == {"1", "2"}
    assert [round(mean, 6) for mean, _, _ in summary["curve"]] == [round(summary["dice"][n], 6) for n in ("1", "2")]
    assert summary["dice"]["1"] > 0.6
    assert (out / "methods.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert "random_walker" in printed.out
    assert "skipped b" in printed.err


def test_one_pass_differs_from_the_second_click_on(folder):
    out = folder / "out"
    methods.main(folder / "images", folder / "labels", out, clicks="1,2", methods="sam3d,one_pass")
    (first, second), (same, other) = (
        [mean for mean, _, _ in summary["curve"]]
        for summary in json.loads((out / "methods.json").read_text())["methods"].values()
    )
    assert first == same
    assert second != other


@pytest.mark.parametrize(("options", "message"), [({"methods": "unet"}, "--unet"), ({"methods": "magic"}, "magic")])
def test_methods_refuse(folder, options, message):
    with pytest.raises(typer.BadParameter, match=message):
        methods.main(folder / "images", folder / "labels", folder / "out", **options)


def test_methods_are_compared_on_the_cases_that_all_were_measured_on():
    def cohort(*names):
        record = ClickRecord(clicks=1, placed=1, click=None, dice=0.5, nsd=(0.5, 0.5), seconds=1.0, honoured=1)
        return Cohort([CaseResult(name, 1.0, (record,)) for name in names], [Skipped("z", "empty")])

    common = methods.common_cases({"one": cohort("a", "b"), "other": cohort("b", "c")})
    assert [[result.case for result in each.results] for each in common.values()] == [["b"], ["b"]]
