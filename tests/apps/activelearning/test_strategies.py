"""Strategies that choose by what the model makes of the images, and the scoring that tells them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.activelearning.strategies import (
    DiversityStrategy,
    ScoreFile,
    UncertaintyStrategy,
    VolumeScoring,
    is_handed_out,
)
from sam3d_label.active_learning.score import ImageScore
from tests.helpers.app_helpers import ball, make_app, write_nifti


@pytest.fixture
def app(tmp_path: Path, weights_path: Path) -> Any:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in "abc":
        write_nifti(folder / f"{name}.nii.gz")
    write_nifti(folder / "nan.nii.gz", np.full(ball().shape, np.nan, np.float32))
    return make_app(folder, {"weights": str(weights_path)})


@pytest.fixture
def scores(app: Any) -> ScoreFile:
    """Those of a, b and c, by hand."""
    for image, doubt, vector in (("a", 0.2, [0.0, 0.0]), ("b", 0.9, [1.0, 0.0]), ("c", 0.5, [9.0, 9.0])):
        app.scores.add(image, ImageScore(version="small-1", doubt=doubt, click=(1, 2, 3), vector=vector))
    return app.scores


def test_every_image_is_scored_once_for_a_version(app: Any) -> None:
    done = app.scoring({"method": "sam3d"})
    assert done["scored"] == ["a", "b", "c"]
    assert "NaN" in done["failed"]["nan"]
    score = app.scores.read()["a"]
    assert 0 <= score.doubt <= 1
    assert score.version == "small-1"
    assert app.datastore().get_image_info("a")["sam3d"] == {
        **{"version": score.version, "doubt": score.doubt, "click": list(score.click)}
    }
    assert app.scoring({"method": "sam3d"})["scored"] == []


def test_a_scoring_that_pauses_does_not_hold_an_image(app: Any) -> None:
    class Idle:
        def __init__(self) -> None:
            self.waits, self.lent = 0, 0

        def wait(self) -> None:
            self.waits += 1
            if self.waits == 20:  # between two layers of the first image
                with app.segmenters.borrow(app.datastore().get_image_uri("a"), "cpu"):
                    self.lent += 1

    idle = Idle()
    done = VolumeScoring(app.serving, app.segmenters, app.scores, idle)({}, app.datastore())  # type: ignore[arg-type]
    assert (done["scored"], idle.lent) == (["a", "b", "c"], 1)


def test_an_image_that_fails_for_any_reason_does_not_end_the_scoring(app: Any) -> None:
    class Failing:
        def open(self, path: str, device: str) -> Any:
            if path.endswith("a.nii.gz"):
                raise RuntimeError("out of memory")
            if path.endswith("b.nii.gz"):
                app.datastore().remove_image("b")
                raise FileNotFoundError(path)
            return app.segmenters.open(path, device)

    scoring = VolumeScoring(app.serving, Failing(), app.scores, app.idle)  # type: ignore[arg-type]
    done = scoring({}, app.datastore())
    assert done["scored"] == ["c"]
    failed = done["failed"]
    assert isinstance(failed, dict)
    assert failed["a"] == "RuntimeError: out of memory"
    assert failed.keys() == {"a", "b", "nan"}


def test_the_image_of_the_most_doubt_is_next_with_the_reason(app: Any, scores: ScoreFile) -> None:
    known = scores.read()
    image, why = UncertaintyStrategy(scores).choose(known, [known["a"]])
    assert image == "b"
    assert why == "doubt 0.900 under version small-1, the highest of 3 unlabelled images"


@pytest.mark.parametrize("strategy", ["uncertainty", "diverse"])
def test_the_most_usual_image_begins(app: Any, scores: ScoreFile, strategy: str) -> None:
    scores.add("b", scores.read()["b"].model_copy(update={"doubt": 0.1}))
    chosen = app.next_sample({"strategy": strategy})
    assert chosen["id"] == "b"
    assert chosen["why"] == "the most typical of 3 unlabelled images, to begin with"


def test_the_most_different_follows(app: Any, scores: ScoreFile) -> None:
    known = scores.read()
    image, why = DiversityStrategy(scores).choose(known, [known["a"]])
    assert image == "c"
    assert "distance" in why


def test_what_somebody_got_lately_is_not_given_again(app: Any, scores: ScoreFile) -> None:
    store = app.datastore()
    store.update_image_info("b", {"strategy": {"first": {"ts": int(time.time()), "client_id": "user-1"}}})
    assert is_handed_out(store, "b")
    assert UncertaintyStrategy(scores)({}, store)["id"] in ("a", "c")  # type: ignore[index]
    store.update_image_info("b", {"strategy": {"first": {"ts": int(time.time()) - 4000}}})
    assert UncertaintyStrategy(scores)({}, store)["id"] == "b"  # type: ignore[index]
    for image in ("a", "b", "c", "nan"):
        store.update_image_info(image, {"strategy": {"first": {"ts": int(time.time())}}})
    assert UncertaintyStrategy(scores)({}, store)["id"] == "b"  # type: ignore[index]


def test_without_scores_the_choice_is_random_and_reports_it(app: Any) -> None:
    chosen = app.next_sample({"strategy": "uncertainty"})
    assert chosen["id"] in ("a", "b", "c", "nan")
    assert "no image is scored yet" in chosen["why"]


def test_ohif_always_requests_random_and_may_get_another(app: Any, weights_path: Path, tmp_path: Path) -> None:
    conf = {"weights": str(weights_path), "next_sample": "uncertainty"}
    other = make_app(tmp_path / "studies", conf)
    assert "highest uncertainty" in other.info()["strategies"]["random"]["description"]
    assert set(app.info()["strategies"]) == {"random", "first", "uncertainty", "diverse"}
    assert set(app.info()["scoring"]) == {"sam3d"}
