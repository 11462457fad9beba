"""The trainer task: what it takes, what it tells, and what it does with saved labels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from lib.configs.active_weights import ActiveWeights, UntrainedError
from lib.configs.app_config import AppConfig
from lib.datastores.json_files import read_json
from lib.trainers import auto_train
from lib.trainers.auto_train import AutoTrain
from lib.trainers.sam3d import parse_train, train_settings, trainer
from lib.trainers.stats import STARTED, StatsFile
from sam3d_label.errors import Sam3dError
from sam3d_label.model_update.progress import UpdateProgress
from sam3d_label.model_update.update import Update
from sam3d_label.model_update.versions import Versions
from sam3d_label.training import TrainSettings
from sam3d_label.training.busy import BusySign
from sam3d_label.training.fine_tune import fine_tune
from sam3d_label.weights import Weights
from tests.helpers.app_helpers import ball, make_app, orthogonal, write_nifti


def test_the_keys_of_monai_label_mean_what_they_mean_there(small_weights: Weights) -> None:
    asked = parse_train(
        {
            "model": "sam3d",
            "name": "train_01",
            "pretrained": True,
            "device": ["cpu"],
            "max_epochs": 7,
            "early_stop_patience": 3,
            "val_split": 0.3,
            "train_batch_size": 2,
            "val_batch_size": 1,
            "multi_gpu": True,
            "gpus": "all",
            "dataset": "CacheDataset",
            "dataloader": "DataLoader",
            "tracking": "None",
            "tracking_uri": "",
            "tracking_experiment_name": "",
            "client_id": "user-xyz",
            "local_rank": 0,
        }
    )
    settings = train_settings(asked, targets=6, epochs=20, card=small_weights.card)
    assert (settings.epochs, settings.patience, settings.batch, settings.steps_per_epoch) == (7, 3, 2, 24)
    defaults = train_settings(parse_train({}), targets=1, epochs=20, card=small_weights.card)
    assert (defaults.epochs, defaults.patience, defaults.steps_per_epoch) == (20, None, 10)
    assert defaults.homogeneous
    assert defaults.inference_spacings == (1.0, 0.5, 2.0)
    assert trainer(asked, "cpu", Path()) is fine_tune


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"epochs": 3}, "epochs: no such key; there are name, pretrained"),
        ({"max_epochs": 0}, "max_epochs: .*not 0"),
        ({"max_epochs": "many"}, "max_epochs: .*not 'many'"),
        ({"dataset": "SmartCacheDataset"}, "dataset: Input should be 'CacheDataset'"),
        ({"tracking": "mlflow"}, "tracking: mlflow is not offered here"),
        ({"val_split": 1}, "val_split"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused(request_: dict[str, Any], expected: str) -> None:
    with pytest.raises(Sam3dError, match=expected):
        parse_train(request_)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in "abcd":
        write_nifti(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def app(studies: Path, weights_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app with small weights, which trains a single step an epoch."""
    quick = TrainSettings(epochs=2, steps_per_epoch=1, warmup=0, workers=0, precision="fp32")
    conf = {"weights": str(weights_path), "reference_limit": "none", "reference_seconds": "0"}
    app = make_app(studies, conf)
    monkeypatch.setitem(type(app.trainer).__call__.__globals__, "train_settings", lambda *_, **__: quick)
    return app


@pytest.fixture
def label(app: Any, tmp_path: Path) -> Any:
    """Saves the ball of a volume as its label."""

    def label(*images: str) -> None:
        for image in images:
            path = tmp_path / "upload.nii.gz"
            nib.save(nib.Nifti1Image((ball() > 140).astype(np.uint8), orthogonal()), path)
            app.datastore().save_label(image, str(path), "final", {})

    return label


