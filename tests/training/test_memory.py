"""Memory: what a step needs, what is free, and what a run makes of the two."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import Percentile
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.training import TrainSettings, memory, trainer
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.memory import Need, Plan, cgroup_rooms, choose, free_memory, need
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


def test_estimating_changes_nothing(small_weights):
    """Neither the weights, nor what a click gives afterwards."""
    crop, points = torch.randn(1, 1, 32, 32, 32), torch.full((1, 1, 3), 9.0)
    signs = torch.ones(1, 1, dtype=torch.long)
    with torch.inference_mode():
        before = small_weights.model(crop, points, signs)
    need(small_weights.model, CPU, bf16=True, checkpointing=True)
    with torch.inference_mode():
        assert torch.equal(small_weights.model(crop, points, signs), before)


def test_activations_are_kept_where_they_fit(tiny):
    plenty = told(tiny, 10**11)
    assert plenty.plan == Plan(bf16=True, checkpointing=False, at_once=1)
    assert "activations kept" in plenty.why
    kept, recomputed = (need(tiny, CPU, bf16=True, checkpointing=wanted).of(1) for wanted in (False, True))
    scarce = told(tiny, int((kept + recomputed) / 2 / 0.85))
    assert scarce.plan.checkpointing
    assert "kept activations would need" in scarce.why


def test_a_gpu_takes_as_many_crops_at_once_as_fit(tiny, monkeypatch):
    monkeypatch.setattr(memory, "need", lambda *_, **__: Need(states=100, crop=1000))
    assert told(tiny, 10**6, CUDA).plan.at_once == 4
    assert told(tiny, 2600, CUDA).plan == Plan(bf16=True, checkpointing=False, at_once=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_is_near_the_truth_on_a_gpu(tiny, checkpointing):
    model = copy.deepcopy(tiny).to(CUDA).train()
    model.checkpoint_activations(checkpointing)
    with torch.device("cuda"):
        memory._step(model, "cuda", bf16=True)  # loads kernels
    model.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        memory._step(model, "cuda", bf16=True)
    found = torch.cuda.max_memory_allocated() - held
    assert found == pytest.approx(need(model, CUDA, bf16=True, checkpointing=checkpointing).crop, rel=0.3)


def test_too_little_memory_is_told_before_training(tiny):
    with pytest.raises(Sam3dError, match=r"needs about \d.\d GB .* end other programs, or train a smaller preset"):
        told(tiny, 10**8)


def test_what_is_asked_for_wins(tiny):
    assert told(tiny, 10**11, activation_checkpointing=True).plan.checkpointing
    assert told(tiny, 10**11, crops_at_once=3).plan.at_once == 3
    assert told(tiny, 10**11, crops_at_once=9, part=2).plan.at_once == 2
    trusting = told(tiny, 10**8, activation_checkpointing=False, crops_at_once=1)
    assert trusting.plan == Plan(bf16=True, checkpointing=False, at_once=1)


def test_where_nobody_knows_what_is_free_the_least_is_taken(tiny):
    unknown = told(tiny, None)
    assert unknown.plan.checkpointing
    assert "unknown" in unknown.why


def test_an_earlier_plan_stays_as_long_as_it_fits(tiny):
    settings, earlier = TrainSettings(precision="bf16"), Plan(bf16=True, checkpointing=True, at_once=1)
    assert choose(tiny, settings, CPU, part=1, free=10**11, earlier=earlier).plan == earlier
    lost = Plan(bf16=True, checkpointing=False, at_once=1)
    recomputed = need(tiny, CPU, bf16=True, checkpointing=True).of(1)
    assert choose(tiny, settings, CPU, part=1, free=int(recomputed / 0.85) + 1, earlier=lost).plan.checkpointing


def test_limits_of_a_container_count(tmp_path):
    own, group = tmp_path / "cgroup", tmp_path / "fs" / "pod" / "container"
    own.write_text("0::/pod/container\n", encoding="utf-8")
    group.mkdir(parents=True)
    for folder, limit in ((group, "1000"), (group.parent, "max")):
        (folder / "memory.max").write_text(limit, encoding="ascii")
        (folder / "memory.current").write_text("700", encoding="ascii")
        (folder / "memory.stat").write_text("anon 500\ninactive_file 200\n", encoding="ascii")
    assert list(cgroup_rooms(tmp_path / "fs", own)) == [500]
    assert list(cgroup_rooms(tmp_path / "fs", tmp_path / "nothing")) == []


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    whole = free_memory(CPU)
    if whole is None:
        pytest.skip("this system does not tell what is free")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = free_memory(CPU)
    assert shared is not None
    assert shared < whole / 2


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
