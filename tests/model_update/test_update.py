"""From labels to a version that serves, or is kept aside."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from sam3d_label.errors import VolumeError
from sam3d_label.model_update import learning_curve, rehearsal, split_ledger, update
from sam3d_label.model_update.progress import WorkClock
from sam3d_label.model_update.reference_set import ReferenceSet, phantom_cases
from sam3d_label.model_update.report import CaseScore
from sam3d_label.model_update.shares import SHARES, KnowledgeSettings
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.update import LabelledCase, Update
from sam3d_label.model_update.versions import INITIAL, Versions
from sam3d_label.training import TrainReport, TrainSettings
from sam3d_label.training.dataset import TrainingCase
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.weights import open_weights

QUICK = TrainSettings(epochs=2, steps_per_epoch=1, warmup=0, workers=0, precision="fp32")


@pytest.fixture
def labelled(tmp_path):
    """Five small volumes with a bright block each."""
    cases = []
    for index in range(5):
        truth = np.zeros((26, 24, 22), np.uint8)
        truth[6 : 14 + index, 7:15, 8:16] = 1
        image = np.random.default_rng(index).normal(size=truth.shape).astype(np.float32) + 8 * truth
        for kind, array in (("images", image), ("labels", truth)):
            (tmp_path / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / kind / f"case_{index}.nii.gz")
        name = f"case_{index}.nii.gz"
        case = TrainingCase(tmp_path / "images" / name, tmp_path / "labels" / name)
        cases.append(LabelledCase(f"case_{index}", f"patient {index}", (case,)))
    return cases


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    """A small reference set, one phantom of each modality, and two phantoms to rehearse."""
    monkeypatch.setattr(rehearsal, "PHANTOMS", 2)

    def small(intensity, own=None):
        cases = [case for case in phantom_cases(intensity) if case.name.endswith("1")]
        return ReferenceSet(cases, {"unread.nii.gz": "damaged"} if own else {})

    monkeypatch.setattr(update, "open_reference_set", small)


@pytest.fixture
def make(small_weights, tmp_path, monkeypatch):
    """An update with some share of validation cases, the same ones each time."""
    monkeypatch.setattr(split_ledger.secrets, "token_hex", lambda _: "salt")

    def make(share=0.5, **changes):
        options = {"serving": small_weights, "versions": Versions(tmp_path / "versions"), "settings": QUICK}
        options |= {"ledger": Ledger(tmp_path / "ledger.json", share), "folder": tmp_path / "model"}
        return Update(**options | changes)

    return make


def scored(case: str, value: float) -> CaseScore:
    return CaseScore(case=case, dice_1=value, dice_3=value, dice_5=value, nsd_3=value)


@pytest.fixture
def quality(monkeypatch):
    """Says what the gate measures: by the version of the weights, and on reference cases."""
    dice = {"candidate": 0.8, "random": 0.7, "reference": 0.6}

    def score(weights, cases, pause):
        for _ in cases:
            pause()
        of_team = dice.get(weights.version, dice["candidate"])
        return [scored(case.name, dice["reference"] if "phantom" in case.name else of_team) for case in cases]

    monkeypatch.setattr(update, "score", score)
    return dice


def test_a_better_version_serves_with_its_report(make, labelled, quality, tmp_path):
    done = make()(labelled, {"broken": "it holds NaN"})
    versions = Versions(tmp_path / "versions")
    assert versions.current() == done.version == "0001"
    assert versions.report("0001").model_dump_json() == done.model_dump_json()
    metrics = open_weights(versions.path("0001")).card.model_dump()["metrics"]
    assert metrics["gate"]["candidate"]["dice_1"] == pytest.approx(0.8)
    report = versions.report("0001")
    assert report.gate.passes
    assert report.skipped == {"broken": "it holds NaN"}
    assert sorted(report.train + report.validation) == [case.id for case in labelled]
    assert report.ledger == Ledger(tmp_path / "ledger.json").digest
    assert {path.name for path in versions.path("0001").iterdir()} >= {"log.csv", "curves.png", "report.json"}
    assert not (tmp_path / "model" / "run").exists()
    card = open_weights(versions.path("0001")).card
    assert [source.name for source in card.training.data] == ["annotated cases", "phantoms of sam3d_label (rehearsal)"]
    assert len(card.training.model_dump()["cases"]) == len(report.train), "phantoms are no cases of the team"


def test_a_worse_version_is_kept_aside(make, labelled, quality, tmp_path):
    make()(labelled)
    quality["candidate"] = 0.5
    done = make()(labelled)
    versions = Versions(tmp_path / "versions")
    assert done.version == "0002"
    assert versions.names() == ["0001", "0002"]
    assert versions.current() == "0001"
    assert "worse" in str(versions.report("0002").gate.reason)


def test_the_report_and_the_curve_hold_both_sides(make, labelled, quality, tmp_path):
    done = make(knowledge=KnowledgeSettings(own_cases=tmp_path))(labelled)
    assert done.share == 0.3, "no larger share is better for the team"
    assert [(each.share, each.loss) for each in done.shares] == [(share, 0.0) for share in SHARES]
    assert all(each.validation["dice_1"] == pytest.approx(0.8) for each in done.shares)
    assert done.reference.limit == 0.03
    assert done.reference.baseline_version == "random"
    assert done.reference.skipped == {"unread.nii.gz": "damaged"}
    assert done.gate.reason.endswith("; 30% of the new weights, CT reference cases 0.600 → 0.600")
    (row,) = learning_curve.read(tmp_path / "model")
    assert (row.share, row.reference_dice_1, row.reference_dice_5) == pytest.approx((0.3, 0.6, 0.6))


def test_new_adapters_are_published_whole_whatever_they_lose(make, labelled, quality, small_weights, tmp_path):
    fresh = replace(small_weights, version="untrained", signature="untrained")
    done = make(start=fresh)(labelled)
    assert done.gate.passes
    assert done.share == 1.0
    assert done.reference.limit is None
    data = open_weights(Versions(tmp_path / "versions").path("0001")).card.training.data
    assert [source.name for source in data] == ["annotated cases"], "nothing is rehearsed"


def nudge(model, run, out, *, progress=None, on_step=None, pause=None):
    """Train by moving one weight by 1."""
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    out.mkdir(parents=True, exist_ok=True)
    for name in ("log.csv", "curves.png"):
        (out / name).touch()
    return TrainReport(trained=[case.name for case in run.cases])


def first_weight(weights):
    return float(next(weights.model.parameters()).detach().view(-1)[0])


@pytest.fixture
def drift(monkeypatch, small_weights):
    """Says what the gate measures by how far the nudged weight is from where it began: the team gains, MR loses."""
    effect = {"MR": 0.02, "began": first_weight(small_weights)}

    def score(weights, cases, pause):
        moved = first_weight(weights) - effect["began"]
        return [
            scored(case.name, 0.8 - effect["MR"] * moved if case.name[:2] == "MR" else 0.5 + 0.02 * moved)
            for case in cases
        ]

    monkeypatch.setattr(update, "score", score)
    return effect


def test_an_update_that_harms_other_targets_is_interpolated_or_rejected(make, labelled, drift, tmp_path):
    drift["MR"] = 0.05
    done = make(train=nudge)(labelled)
    assert done.gate.passes
    assert done.share == 0.5
    published = open_weights(Versions(tmp_path / "versions").path(done.version))
    assert first_weight(published) == pytest.approx(drift["began"] + 0.5, abs=0.01)
    drift["MR"] = 0.5
    rejected = make(train=nudge, versions=Versions(tmp_path / "others"))(labelled)
    assert not rejected.gate.passes
    assert "lose more than 0.03 of Dice: MR reference cases 0.800 → 0.650" in rejected.gate.reason
    specialised = make(train=nudge, versions=Versions(tmp_path / "own"), knowledge=KnowledgeSettings(limit=None))
    assert "no limit for MR reference cases 0.800 → 0.300" in specialised(labelled).gate.reason
    assert Versions(tmp_path / "own").current() == "0001"


def test_ten_updates_in_a_row_do_not_drift(make, labelled, drift, small_weights, tmp_path):
    versions = Versions(tmp_path / "versions")
    for _ in range(10):
        current = versions.current()
        serving = open_weights(versions.path(current)) if current else small_weights
        make(serving=serving, train=nudge, versions=versions)(labelled)
    reports = [versions.report(version) for version in versions.names()]
    assert len(reports) == 10
    assert {report.reference.baseline_version for report in reports} == {"random"}
    kept = [report for report in reports if report.gate.passes]
    assert 0 < len(kept) < 10
    assert max(change.loss for report in kept for change in report.reference.changes) <= 0.03
    assert kept[-1].means["candidate"]["dice_1"] > 0.52, "and the team has gained"


@pytest.fixture
def unprompted(small_weights):
    """Weights that can segment without a click."""
    card = small_weights.card
    return replace(small_weights, card=card.model_copy(update={"capabilities": [*card.capabilities, "no_click"]}))


def test_an_update_rehearses_answers_without_a_click_where_its_cases_teach_none(
    make, labelled, quality, unprompted, tmp_path
):
    rehearsed: list[bool] = []

    def train(model, run, out, **more):
        rehearsed.extend(case.salient for case in run.cases if case.rehearsed)
        return fine_tune(model, run, out, **more)

    done = make(serving=unprompted, train=train)(labelled)
    assert done.gate.lost == ()
    assert "no_click" in open_weights(Versions(tmp_path / "versions").path(done.version)).card.capabilities
    salient = [replace(case, targets=tuple(replace(each, salient=True) for each in case.targets)) for case in labelled]
    done = make(serving=unprompted, train=train, versions=Versions(tmp_path / "others"))(salient)
    assert done.gate.lost == ()
    assert list(dict.fromkeys(rehearsed)) == [True, False]


def test_the_report_names_a_capability_that_is_lost(make, labelled, quality, unprompted):
    done = make(serving=unprompted, knowledge=KnowledgeSettings(limit=None))(labelled)
    assert done.gate.lost == ("no_click",), "nothing is rehearsed"
    why = "because no case has a target that is learned without a prompt"
    assert done.gate.reason.endswith(f"it can no longer segment without a click, {why}")


def test_the_learning_curve_grows(make, labelled, quality, tmp_path):
    make()(labelled[:4])
    quality["candidate"] = 0.6
    make()(labelled)
    lines = (tmp_path / "model" / "learning_curve.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("at,version,published,annotated")
    assert [line.split(",")[1:4] for line in lines[1:]] == [["0001", "1", "4"], ["0002", "0", "5"]]
    assert (tmp_path / "model" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_without_validation_cases_the_oldest_are_left_out_in_turn(make, labelled, quality, tmp_path):
    stages = []
    done = make(share=0, watch=lambda progress: stages.append(progress.stage))(labelled)
    assert done.validation == []
    assert len(done.left_out_one_by_one) == 3
    assert done.gate.differences["all"][0].cases == 3
    assert [stage for stage in dict.fromkeys(stages) if stage.startswith("leaving")] == [
        f"leaving out case_{index}" for index in range(3)
    ]
    assert done.gate.passes


def test_nothing_is_published_on_the_word_of_one_case(make, labelled, quality, tmp_path):
    done = make(share=0)(labelled[:1])
    assert not done.gate.passes
    assert "label at least two" in done.gate.reason
    assert Versions(tmp_path / "versions").current() is None


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        ({}, "no image has a final label yet"),
        ({"a": "the label is empty"}, "no label can be used; a: the label is empty$"),
        ({"a": "the label is empty", "b": "unreadable"}, "a: the label is empty, and 1 more"),
    ],
)
def test_nothing_to_train_on_says_why(make, labelled, quality, skipped, expected):
    with pytest.raises(VolumeError, match=expected):
        make()([], skipped)


class KilledError(Exception):
    pass


def assert_same_weights(one, other):
    """Check that the weights in two folders are bitwise equal."""
    states = [open_weights(folder).model.state_dict() for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def killed_at(stage, update_, labelled):
    """Continue a trained update in a process that is killed when it reaches a stage; a fork cannot train."""

    def watch(progress):
        if progress.stage.startswith(stage):
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        update_.watch = watch
        try:
            update_(labelled)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_after(stage, epochs=0):
    """Return what ends an update as a kill does, when it reaches a stage."""

    def watch(progress):
        if progress.stage.startswith(stage) and len(progress.epochs) == epochs:
            raise KilledError

    return watch


def test_a_killed_update_goes_on_with_its_cases_and_settings_after_new_labels(make, labelled, quality, tmp_path):
    with pytest.raises(KilledError):
        make(watch=die_after("training", epochs=1))(labelled[:4])
    seen: list[tuple[str, int]] = []
    waiting: list[str] = []
    more = QUICK.model_copy(update={"steps_per_epoch": 2})
    done = make(
        settings=more,
        watch=lambda progress: seen.append((progress.stage, len(progress.epochs))),
        on_begin=waiting.extend,
    )(labelled)
    assert list(dict.fromkeys(seen))[:2] == [("training", 0), ("training", 1)], "one epoch was left to do"
    assert waiting == ["case_4"]
    assert done.annotated == 4
    assert "the next training uses it" in done.skipped["case_4"]
    version = Versions(tmp_path / "versions").path("0001")
    assert open_weights(version).card.training.model_dump()["settings"]["steps_per_epoch"] == 1
    alone = make(versions=Versions(tmp_path / "others"), folder=tmp_path / "other", watch=lambda _: None)(labelled[:4])
    assert_same_weights(version, Versions(tmp_path / "others").path(alone.version))


@pytest.mark.parametrize(
    ("changes", "cases", "reason"),
    [
        ({"settings": QUICK.model_copy(update={"epochs": 3})}, slice(5), r"other settings are requested \(epochs\)"),
        ({}, slice(1, 5), "the label of case_0 can no longer be used"),
    ],
)
def test_an_update_that_starts_afresh_says_why(make, labelled, quality, changes, cases, reason, caplog):
    with pytest.raises(KilledError):
        make(watch=die_after("training", epochs=1))(labelled)
    seen = []
    make(watch=lambda progress: seen.append(len(progress.epochs)), **changes)(labelled[cases])
    assert 1 in seen, "the first epoch was trained again"
    assert re.search(f"The interrupted training starts afresh: {reason}", caplog.text)


@pytest.mark.parametrize("stage", ["comparing random, case 2", "comparing 50% candidate, case 2", "comparing 70%"])
def test_an_update_that_is_killed_while_it_compares_gives_the_same_version(make, labelled, quality, tmp_path, stage):
    expected = make(versions=Versions(tmp_path / "others"), folder=tmp_path / "other")(labelled)
    with pytest.raises(KilledError):
        make(watch=die_after("comparing"))(labelled)
    killed_at(stage, make(), labelled)
    versions = Versions(tmp_path / "versions")
    assert (versions.names(), versions.current()) == ([], None), "nothing is half-written"
    trained = []
    done = make(watch=lambda progress: trained.append(len(progress.epochs)))(labelled)
    assert 1 not in trained, "the training was not repeated"
    assert versions.names() == [versions.current()] == ["0001"]
    changing = {"at", "seconds", "epochs", "memory"}  # times, and the free memory
    assert done.model_dump(exclude=changing) == expected.model_dump(exclude=changing)
    assert_same_weights(versions.path("0001"), Versions(tmp_path / "others").path("0001"))


@pytest.mark.parametrize("back_again", [False, True])
def test_a_version_that_a_person_activates_during_the_update_stays_active(
    make, labelled, quality, tmp_path, back_again
):
    versions = Versions(tmp_path / "versions")
    first = make()(labelled).version
    serving = open_weights(versions.path(first))

    def activate(progress):
        if progress.stage.startswith("comparing") and versions.current() == first:
            versions.publish(INITIAL, "anna")
            if back_again:
                versions.publish(first, "anna")

    done = make(serving=serving, watch=activate)(labelled)
    assert done.gate.passes
    assert versions.current() == (first if back_again else None), "not the new version"
    assert versions.names() == [first, done.version], "which is kept"
    assert done.kept_active.by == "anna"
    assert done.gate.reason.endswith(
        f"not activated, since anna activated {done.kept_active.version} during the training"
    )
    assert versions.report(done.version) == done
    assert [row.published for row in learning_curve.read(tmp_path / "model")] == [True, False]


def test_waiting_for_clicks_takes_nothing_from_the_time_for_shares(make, labelled, quality):
    now = [0.0]

    def answer_clicks():
        now[0] += 100.0

    update_ = make(knowledge=KnowledgeSettings(seconds=50.0), pause=answer_clicks)
    update_._clock = WorkClock(answer_clicks, lambda: now[0])
    assert [each.share for each in update_(labelled).shares] == list(SHARES)


def test_a_killed_update_continues_no_training_on_a_case_that_is_now_left_out(make, labelled, quality):
    def die(progress):
        if progress.stage == "leaving out case_1":
            raise KilledError

    with pytest.raises(KilledError):
        make(share=0, watch=die)(labelled)
    seen = []
    make(share=0, watch=lambda progress: seen.append((progress.stage, len(progress.epochs))))(labelled[1:])
    assert ("leaving out case_1", 1) in seen, "the finished training without case_0 has seen case_1"


def test_a_run_of_other_settings_is_not_gone_on_with(make, labelled, quality, tmp_path):
    run = tmp_path / "model" / "run"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "checkpoint.pt").write_bytes(b"of another run")
    assert make()(labelled).version == "0001"


def test_the_scores_known_before_are_those_of_the_active_version(make, labelled, quality, tmp_path, monkeypatch):
    known = []
    judge = update.judge

    def watch(candidate, serving, known_before):
        known.append(sorted(known_before))
        return judge(candidate, serving, known_before)

    monkeypatch.setattr(update, "judge", lambda candidate, serving, known: watch(candidate, serving, known))
    versions = Versions(tmp_path / "versions")
    first = make()(labelled[:4])
    serving = open_weights(versions.path(first.version))
    versions.publish(INITIAL, "somebody, while the next training runs")
    second = make(serving=serving)(labelled)
    assert known == [[], sorted(each.case for each in first.scores.candidate)]
    assert second.reference.baseline_version == "random", "it is inherited from the version that training started from"


def test_the_gate_measures_for_real(make, labelled, tmp_path):
    """Random weights, hardly trained: whatever the verdict, it rests on sessions on the stored volumes."""
    done = make(knowledge=KnowledgeSettings(seconds=0))(labelled[:3])
    report = json.loads((tmp_path / "versions" / done.version / "report.json").read_text())
    assert len(report["scores"]["candidate"]) == len(report["scores"]["serving"]) >= 2
    assert len(report["reference"]["scores"]) == len(report["reference"]["baseline"]) == 3
    assert report["gate"]["passes"] == (Versions(tmp_path / "versions").current() == "0001")
