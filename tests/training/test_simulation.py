import numpy as np
import pytest
import torch

from sam3d_label.training import TrainSettings
from sam3d_label.training.simulation import (
    SimulatedPrompts,
    cells,
    draw_click,
    first_clicks,
    loose_box,
    rough_mask,
    target_cells,
    train_rounds,
    validation_dice,
)


@pytest.fixture
def target():
    """A ball in cells."""
    grid = np.indices((16, 16, 16)) - 8
    return (grid**2).sum(0) <= 25


def label_of(target):
    """Cells as a label (1, 1, 32, 32, 32) in voxels of the crop."""
    return (
        torch.from_numpy(target)[None, None]
        .float()
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
        .repeat_interleave(2, 4)
    )


def test_cells_are_two_voxels_wide(target):
    assert np.array_equal(target_cells(label_of(target)), target)
    assert np.array_equal(cells(label_of(target) - 0.5), target)


def test_a_thin_target_keeps_the_cells_that_it_touches():
    label = torch.zeros(1, 1, 8, 8, 8)
    label[..., 3] = 1
    label[:, :, 4:] = 0
    label[:, :, :, 4:] = 0
    label[:, :, 1::2] = 0
    label[:, :, :, 1::2] = 0
    found = target_cells(label)
    assert found.sum() == 4
    assert found[:2, :2, 1].all()


def test_clicks_fall_on_the_larger_error_with_its_sign(target, rng):
    found = np.zeros_like(target)
    for _ in range(20):
        click = draw_click(target, found, (), rng)
        assert click.positive
        assert target[click.ijk]
    found = np.ones_like(target)
    for _ in range(20):
        click = draw_click(target, found, [], rng)
        assert not click.positive
        assert not target[click.ijk]


def test_a_session_begins_inside_sometimes_with_several_clicks(target):
    settings = TrainSettings(several_share=0.5)
    begun = [first_clicks(target, settings, np.random.default_rng(seed)) for seed in range(30)]
    assert all(click.positive and target[click.ijk] for clicks in begun for click in clicks)
    assert {len(clicks) > 1 for clicks in begun} == {True, False}


def test_a_loose_box_stays_near_the_target(target, rng):
    for _ in range(20):
        lower, upper = loose_box(target, rng)
        assert (np.abs(lower - 3) <= 1.1).all()
        assert (np.abs(upper - 13) <= 1.1).all()


def test_rounds_carry_gradients_to_encoder_and_prompts(small_weights, target, rng):
    model = small_weights.model.train().requires_grad_(True)
    embedding = model.encode(torch.randn(1, 1, 32, 32, 32))
    rounds = list(train_rounds(model, embedding, label_of(target), TrainSettings(clicks=3), rng))
    assert all(logit.shape == (1, 1, 32, 32, 32) for logit in rounds)
    sum(logit.mean() for logit in rounds).backward()
    for name in ("image_encoder.stem.slice_embed.weight", "prompt_encoder.sign_embed"):
        assert model.get_parameter(name).grad.abs().sum() > 0


def test_the_first_and_the_last_round_learn(small_weights, target, prompts_seen):
    small_weights.model.requires_grad_(True)
    for seed in range(8):
        prompts_seen.clear()
        rounds = session(small_weights, target, seed, clicks=4, two_passes=False)
        assert len(rounds) == min(len(prompts_seen), 2)
        assert all(logit.requires_grad for logit in rounds)
        assert [clicks for clicks, _, _ in prompts_seen] == sorted(clicks for clicks, _, _ in prompts_seen)


def test_simulated_prompts_are_in_voxels_of_the_crop():
    prompts = SimulatedPrompts(torch.device("cpu"))
    corner = np.pad(np.ones((1, 1, 1), bool), ((15, 0),) * 3)
    prompts.clicks.extend(first_clicks(corner, TrainSettings(several_share=0), np.random.default_rng(0)))
    drawn = prompts.in_crop()
    points, signs, boxes = drawn.points, drawn.signs, drawn.boxes
    assert points.tolist() == [[[30.5, 30.5, 30.5]]]  # the middle of the last cell of 32 voxels
    assert signs.tolist() == [[1]]
    assert boxes.shape == (1, 0, 2, 3)


def test_validation_scores_every_click(small_weights, target):
    with torch.no_grad():
        embedding = small_weights.model.encode(torch.randn(1, 1, 32, 32, 32))
    scores = validation_dice(small_weights.model, embedding, label_of(target), TrainSettings(), 4)
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)


@pytest.fixture
def prompts_seen(small_weights, monkeypatch):
    """How many clicks and boxes, and whether a mask, the network was shown at each round."""
    seen = []
    answer = small_weights.model.decode

    def watch(embedding, points, signs, *, boxes=None, mask=None, geodesic_maps=None):
        seen.append((points.shape[1], 0 if boxes is None else boxes.shape[1], mask is not None))
        return answer(embedding, points, signs, boxes=boxes, mask=mask)

    monkeypatch.setattr(small_weights.model, "decode", watch)
    return seen


def session(weights, target, seed, salient=True, **shares):
    nothing = {"box_share": 0, "several_share": 0, "no_click_share": 0, "rough_mask_share": 0}
    settings = TrainSettings(**nothing | shares)
    embedding = weights.model.encode(torch.zeros(1, 1, 32, 32, 32))
    return list(
        train_rounds(weights.model, embedding, label_of(target), settings, np.random.default_rng(seed), salient)
    )


def test_a_session_may_begin_without_a_prompt_where_the_target_can_be_found(small_weights, target, prompts_seen):
    session(small_weights, target, 1, no_click_share=1)
    assert prompts_seen[0] == (0, 0, False)
    prompts_seen.clear()
    session(small_weights, target, 1, salient=False, no_click_share=1)
    assert prompts_seen[0] == (1, 0, False)


def test_a_crop_without_its_target_is_looked_at_once_and_unprompted(small_weights, target, prompts_seen):
    assert len(session(small_weights, np.zeros_like(target), 1, clicks=5)) == 1
    assert prompts_seen == [(0, 0, False)]


def test_a_session_may_begin_with_a_rough_mask_with_or_without_a_click(small_weights, target, prompts_seen):
    begun = set()
    for seed in range(12):
        prompts_seen.clear()
        session(small_weights, target, seed, rough_mask_share=1)
        begun.add(prompts_seen[0])
    assert begun == {(0, 0, True), (1, 0, True)}


def test_clicks_correct_what_the_first_of_them_gives_alone(small_weights, target, prompts_seen):
    for seed in range(8):
        prompts_seen.clear()
        session(small_weights, target, seed, clicks=4)
        rounds = [seen for seen in prompts_seen if seen[0] > 1]
        assert all(mask for _, _, mask in rounds)
        assert prompts_seen.count((1, 0, False)) <= 2, "in the first round, and once for all others"


def test_a_rough_mask_is_corrected_in_every_round(small_weights, target, prompts_seen):
    session(small_weights, target, 3, clicks=5, rough_mask_share=1)
    assert len(prompts_seen) > 1
    assert all(mask for _, _, mask in prompts_seen)


def test_a_rough_mask_is_near_the_truth_and_not_the_truth(target):
    label = label_of(target)
    for seed in range(12):
        mask = rough_mask(label, np.random.default_rng(seed)) > 0
        assert mask.shape == label.shape
        assert 0.5 < 2 * (mask & (label > 0)).sum() / (mask.sum() + label.sum()) < 1