class TestTraining:
    def test_saved_labels_make_a_version_and_its_stats(self, app: Any, label: Any, studies: Path) -> None:
        label("a", "b", "c")
        report = app.train({"model": "sam3d", "max_epochs": 2, "device": "cpu"})
        assert report["version"] == "0001"
        assert report["annotated"] == 3
        stats = app.info()["train_stats"]["sam3d"]
        assert (stats["epoch"], stats["total_epochs"], stats["stage"]) == (2, 2, "done")
        assert stats["version"] == "0001"
        assert len(stats["losses"]) == 2
        assert [each["share"] for each in stats["shares"]] == [report["share"]] == [1.0]
        assert report["reference"]["limit"] is None, "as --conf chooses"
        ledger = json.loads((studies / ".sam3d" / "ledger.json").read_text())
        assert sorted(ledger["cases"]) == ["a", "b", "c"]
        assert (app.model_dir / "learning_curve.csv").is_file()

    def test_the_trainer_is_listed_with_its_keys(self, app: Any) -> None:
        trainer = app.info()["trainers"]["sam3d"]
        assert trainer["config"]["max_epochs"] == 20
        assert trainer["config"]["dataset"] == ["CacheDataset"]
        assert trainer["labels"] == ["tumor"]

    def test_no_viewer_shows_a_training_as_done_before_it_is(self, app: Any, label: Any, monkeypatch: Any) -> None:
        def shown() -> tuple[int, int]:
            stats = app.info()["train_stats"]["sam3d"]
            assert "total_time" not in stats, "viewers take a training with a total time for one that is over"
            return stats["epoch"], stats["total_epochs"]

        assert shown() == (0, 20)
        label("a", "b")
        app.train({"model": "sam3d", "max_epochs": 1, "device": "cpu"})
        seen: list[tuple[int, int]] = []

        def look(*_: object) -> None:
            seen.append(shown())
            raise Sam3dError("enough was seen")

        monkeypatch.setattr(Update, "__call__", look)
        with pytest.raises(HTTPException):
            app.train({"model": "sam3d", "max_epochs": 3, "device": "cpu"})
        assert seen == [(0, 3)]

    def test_missing_labels_are_reported_also_in_the_stats(self, app: Any) -> None:
        with pytest.raises(HTTPException, match="no image has a final label yet") as caught:
            app.train({"model": "sam3d"})
        assert caught.value.status_code == 400
        assert "no image has a final label yet" in app.info()["train_stats"]["sam3d"]["error"]

    def test_a_new_version_is_active_from_the_next_click(self, app: Any, label: Any) -> None:
        click = {"model": "sam3d", "image": "a", "foreground": [[15, 13, 6]]}
        before = app.infer(dict(click))["params"]["model_version"]
        label("a", "b", "c")
        version = app.train({"model": "sam3d"})["version"]
        app.versions.publish(version, "test")
        assert app.infer(dict(click))["params"]["model_version"] == version
        app.versions.rollback()
        assert app.infer(dict(click))["params"]["model_version"] == before == "small-1"

    def test_slicer_can_show_its_progress_at_any_time(self, tmp_path: Path) -> None:
        stats = StatsFile(tmp_path / "stats.json", "train_01", 5)
        for progress, total in (
            (UpdateProgress("opening"), 5),
            (UpdateProgress("training", epochs_in_all=7), 7),
            (UpdateProgress("comparing"), 7),
        ):
            stats.show(progress)
            told = read_json(stats.path)
            assert (told["epoch"], told["total_epochs"]) == (0, total)
            assert "total_time" not in told, "Slicer takes a training with a total time for one that is over"

    def test_new_adapters_are_refused_where_there_is_no_trunk_for_them(self, app: Any, label: Any) -> None:
        label("a", "b")
        with pytest.raises(HTTPException, match="there is no preset 'custom'"):
            app.train({"model": "sam3d", "pretrained": False})


class TestServing:
    def test_a_version_that_cannot_be_read_does_not_stop_the_one_in_memory(
        self, weights_path: Path, tmp_path: Path, caplog: Any
    ) -> None:
        versions = Versions(tmp_path / "versions")
        serving = ActiveWeights(AppConfig(weights=str(weights_path)), versions)
        assert serving().version == "small-1"
        with versions.new_version() as (version, folder):
            for name in ("adapter.safetensors", "card.json"):
                (folder / name).write_bytes((weights_path.parent / name).read_bytes()[:50])
        versions.publish(version, "test")
        assert serving().version == "small-1"
        assert "Version 0001 cannot be used, small-1 stays active" in caplog.text

    def test_untrained_weights_can_be_trained_and_not_clicked(self, untrained_path: Path, tmp_path: Path) -> None:
        serving = ActiveWeights(AppConfig(weights=str(untrained_path)), Versions(tmp_path))
        assert serving.load().card.capabilities == []
        with pytest.raises(UntrainedError, match="never trained on clicks"):
            serving()


