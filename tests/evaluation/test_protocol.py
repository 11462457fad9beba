"""The simulated session, with a segmenter that draws balls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sam3d_label.errors import PromptError
from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.protocol import evaluate_case, evaluate_cohort, evaluate_unprompted
from sam3d_label.image.volume import Volume

CENTRE = ANNOTATORS["error_centre"]
SPACING = (1.0, 1.5, 3.0)
SHAPE = (24, 20, 12)
AFFINE = np.diag([*SPACING, 1.0])


class Perfect:
    """Knows the truth after one click."""

    def __init__(self, truth):
        self.truth = truth

    def segment(self, prompts):
        return SimpleNamespace(mask=self.truth.astype(np.uint8))


@pytest.fixture
def ball(ball_segmenter):
    return ball_segmenter(Volume(np.zeros(SHAPE, np.float32), AFFINE))


@pytest.fixture
def run(cohort, ball_segmenter):
    def evaluate(annotator="error_centre", **options):
        options = {"clicks": (1, 2), **options}
        return evaluate_cohort(cohort / "images", cohort / "labels", ball_segmenter, ANNOTATORS[annotator], **options)

    return evaluate


def test_all_clicks_are_sent_again_each_time(truth, ball):
    records = evaluate_case(ball, truth, CENTRE, spacing=SPACING, clicks=(1, 4))
    given = tuple(record.click for record in records)
    assert ball.asked == [given[:count] for count in (1, 2, 3, 4)]
    assert [record.placed for record in records] == [1, 2, 3, 4]


def test_surfaces_are_compared_only_where_asked(truth, ball):
    records = evaluate_case(ball, truth, CENTRE, spacing=SPACING, clicks=(1, 3), last=4)
    assert [record.nsd is not None for record in records] == [True, False, True, False]
    assert all(0 < record.dice < 1 for record in records)
    assert all(record.seconds > 0 for record in records)
    assert records[-1].dice > records[0].dice


def test_a_perfect_mask_stays(truth):
    records = evaluate_case(Perfect(truth), truth, CENTRE, spacing=SPACING, clicks=(1, 3))
    assert [record.dice for record in records] == [1, 1, 1]
    assert [record.placed for record in records] == [1, 1, 1]
    assert [record.seconds > 0 for record in records] == [True, False, False]
    assert records[2].nsd == (1, 1)


def test_without_a_click(truth, ball):
    record = evaluate_unprompted(ball, truth, spacing=SPACING)
    assert (record.clicks, record.placed, record.click) == (0, 0, None)
    assert 0 < record.dice < 1
    assert len(record.nsd) == 2
    assert record.seconds > 0
    with pytest.raises(PromptError, match="0 out"):
        evaluate_unprompted(Perfect(truth), truth, spacing=SPACING)


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


def test_a_model_that_needs_a_click_is_not_measured_at_0(cohort, truth):
    measured = evaluate_cohort(cohort / "images", cohort / "labels", lambda _: Perfect(truth), CENTRE, clicks=(0, 1))
    assert not measured.results
    assert "needs a click" in measured.skipped[0].reason


def test_slices_of_the_worst_cases_are_kept(run):
    both, one, none = run(clicks=(1, 3)), run(clicks=(1, 3), worst=1), run(worst=0)
    ranked = sorted(both.results, key=lambda result: result.dices[2])
    assert [row.case for row in both.worst] == [result.case for result in ranked]
    assert [row.case for row in one.worst] == [ranked[0].case]
    assert none.worst == []
    assert [moment.clicks for moment in both.worst[0].moments] == [1, 3]
    assert [moment.dice for moment in both.worst[0].moments] == [ranked[0].dices[0], ranked[0].dices[2]]


def test_the_same_seed_gives_the_same_session(truth, ball):
    def session(seed):
        records = evaluate_case(ball, truth, ANNOTATORS["jittered"], spacing=SPACING, clicks=(5,), seed=seed)
        return [(record.click, record.dice) for record in records]

    assert session(3) == session(3)
    assert session(3) != session(4)


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
