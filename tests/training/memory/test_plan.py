"""The memory plan of a run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import Percentile
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.training import TrainSettings, trainer
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.memory import plan
from sam3d_label.training.memory.plan import Plan, choose
from sam3d_label.training.memory.step_peak import Need, need
from sam3d_label.training.run import TrainingRun
from sam3d_label.weights.adapter import freeze_trunk

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK = TrainSettings(epochs=2, steps_per_epoch=2, batch=3, warmup=0, workers=0, precision="fp32", seed=1)


@pytest.fixture(scope="module")
def tiny() -> SAM3D:
    return freeze_trunk(SAM3D(PRESETS["tiny"]))


def told(model: SAM3D, free: int | None, device: torch.device = CPU, part: int = 4, **settings):
    settings = {"precision": "bf16", **settings}
    return choose(model, TrainSettings(**settings), device, part=part, free=free)


def test_activations_are_kept_where_they_fit(tiny):
    plenty = told(tiny, 10**11)
    assert plenty.plan == Plan(bf16=True, checkpointing=False, at_once=1)
    assert "activations kept" in plenty.why
    kept, recomputed = (need(tiny, CPU, bf16=True, checkpointing=wanted).of(1) for wanted in (False, True))
    scarce = told(tiny, int((kept + recomputed) / 2 / 0.85))
    assert scarce.plan.checkpointing
    assert "kept activations would need" in scarce.why


def test_a_gpu_takes_as_many_crops_at_once_as_fit(tiny, monkeypatch):
    monkeypatch.setattr(plan, "need", lambda *_, **__: Need(states=100, crop=1000))
    assert told(tiny, 10**6, CUDA).plan.at_once == 4
    assert told(tiny, 2600, CUDA).plan == Plan(bf16=True, checkpointing=False, at_once=2)


def test_too_little_memory_is_reported_before_training(tiny):
    with pytest.raises(Sam3dError, match=r"needs about \d.\d GB .* end other programs, or train a smaller preset"):
        told(tiny, 10**8)


def test_what_is_asked_for_wins(tiny):
    assert told(tiny, 10**11, activation_checkpointing=True).plan.checkpointing
    assert told(tiny, 10**11, crops_at_once=3).plan.at_once == 3
    assert told(tiny, 10**11, crops_at_once=9, part=2).plan.at_once == 2
    trusting = told(tiny, 10**8, activation_checkpointing=False, crops_at_once=1)
    assert trusting.plan == Plan(bf16=True, checkpointing=False, at_once=1)


def test_with_unknown_free_memory_the_smallest_plan_is_used(tiny):
    unknown = told(tiny, None)
    assert unknown.plan.checkpointing
    assert "unknown" in unknown.why


def test_an_earlier_plan_stays_as_long_as_it_fits(tiny):
    settings, earlier = TrainSettings(precision="bf16"), Plan(bf16=True, checkpointing=True, at_once=1)
    assert choose(tiny, settings, CPU, part=1, free=10**11, earlier=earlier).plan == earlier
    lost = Plan(bf16=True, checkpointing=False, at_once=1)
    recomputed = need(tiny, CPU, bf16=True, checkpointing=True).of(1)
    assert choose(tiny, settings, CPU, part=1, free=int(recomputed / 0.85) + 1, earlier=lost).plan.checkpointing


def trained(weights, cases, out: Path, **options):
    model = copy.deepcopy(weights.model)
    watched = {name: options.pop(name) for name in ("progress", "on_step", "pause") if name in options}
    run = TrainingRun(cases=cases, **{"intensity": Percentile(), "settings": QUICK, **options})
    return model, fine_tune(model, run, out, **watched)


def test_a_batch_means_the_same_however_many_crops_are_computed_at_once(small_weights, phantom_cases, tmp_path):
    losses = []
    for at_once in (1, 2, 3):
        settings = QUICK.model_copy(update={"crops_at_once": at_once})
        _, report = trained(small_weights, phantom_cases, tmp_path / str(at_once), settings=settings)
        assert f"{at_once} crop" in report.memory
        losses.append([log.loss for log in report.epochs])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_recomputed_activations_give_the_same_weights(small_weights, phantom_cases, tmp_path):
    kept, recomputed = (
        trained(
            small_weights,
            phantom_cases,
            tmp_path / str(wanted),
            settings=QUICK.model_copy(update={"activation_checkpointing": wanted}),
        )[0]
        for wanted in (False, True)
    )
    for a, b in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_resumed_run_keeps_its_plan(small_weights, phantom_cases, tmp_path, monkeypatch):
    recomputed = need(freeze_trunk(small_weights.model), CPU, bf16=False, checkpointing=True)
    monkeypatch.setattr(trainer, "free_memory", lambda _: int(recomputed.of(1) / 0.85) + 1)
    _, first = trained(small_weights, phantom_cases, tmp_path)
    assert "recomputed" in first.memory
    monkeypatch.undo()
    _, second = trained(small_weights, phantom_cases, tmp_path, resume=True)
    assert "recomputed" in second.memory
