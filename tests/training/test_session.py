"""The loss of a session: the label is the target, or what the network before the run answered to the same prompts."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.network import SAM3D
from sam3d_label.segmentation.crop_prompts import decode
from sam3d_label.segmentation.prompts import Click
from sam3d_label.training import TrainSettings, simulation
from sam3d_label.training.session import SessionLoss, soft_dice
from sam3d_label.training.simulation import SimulatedPrompts, train_rounds

SETTINGS = TrainSettings(clicks=3, rough_mask_share=0.4, box_share=0.3)


@pytest.fixture
def crop():
    """An image and the label of a ball in it."""
    grid = np.indices((32, 32, 32)) - 16
    label = torch.from_numpy((grid**2).sum(0) <= 80)[None, None].float()
    return torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)) + label, label


def test_the_prompts_of_a_round_lead_to_the_same_answer_again(small_weights, crop):
    model, (image, label) = small_weights.model, crop
    embedding = model.encode(image)
    for seed in range(8):
        prompts, again = SimulatedPrompts(label.device), SimulatedPrompts(label.device)
        for logit in train_rounds(model, embedding, label, SETTINGS, np.random.default_rng(seed), prompts=prompts):
            again.follow(prompts)
            torch.testing.assert_close(again.decode(model, embedding), logit)
            afresh = SimulatedPrompts(label.device)
            afresh.follow(prompts)
            torch.testing.assert_close(afresh.decode(model, embedding), logit)


def test_the_first_of_two_passes_is_not_computed_again(small_weights, crop, monkeypatch):
    """A click, then three corrections: four rounds and no more decodings."""
    model, (image, label) = small_weights.model, crop
    embedding, decodings = model.encode(image), []
    monkeypatch.setattr(simulation, "decode", lambda *args, **more: decodings.append(1) or decode(*args, **more))
    prompts = SimulatedPrompts(label.device)
    for ijk in ((8, 8, 8), (3, 3, 3), (9, 8, 8), (2, 9, 4)):
        prompts.clicks.append(Click(ijk, ijk[0] > 5))
        prompts.decode(model, embedding)
    assert len(decodings) == 4


def test_rehearsed_crops_are_compared_with_the_answers_of_the_network_before(small_weights, crop):
    image, label = crop
    before = copy.deepcopy(small_weights.model)
    loss = SessionLoss(small_weights.model, SETTINGS, before)

    def of(rehearsed: list[bool]) -> float:
        return float(loss(image, label, [False], [np.random.default_rng(0)], rehearsed))

    rounds = train_rounds(before, before.encode(image), label, SETTINGS, np.random.default_rng(0))
    expected = torch.stack([loss.criterion(logit, torch.sigmoid(logit)) for logit in rounds]).mean()
    assert of([True]) == pytest.approx(float(expected), rel=1e-4)
    assert of([False]) == pytest.approx(of([]))
    assert of([False]) != pytest.approx(of([True]))
    assert not any("teacher" in name for name, _ in loss.named_parameters()), "it does not train"


@pytest.fixture
def proposing(small_weights):
    """A network that proposes candidates."""
    torch.manual_seed(0)
    return SAM3D(replace(small_weights.model.config, fine=(4, 8), candidates=2))


@pytest.mark.parametrize("rehearsed", [False, True])
def test_candidates_and_their_predicted_dice_learn_from_the_initial_prompts(proposing, crop, rehearsed):
    settings = TrainSettings(clicks=1, rough_mask_share=0, no_click_share=0)
    loss = SessionLoss(proposing, settings, copy.deepcopy(proposing))
    loss(*crop, [False], [np.random.default_rng(0)], [rehearsed]).sum().backward()
    head = proposing.fine_path.candidates
    assert head.out.weight.grad.abs().sum() > 0
    assert (head.quality[-1].weight.grad.abs().sum() > 0) is not rehearsed, "the teacher predicts the same"


def test_corrections_of_a_mask_teach_no_candidates(proposing, crop):
    loss = SessionLoss(proposing, TrainSettings(clicks=1, rough_mask_share=1))
    loss(*crop, [False], [np.random.default_rng(0)]).sum().backward()
    assert proposing.fine_path.candidates.out.weight.grad is None


def test_the_initial_prompt_is_decoded_once_for_its_mask_and_its_candidates(proposing, crop, monkeypatch):
    decoded = []
    decode = SAM3D._decode
    monkeypatch.setattr(SAM3D, "_decode", lambda *given: decoded.append(given) or decode(*given))
    settings = TrainSettings(clicks=1, several_share=0, rough_mask_share=0, no_click_share=0)
    SessionLoss(proposing, settings)(*crop, [False], [np.random.default_rng(0)])
    assert len(decoded) == 1


def test_the_predicted_dice_approaches_that_of_the_candidates(proposing, crop):
    image, label = crop
    head = proposing.fine_path.candidates.quality
    optimizer = torch.optim.Adam(head.parameters(), lr=0.003)
    loss = SessionLoss(proposing, TrainSettings(clicks=1, several_share=0, rough_mask_share=0, no_click_share=0))
    for _ in range(80):
        optimizer.zero_grad()
        loss(image, label, [False], [np.random.default_rng(0)]).sum().backward()
        optimizer.step()
    prompts = SimulatedPrompts(label.device, proposes=True)
    prompts.clicks.append(Click((8, 8, 8)))
    with torch.no_grad():
        prompts.decode(proposing, proposing.encode(image))
    proposed = prompts.proposed
    assert proposed is not None
    dices = [float(soft_dice(logit.sigmoid(), label)) for logit in proposed.candidates.split(1, 1)]
    assert proposed.dice[0].tolist() == pytest.approx(dices, abs=0.05)
