"""What the comparisons write, without networks."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import typer

from sam3d_label.evaluation.protocol import CaseResult, ClickRecord, Cohort, Skipped


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


def test_methods_write_numbers_and_a_picture(folder, benchmark, capsys):
    out = folder / "out"
    benchmark("methods").main(folder / "images", folder / "labels", out, clicks="1,2", methods="random_walker")
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


def test_one_pass_differs_from_the_second_click_on(folder, benchmark):
    out = folder / "out"
    benchmark("methods").main(folder / "images", folder / "labels", out, clicks="1,2", methods="sam3d,one_pass")
    (first, second), (same, other) = (
        [mean for mean, _, _ in summary["curve"]]
        for summary in json.loads((out / "methods.json").read_text())["methods"].values()
    )
    assert first == same
    assert second != other


@pytest.mark.parametrize(("options", "message"), [({"methods": "unet"}, "--unet"), ({"methods": "magic"}, "magic")])
def test_methods_refuse(folder, benchmark, options, message):
    with pytest.raises(typer.BadParameter, match=message):
        benchmark("methods").main(folder / "images", folder / "labels", folder / "out", **options)


def test_methods_are_compared_on_the_cases_that_all_were_measured_on(benchmark):
    def cohort(*names):
        record = ClickRecord(clicks=1, placed=1, click=None, dice=0.5, nsd=(0.5, 0.5), seconds=1.0, honoured=1)
        return Cohort([CaseResult(name, 1.0, (record,)) for name in names], [Skipped("z", "empty")])

    common = benchmark("methods").in_common({"one": cohort("a", "b"), "other": cohort("b", "c")})
    assert [[result.case for result in each.results] for each in common.values()] == [["b"], ["b"]]


def test_phantoms_are_grouped_by_size_and_contrast(benchmark):
    phantoms = benchmark("phantoms")

    def measured(diameter, contrast, modality, dice):
        meta = {"diameter_mm": diameter, "contrast": contrast, "modality": modality}
        return phantoms.Measured("case", meta, (dice, dice), dice / 2)

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


def test_phantoms_are_those_of_the_command(benchmark, tmp_path):
    from sam3d_label.synthetic import write_phantoms

    (path,) = write_phantoms(tmp_path, 1, 77)
    ((name, phantom),) = benchmark("phantoms").phantoms(1, 77)
    assert path.name == f"{name}.nii.gz"
    assert np.array_equal(np.asanyarray(nib.load(path).dataobj), np.rint(phantom.image))
