"""The simulated session, with a segmenter that draws balls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sam3d_label.errors import PromptError
from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.session import evaluate_case, evaluate_unprompted
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
    assert record.nsd is not None
    assert len(record.nsd) == 2
    assert record.seconds > 0
    with pytest.raises(PromptError, match="0 out"):
        evaluate_unprompted(Perfect(truth), truth, spacing=SPACING)


def test_a_model_that_needs_a_click_is_not_measured_at_0(truth):
    with pytest.raises(PromptError, match="needs a click"):
        evaluate_unprompted(Perfect(truth), truth, spacing=SPACING)


def test_a_segmenter_without_candidates_says_so(truth):
    with pytest.raises(PromptError, match="no candidates"):
        evaluate_case(Perfect(truth), truth, CENTRE, spacing=SPACING, clicks=(1,), candidates=True)


def test_the_same_seed_gives_the_same_session(truth, ball):
    def session(seed):
        records = evaluate_case(ball, truth, ANNOTATORS["jittered"], spacing=SPACING, clicks=(5,), seed=seed)
        return [(record.click, record.dice) for record in records]

    assert session(3) == session(3)
    assert session(3) != session(4)
