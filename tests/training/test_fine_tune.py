import copy
import csv
from dataclasses import replace

import pytest
import torch

from sam3d_label.errors import Sam3dError, VolumeError, WeightsError
from sam3d_label.image.intensity import Percentile
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.training import TrainingCase, TrainSettings
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.training.run import TrainingRun

QUICK = TrainSettings(epochs=2, steps_per_epoch=3, warmup=1, workers=0, precision="fp32", seed=1)


def trained(model, cases, out, **options):
    model = copy.deepcopy(model)
    watched = {name: options.pop(name) for name in ("progress", "on_step", "pause") if name in options}
    run = TrainingRun(cases=cases, intensity=Percentile(), **{"settings": QUICK, **options})
    report = fine_tune(model, run, out, **watched)
    return model, report


def test_training_lowers_the_loss_on_what_it_sees(small_weights, phantom_cases, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 5, "steps_per_epoch": 10, "learning_rate": 1e-2})
    _, report = trained(small_weights.model, phantom_cases[:1], tmp_path, settings=settings)
    losses = [log.loss for log in report.epochs]
    assert sum(losses[-2:]) / 2 < 0.9 * losses[0]


def test_only_the_adapted_part_changes(small_weights, phantom_cases, tmp_path):
    before = copy.deepcopy(small_weights.model.state_dict())
    model, _ = trained(small_weights.model, phantom_cases, tmp_path)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(is_trunk(name) for name in changed)
    whole, _ = trained(small_weights.model, phantom_cases, tmp_path, settings=QUICK.model_copy(update={"trunk": True}))
    assert any(is_trunk(n) and not torch.equal(t, before[n]) for n, t in whole.state_dict().items())


def inside_and_behind_the_encoder(before, model):
    """Whether anything of the encoder has changed, and whether anything else has."""
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    inside = [name.startswith("image_encoder.") for name in changed]
    return any(inside), not all(inside)


def test_gradients_reach_the_encoder_in_a_share_of_the_steps(small_weights, phantom_cases, tmp_path):
    before = copy.deepcopy(small_weights.model.state_dict())
    for share, encoder_changes in ((0.0, False), (0.5, True), (1.0, True)):
        settings = QUICK.model_copy(update={"encoder_share": share})
        model, _ = trained(small_weights.model, phantom_cases, tmp_path, settings=settings)
        assert inside_and_behind_the_encoder(before, model) == (encoder_changes, True)


def test_the_average_lags_behind_and_is_what_remains(small_weights, phantom_cases, tmp_path):
    one_step = QUICK.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    name = "mask_decoder.classify.weight"
    before = small_weights.model.get_parameter(name).detach().clone()
    newest, _ = trained(
        small_weights.model, phantom_cases, tmp_path, settings=one_step.model_copy(update={"average": 0})
    )
    average, _ = trained(small_weights.model, phantom_cases, tmp_path, settings=one_step)
    moved, behind = (model.get_parameter(name).detach() - before for model in (newest, average))
    assert torch.allclose(behind, moved * (1 - 2 / 11), rtol=1e-3)


