"""From labels to a version that serves, or is kept aside."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from sam3d_label.errors import VolumeError
from sam3d_label.model_update import split_ledger, update
from sam3d_label.model_update.report import CaseScore
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.update import LabelledCase, Update
from sam3d_label.model_update.versions import Versions
from sam3d_label.training import TrainSettings
from sam3d_label.training.dataset import TrainingCase
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
    """Says what the gate measures, by the version of the weights."""
    told = {"candidate": 0.8, "random": 0.7}

    def score(weights, cases, pause):
        return [scored(case.name, told.get(weights.version, told["candidate"])) for case in cases]

    monkeypatch.setattr(update, "score", score)
    return told


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


def test_a_worse_version_is_kept_aside(make, labelled, quality, tmp_path):
    make()(labelled)
    quality["candidate"] = 0.5
    done = make()(labelled)
    versions = Versions(tmp_path / "versions")
    assert done.version == "0002"
    assert versions.names() == ["0001", "0002"]
    assert versions.current() == "0001"
    assert "worse" in str(versions.report("0002").gate.reason)


def test_the_report_names_a_capability_that_is_lost(make, labelled, quality, tmp_path, small_weights):
    known = small_weights.card.model_copy(update={"capabilities": [*small_weights.card.capabilities, "no_click"]})
    serving = replace(small_weights, card=known)
    done = make(serving=serving)(labelled)
    assert done.gate.lost == ("no_click",), "no target of these cases can be found without a prompt"
    assert done.gate.reason.endswith("it can no longer segment without a click")
    alone = [replace(case, targets=tuple(replace(each, salient=True) for each in case.targets)) for case in labelled]
    assert make(serving=serving, versions=Versions(tmp_path / "others"))(alone).gate.lost == ()


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
    ("skipped", "told"),
    [
        ({}, "no image has a final label yet"),
        ({"a": "the label is empty"}, "no label can be used; a: the label is empty$"),
        ({"a": "the label is empty", "b": "unreadable"}, "a: the label is empty, and 1 more"),
    ],
)
def test_nothing_to_train_on_says_why(make, labelled, quality, skipped, told):
    with pytest.raises(VolumeError, match=told):
        make()([], skipped)


class KilledError(Exception):
    pass


def test_a_killed_update_goes_on_with_its_last_epoch_and_with_new_labels(make, labelled, quality, tmp_path):
    def die(progress):
        if len(progress.epochs) == 1:
            raise KilledError

    with pytest.raises(KilledError):
        make(watch=die)(labelled[:4])
    seen = []
    make(watch=lambda progress: seen.append((progress.stage, len(progress.epochs))))(labelled)
    assert seen[:2] == [("training", 0), ("training", 1)], "one epoch was left to do"
    report = Versions(tmp_path / "versions").report("0001")
    assert len(report.epochs) == QUICK.epochs
    assert report.annotated == 5


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
    first = make()(labelled[:4])
    make()(labelled)
    assert known == [[], sorted(each.case for each in first.scores.candidate)]


def test_the_gate_measures_for_real(make, labelled, tmp_path):
    """Random weights, hardly trained: whatever the verdict, it rests on sessions on the stored volumes."""
    done = make()(labelled[:3])
    report = json.loads((tmp_path / "versions" / done.version / "report.json").read_text())
    assert len(report["scores"]["candidate"]) == len(report["scores"]["serving"]) >= 2
    assert report["gate"]["passes"] == (Versions(tmp_path / "versions").current() == "0001")
