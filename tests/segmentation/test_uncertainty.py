import itertools

import numpy as np

from sam3d_label.image.volume import Volume
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.segmentation.uncertainty import DRAWS, next_click, perturb

SHAPE, SPACING = (40, 36, 14), np.array([1.0, 1.0, 2.5])
CLICKS = (Click((20, 18, 7)), Click((3, 3, 1), positive=False), Click((25, 20, 13)))


def test_the_draws_depend_on_which_click_comes_first_and_not_on_the_order_of_the_others():
    expected = perturb(Prompts(CLICKS), SHAPE, SPACING)
    assert len(expected) == DRAWS
    for others in itertools.permutations(CLICKS[1:]):
        assert perturb(Prompts((CLICKS[0], *others)), SHAPE, SPACING) == expected
    assert perturb(Prompts(CLICKS[::-1]), SHAPE, SPACING)[0].clicks[0].ijk != expected[0].clicks[0].ijk


def test_draws_stay_in_the_volume_and_always_ask_for_something():
    box = Box((0, 0, 0), (39, 35, 13))
    for prompts in (Prompts(CLICKS), Prompts(CLICKS[:1]), Prompts(CLICKS[1:]), Prompts((), (box,))):
        for draw in perturb(prompts, SHAPE, SPACING):
            for ijk in [c.ijk for c in draw.clicks] + [corner for b in draw.boxes for corner in (b.lower, b.upper)]:
                assert all(0 <= index < size for index, size in zip(ijk, SHAPE, strict=True))
            assert draw.positive or draw.boxes


def test_some_draws_leave_out_a_click():
    counts = {len(draw.clicks) for draw in perturb(Prompts(CLICKS), SHAPE, SPACING)}
    assert counts == {2, 3}


def test_the_next_click_is_the_middle_of_the_region_that_holds_the_most():
    unsure = np.zeros((30, 30, 30), np.float32)
    unsure[5:7, 5:7, 5:7] = 0.9
    unsure[15:22, 15:22, 15:22] = 0.6
    assert next_click(unsure, np.ones(3), ()) == (18, 18, 18)


def test_the_next_click_is_none_of_the_clicks_given():
    unsure = np.zeros((30, 30, 30), np.float32)
    unsure[15:22, 15:22, 15:22] = 0.6
    at = next_click(unsure, np.ones(3), [Click((18, 18, 18))])
    assert at != (18, 18, 18)
    assert unsure[at] > 0


def test_where_all_masks_agree_no_click_is_suggested():
    assert next_click(np.full((5, 5, 5), 0.01, np.float32), np.ones(3), ()) is None


def test_a_segmenter_maps_it_on_the_stored_grid_the_same_each_time(small_weights):
    volume = Volume(np.random.default_rng(0).gamma(3, 50, SHAPE), np.diag([*SPACING, 1]))
    segmenter = Segmenter(volume, small_weights)
    first, second = segmenter.uncertainty(CLICKS), segmenter.uncertainty((CLICKS[0], *CLICKS[:0:-1]))
    assert first.map.shape == SHAPE
    assert first.map.dtype == np.float32
    assert 0 <= first.map.min() < first.map.max() <= 1
    assert np.allclose(first.map, second.map, atol=1e-5)
    assert first.next_click == second.next_click
    assert first.model_version == "random"