def test_a_seed_fixes_the_result(small_weights, phantom_cases, tmp_path):
    first, _ = trained(small_weights.model, phantom_cases, tmp_path / "a")
    second, _ = trained(small_weights.model, phantom_cases, tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_each_step_is_reported(small_weights, phantom_cases, tmp_path):
    seen = []
    trained(small_weights.model, phantom_cases[:1], tmp_path, on_step=lambda *step: seen.append(step))
    steps = QUICK.steps_per_epoch
    assert seen == [(epoch, step + 1, steps) for epoch in range(QUICK.epochs) for step in range(steps)]


class KilledError(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_result(small_weights, phantom_cases, tmp_path):
    def die(log):
        raise KilledError

    options = {"settings": QUICK.model_copy(update={"encoder_share": 0.5})}
    expected, whole = trained(small_weights.model, phantom_cases, tmp_path / "whole", **options)
    with pytest.raises(KilledError):
        trained(small_weights.model, phantom_cases, tmp_path / "cut", progress=die, **options)
    model, report = trained(small_weights.model, phantom_cases, tmp_path / "cut", resume=True, **options)
    assert [log.loss for log in report.epochs] == [log.loss for log in whole.epochs]
    for a, b in zip(expected.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_log_and_curves_are_written(small_weights, phantom_cases, tmp_path):
    _, report = trained(small_weights.model, phantom_cases[:2], tmp_path, validation=phantom_cases[2:])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert 0 <= float(rows[1]["dice_1"]) <= 1
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert report.trained == [case.name for case in phantom_cases[:2]]
    assert report.validated == [phantom_cases[2].name]


def test_an_unusable_case_is_skipped_with_its_reason(small_weights, phantom_cases, tmp_path):
    missing = TrainingCase(tmp_path / "lost.nii.gz", tmp_path / "lost.nii.gz")
    _, report = trained(small_weights.model, [missing, phantom_cases[0]], tmp_path)
    assert "does not exist" in report.skipped["lost.nii.gz"]
    with pytest.raises(VolumeError, match="none of 1 cases"):
        trained(small_weights.model, [missing], tmp_path)


def test_rehearsed_cases_are_not_reported_and_cannot_train_without_others(small_weights, phantom_cases, tmp_path):
    case, other = phantom_cases[:2]
    rehearsed = replace(case, rehearsed=True)
    _, report = trained(small_weights.model, [other, rehearsed], tmp_path)
    assert report.trained == [other.name]
    missing = TrainingCase(tmp_path / "lost.nii.gz", tmp_path / "lost.nii.gz")
    with pytest.raises(VolumeError, match="none of 1 cases"):
        trained(small_weights.model, [missing, rehearsed], tmp_path)


def test_resuming_without_or_with_a_damaged_checkpoint_reports_it(small_weights, phantom_cases, tmp_path):
    with pytest.raises(WeightsError, match="nothing to resume"):
        trained(small_weights.model, phantom_cases, tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="cannot be read"):
        trained(small_weights.model, phantom_cases, tmp_path, resume=True)


def test_resuming_with_other_settings_reports_it(small_weights, phantom_cases, tmp_path):
    trained(small_weights.model, phantom_cases, tmp_path)
    with pytest.raises(WeightsError, match="other settings"):
        trained(
            small_weights.model,
            phantom_cases,
            tmp_path,
            resume=True,
            settings=QUICK.model_copy(update={"seed": 2}),
        )


def test_a_loss_that_is_no_longer_finite_stops_the_run(small_weights, phantom_cases, tmp_path):
    with torch.no_grad():
        small_weights.model.mask_decoder.classify.weight.fill_(float("nan"))
    with pytest.raises(Sam3dError, match="no longer finite"):
        trained(small_weights.model, phantom_cases, tmp_path)


def test_the_learning_rate_rises_stays_and_falls():
    settings = TrainSettings(epochs=10, steps_per_epoch=10, warmup=10, decay=0.4)
    factors = [settings.learning_rate_factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:60] == [1.0] * 50
    assert factors[60:] == sorted(factors[60:], reverse=True)
    assert factors[-1] < 0.05


def test_crops_of_one_step_are_added_up(small_weights, phantom_cases, tmp_path):
    """Two steps of one crop at a learning rate of nothing see the crops of one step of two."""
    one = QUICK.model_copy(update={"epochs": 1, "steps_per_epoch": 2, "learning_rate": 1e-12})
    two = one.model_copy(update={"steps_per_epoch": 1, "batch": 2})
    _, single = trained(small_weights.model, phantom_cases, tmp_path / "a", settings=one)
    _, double = trained(small_weights.model, phantom_cases, tmp_path / "b", settings=two)
    assert double.epochs[0].loss == pytest.approx(single.epochs[0].loss, rel=1e-5)


def test_training_ends_when_patience_is_over(small_weights, phantom_cases, tmp_path):
    settings = QUICK.model_copy(update={"epochs": 9, "patience": 2, "learning_rate": 1e-12})
    _, report = trained(
        small_weights.model, phantom_cases[:2], tmp_path, settings=settings, validation=phantom_cases[2:]
    )
    assert len(report.epochs) == 3


def test_training_waits_while_others_need_the_device(small_weights, phantom_cases, tmp_path):
    waited = []
    trained(small_weights.model, phantom_cases, tmp_path, pause=lambda: waited.append(1))
    assert len(waited) == QUICK.steps


def test_workers_change_nothing(small_weights, phantom_cases, tmp_path):
    alone, _ = trained(small_weights.model, phantom_cases, tmp_path / "a")
    helped, _ = trained(
        small_weights.model, phantom_cases, tmp_path / "b", settings=QUICK.model_copy(update={"workers": 2})
    )
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), helped.parameters(), strict=True))


def test_a_checkpoint_that_cannot_be_written_reports_it(small_weights, phantom_cases, tmp_path, monkeypatch):
    def full(*args):
        raise RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt cannot be written"):
        trained(small_weights.model, phantom_cases, tmp_path)
