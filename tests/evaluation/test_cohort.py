"""Sessions on a folder of cases, with a segmenter that draws balls."""

from __future__ import annotations

import numpy as np
import pytest

from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.cohort import evaluate_cohort

CENTRE = ANNOTATORS["error_centre"]
SPACING = (1.0, 1.5, 3.0)
SHAPE = (24, 20, 12)
AFFINE = np.diag([*SPACING, 1.0])


@pytest.fixture
def run(cohort, ball_segmenter):
    def evaluate(annotator="error_centre", **options):
        options = {"clicks": (1, 2), **options}
        return evaluate_cohort(cohort / "images", cohort / "labels", ball_segmenter, ANNOTATORS[annotator], **options)

    return evaluate


def test_zero_clicks_leave_the_session_as_it_is(cohort, ball_segmenter):
    opened = []

    def measure(clicks):
        def segmenter(volume):
            opened.append(ball_segmenter(volume))
            return opened[-1]

        return evaluate_cohort(cohort / "images", cohort / "labels", segmenter, CENTRE, clicks=clicks).results

    plain, with_zero = measure((1, 3)), measure((0, 1, 3))
    assert [result.dices for result in plain] == [result.dices for result in with_zero]
    assert [result.unprompted for result in plain] == [None, None]
    assert all(result.after(0).clicks == 0 and result.after(0).nsd for result in with_zero)
    assert [len(segmenter.asked[0]) for segmenter in opened] == [1, 1, 1, 0, 1, 0]
    with pytest.raises(LookupError, match="a_ct"):
        plain[0].after(0)


def test_slices_of_the_worst_cases_are_kept(run):
    both, one, none = run(clicks=(1, 3)), run(clicks=(1, 3), worst=1), run(worst=0)
    ranked = sorted(both.results, key=lambda result: result.dices[2])
    assert [row.case for row in both.worst] == [result.case for result in ranked]
    assert [row.case for row in one.worst] == [ranked[0].case]
    assert none.worst == []
    assert [moment.clicks for moment in both.worst[0].moments] == [1, 3]
    assert [moment.dice for moment in both.worst[0].moments] == [ranked[0].dices[0], ranked[0].dices[2]]


def test_cohort_in_order_with_progress(run):
    seen = []
    measured = run(progress=lambda *call: seen.append(call))
    assert [result.case for result in measured.results] == ["a_ct", "b_mr"]
    assert measured.skipped == []
    assert seen == [("a_ct", 0, 2), ("b_mr", 1, 2), ("", 2, 2)]


def test_each_click_of_a_case_is_reported(run):
    seen = []
    run(clicks=(1, 2), last=3, clicked=lambda *click: seen.append(click))
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_case_does_not_depend_on_the_others(run):
    def clicks(**options):
        measured = run("random_foreground", clicks=(3,), seed=1, **options)
        return [record.click for record in measured.results[-1].records]

    assert clicks(cases="b*") == clicks()


@pytest.mark.parametrize("pattern", ["a_*", "*.nii.gz", "a_ct", "?_ct.nii.gz", "z*,a_*"])
def test_glob(run, pattern):
    assert run(cases=pattern).results[0].case == "a_ct"


def test_label_picks_a_value(run, truth):
    whole, part = run().results[0], run(label=2).results[0]
    voxel = float(np.prod(SPACING)) / 1000
    assert whole.truth_ml == pytest.approx(np.count_nonzero(truth) * voxel)
    assert part.truth_ml == pytest.approx(np.count_nonzero(truth[:9]) * voxel)


def test_a_bad_case_is_skipped_with_a_reason(cohort, save, run):
    image = np.zeros(SHAPE, np.float32)
    image[0, 0, 0] = 1
    full = np.ones(SHAPE, np.uint8)
    names = ("c_empty", "d_missing", "e_shape", "f_shifted", "g_broken", "h_image")
    for name in names:
        save(f"images/{name}.nii.gz", image)
        save(f"labels/{name}.nii.gz", full)
    save("labels/c_empty.nii.gz", np.zeros(SHAPE, np.uint8))
    (cohort / "labels/d_missing.nii.gz").unlink()
    save("labels/e_shape.nii.gz", np.ones((5, 6, 7), np.uint8))
    shifted = AFFINE.copy()
    shifted[0, 3] = 4
    save("labels/f_shifted.nii.gz", full, shifted)
    (cohort / "labels/g_broken.nii.gz").write_bytes(b"no volume")
    (cohort / "images/h_image.nii.gz").write_bytes(b"")
    measured = run()
    assert [result.case for result in measured.results] == ["a_ct", "b_mr"]
    reasons = {skipped.case: skipped.reason for skipped in measured.skipped}
    assert tuple(reasons) == names
    assert "empty" in reasons["c_empty"]
    assert "no label" in reasons["d_missing"]
    assert "shape (5, 6, 7)" in reasons["e_shape"]
    assert "4.0 mm" in reasons["f_shifted"]


def test_rounded_affines_are_the_same_grid(save, truth, run):
    save("labels/a_ct.nii.gz", truth.astype(np.uint8), AFFINE + 1e-3)
    assert not run().skipped
