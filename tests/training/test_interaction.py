import numpy as np
import pytest
import torch

from sam3d_label.training import TrainSettings
from sam3d_label.training.interaction import (
    SimulatedPrompts,
    draw_click,
    first_clicks,
    half_truth,
    loose_box,
    train_rounds,
    validation_dice,
)


@pytest.fixture
def target():
    grid = np.indices((16, 16, 16)) - 8
    return (grid**2).sum(0) <= 25


def test_the_truth_is_halved_between_the_same_corners():
    label = torch.zeros(1, 1, 32, 32, 32)
    label[..., :16] = 1
    truth = half_truth(label, 16)
    assert truth.shape == (1, 1, 16, 16, 16)
    assert truth[0, 0, 0, 0].tolist() == [1.0] * 8 + [0.0] * 8


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
    truth = torch.from_numpy(target)[None, None].float()
    embedding = model.encode(torch.randn(1, 1, 32, 32, 32))
    rounds = list(train_rounds(model, embedding, truth, TrainSettings(clicks=3, mask_share=1), rng))
    assert 1 <= len(rounds) <= 5
    assert all(logit.shape == truth.shape for logit in rounds)
    sum(logit.mean() for logit in rounds).backward()
    for name in ("image_encoder.stem.slice_embed.weight", "prompt_encoder.sign_embed"):
        assert model.get_parameter(name).grad.abs().sum() > 0


def test_simulated_prompts_reach_the_corners_of_the_crop(small_weights):
    prompts = SimulatedPrompts(small_weights.model, torch.device("cpu"))
    prompts.clicks.extend(
        first_clicks(
            np.pad(np.ones((1, 1, 1), bool), ((15, 0),) * 3),
            TrainSettings(several_share=0),
            np.random.default_rng(0),
        )
    )
    points, signs, boxes = prompts.tensors()
    assert points.tolist() == [[[31.0, 31.0, 31.0]]]
    assert signs.tolist() == [[1]]
    assert boxes.shape == (1, 0, 2, 3)


def test_validation_scores_every_click(small_weights, target):
    truth = torch.from_numpy(target)[None, None].float()
    with torch.no_grad():
        embedding = small_weights.model.encode(torch.randn(1, 1, 32, 32, 32))
    scores = validation_dice(small_weights.model, embedding, truth, 4)
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)