class TestAutomaticTraining:
    @pytest.fixture
    def training(self) -> dict[str, bool]:
        """Whether a training is queued or running."""
        return {"is": False}

    @pytest.fixture
    def auto(self, app: Any, training: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(auto_train, "QUIET", -1.0)

        def auto(**conf: Any) -> AutoTrain:
            return AutoTrain(AppConfig(**conf), app.model_dir, app.datastore(), lambda: training["is"])

        return auto

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return []

    def test_it_starts_at_the_nth_label(self, auto: Any, label: Any, started: list[str]) -> None:
        waiting = auto(auto_train_every=3)
        label("a", "b")
        assert not waiting.tick(lambda: started.append("training"))
        label("c")
        assert waiting.tick(lambda: started.append("training"))
        assert started == ["training"]

    def test_a_training_counts_whatever_started_it(self, auto: Any, app: Any, label: Any) -> None:
        label("a", "b", "c")
        app.train({"model": "sam3d"})
        assert auto(auto_train_every=1).due() == "", "also after a restart"
        label("d")
        assert auto(auto_train_every=1).due() == "1 labels were saved since the last one"

    def test_a_label_saved_again_counts_again(self, auto: Any, app: Any, label: Any) -> None:
        label("a", "b")
        app.train({"model": "sam3d"})
        app.datastore().update_label_info("a", "final", {"ts": int(time.time()) - 100})
        assert "1 labels" in auto(auto_train_every=1).due()

    def test_it_is_off_without_a_key(self, auto: Any, label: Any, started: list[str]) -> None:
        label("a", "b", "c")
        assert not auto().tick(lambda: started.append("training"))

    def test_one_at_a_time(self, auto: Any, label: Any, started: list[str], training: dict[str, bool]) -> None:
        label("a")
        for running, expected in ((True, False), (False, True)):
            training["is"] = running
            assert auto(auto_train_every=1).tick(lambda: started.append("training")) == expected

    def test_what_goes_wrong_is_logged_and_tried_again(
        self, auto: Any, label: Any, started: list[str], caplog: Any
    ) -> None:
        def broken() -> None:
            raise OSError("no space left on device")

        label("a")
        waiting = auto(auto_train_every=1)
        assert not waiting.tick(broken)
        assert "no space left" in caplog.text
        assert waiting.tick(lambda: started.append("training"))

    def test_slicer_may_start_its_own_first(self, auto: Any, label: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        label("a")
        monkeypatch.setattr(auto_train, "QUIET", 20.0)
        assert auto(auto_train_every=1).due() == ""

    def test_the_time_of_day(self, auto: Any, app: Any, label: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        label("a")
        later, earlier = time.time() + 60, time.time() - 60
        monkeypatch.setattr(auto_train, "last_time", lambda _: earlier)
        assert auto(auto_train_at="02:00").due() == "", "the label was saved after two o'clock"
        monkeypatch.setattr(auto_train, "last_time", lambda _: later)
        assert "it was 02:00" in auto(auto_train_at="02:00").due()
        app.model_dir.mkdir(exist_ok=True)
        (app.model_dir / STARTED).write_text(json.dumps({"at": later + 1, "labels": {}}))
        assert auto(auto_train_at="02:00").due() == "", "it has trained since"

    def test_one_that_was_cut_off_goes_on_after_a_restart(self, auto: Any, app: Any, started: list[str]) -> None:
        (app.model_dir / "run").mkdir(parents=True)
        (app.model_dir / "run" / "run.json").write_text("{}")
        again = auto(auto_train_every=5)
        assert again.tick(lambda: started.append("training"))
        assert not again.tick(lambda: started.append("training"))


def test_a_training_waits_for_clicks(tmp_path: Path) -> None:
    sign = BusySign(tmp_path)
    sign.wait()
    with sign.show():
        assert BusySign(tmp_path).seconds_left() > 10
    assert 0 < BusySign(tmp_path).seconds_left() <= 1
    began = time.monotonic()
    BusySign(tmp_path).wait()
    assert 0.5 < time.monotonic() - began < 5
