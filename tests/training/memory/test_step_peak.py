"""Memory of a training step, without running it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.training.memory.step_peak import need, run_step
from sam3d_label.weights.adapter import freeze_trunk

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def tiny() -> SAM3D:
    return freeze_trunk(SAM3D(PRESETS["tiny"]))


def test_recomputing_activations_saves_memory_and_bf16_does(tiny):
    def crop(**how) -> int:
        return need(tiny, CPU, **how).crop

    assert crop(bf16=True, checkpointing=True) < 0.9 * crop(bf16=True, checkpointing=False)
    assert crop(bf16=True, checkpointing=False) < 0.7 * crop(bf16=False, checkpointing=False)


def test_what_trains_needs_gradients_moments_and_an_average(tiny):
    frozen = need(tiny, CPU, bf16=True, checkpointing=True).states
    whole = copy.deepcopy(tiny).requires_grad_(True)
    assert frozen == 4 * sum(p.numel() * 4 for p in tiny.parameters() if p.requires_grad)
    assert need(whole, CPU, bf16=True, checkpointing=True).states > frozen


def test_candidates_need_memory_as_well(tiny):
    offering = freeze_trunk(SAM3D(replace(PRESETS["tiny"], candidates=3)))
    extra = (
        need(offering, CPU, bf16=True, checkpointing=False).crop - need(tiny, CPU, bf16=True, checkpointing=False).crop
    )
    assert extra >= 3 * 4 * 128**3, "three float32 masks of a crop are held until the backward pass"


def test_estimating_changes_nothing(small_weights):
    """Neither the weights, nor what a click gives afterwards."""
    crop, points = torch.randn(1, 1, 32, 32, 32), torch.full((1, 1, 3), 9.0)
    signs = torch.ones(1, 1, dtype=torch.long)
    with torch.inference_mode():
        before = small_weights.model(crop, points, signs)
    need(small_weights.model, CPU, bf16=True, checkpointing=True)
    with torch.inference_mode():
        assert torch.equal(small_weights.model(crop, points, signs), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_is_near_the_truth_on_a_gpu(tiny, checkpointing):
    model = copy.deepcopy(tiny).to(CUDA).train()
    model.checkpoint_activations(checkpointing)
    with torch.device("cuda"):
        run_step(model, "cuda", bf16=True)  # loads kernels
    model.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        run_step(model, "cuda", bf16=True)
    found = torch.cuda.max_memory_allocated() - held
    assert found == pytest.approx(need(model, CUDA, bf16=True, checkpointing=checkpointing).crop, rel=0.3)
