import pytest

from sam3d_label.errors import PromptError
from sam3d_label.segmentation.prompts import Box, Click, Prompts, clip_boxes

SHAPE = (10, 20, 30)


def test_prompts_from_a_plain_sequence_keep_clicks_and_boxes_apart():
    prompts = Prompts.of([Click((1, 2, 3)), Box((0, 0, 0), (4, 4, 4)), Click((4, 5, 6), positive=False)])
    assert [click.ijk for click in prompts.positive] == [(1, 2, 3)]
    assert [click.ijk for click in prompts.negative] == [(4, 5, 6)]
    assert prompts.boxes == (Box((0, 0, 0), (4, 4, 4)),)
    assert Prompts.of(prompts) is prompts


def test_box_from_pairs_takes_either_order():
    assert Box.from_pairs([9, 2, 3, 4, 8, 8]) == Box((2, 3, 8), (9, 4, 8))


def test_box_from_pairs_needs_six_numbers():
    with pytest.raises(PromptError, match="six numbers"):
        Box.from_pairs([1, 2, 3, 4])


@pytest.mark.parametrize(
    ("drawn", "complaint"),
    [
        ([], "nothing marks the target"),
        ([Click((1, 1, 1), positive=False)], "nothing marks the target"),
        ([Click((10, 0, 0))], r"click \(10, 0, 0\) is outside the volume of 10 x 20 x 30"),
        ([Click((0, -1, 0))], "is outside"),
        ([Click((0, 0, 0)), Click((0, 0, 30), positive=False)], "is outside"),
        ([Box((0, 0, 0), (9, 20, 1))], "box corner"),
        ([Click((3, 3, 3)), Click((3, 3, 3), positive=False)], r"voxel \(3, 3, 3\) is clicked both"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(drawn, complaint):
    with pytest.raises(PromptError, match=complaint):
        Prompts.of(drawn).validate(SHAPE)


def test_a_click_on_the_last_voxel_is_inside():
    Prompts.of([Click((9, 19, 29)), Click((0, 0, 0), positive=False)]).validate(SHAPE)


def test_what_is_neither_click_nor_box_is_refused():
    with pytest.raises(PromptError, match="neither a Click nor a Box"):
        Prompts.of([Click((1, 2, 3)), (4, 5, 6)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box((-3, 2, -1), (4, 90, 5)), Box((0, 2, 0), (4, 19, 5))),
        (Box((1, 2, 3), (4, 5, 6)), Box((1, 2, 3), (4, 5, 6))),
    ],
)
def test_a_box_is_cut_to_the_volume(box, expected):
    assert clip_boxes(Prompts(boxes=(box,)), (10, 20, 30)).boxes == (expected,)


@pytest.mark.parametrize("box", [Box((10, 0, 0), (12, 5, 5)), Box((0, -9, 0), (5, -1, 5))])
def test_a_box_beside_the_volume_is_an_error(box):
    with pytest.raises(PromptError, match="outside the volume of 10 x 20 x 30 voxels"):
        clip_boxes(Prompts(boxes=(box,)), (10, 20, 30))
