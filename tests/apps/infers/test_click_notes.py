"""What the app writes to the click log, and what it keeps out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from lib.infers.click_notes import reason
from sam3d_label.errors import PromptError, Sam3dError, VolumeError
from sam3d_label.segmentation.segmenter import Segmenter
from sam3d_label.studies.click_log import LoggedPrompts, LoggedRequest, read_log
from tests.helpers.app_helpers import CENTRE, make_app, write_nifti

SECRET = "Doe_John_1970"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    write_nifti(tmp_path / "studies" / "mr.nii.gz")
    (tmp_path / "studies" / "text.nii.gz").write_bytes(b"no volume" * 100)
    return tmp_path


@pytest.fixture
def app(folder: Path, weights_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("monailabel.config.settings.MONAI_LABEL_SESSION_PATH", str(folder / "sessions"))
    monkeypatch.setattr("monailabel.config.settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    return make_app(folder / "studies", {"weights": str(weights_path), "labels": "tumor,cyst"})


def ask(app: Any, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any] = app.infer({"model": "sam3d", "image": "mr", **request})
    Path(answer["file"]).unlink()
    return answer


def refused(app: Any, **request: Any) -> None:
    with pytest.raises(HTTPException):
        app.infer({"model": "sam3d", "image": "mr", **request})


def logged(folder: Path) -> list[LoggedRequest]:
    return read_log(folder / "studies-model").requests


def test_a_click_is_logged_with_its_answer(app: Any, folder: Path, weights_path: Path) -> None:
    answer = ask(app, foreground=[CENTRE], background=[[1, 1, 1]], roi=[20, 10, 18, 8, -3, 40], label="cyst")
    (request,) = logged(folder)
    assert (request.image, request.model, request.label, request.result) == ("mr", "sam3d", "cyst", "mask")
    assert request.prompts == LoggedPrompts(
        inside=((15, 13, 6),), outside=((1, 1, 1),), boxes=((10, 20, 8, 18, -3, 40),)
    )
    assert request.version == answer["params"]["model_version"] == "small-1"
    assert request.seconds > 0
    assert request.error is None
    segmenter = Segmenter.open(folder / "studies" / "mr.nii.gz", str(weights_path))
    ask(app, foreground=[CENTRE])
    expected = segmenter.segment(logged(folder)[1].prompts.prompts())
    assert (logged(folder)[1].mask, logged(folder)[1].voxels) == (expected.digest, int(expected.mask.sum()))


def test_requests_without_clicks_and_for_uncertainty_are_logged_as_such(app: Any, folder: Path) -> None:
    ask(app, model="sam3d_auto")
    ask(app, foreground=[CENTRE], result="uncertainty")
    auto, unsure = logged(folder)
    assert (auto.model, auto.prompts, auto.mask is None) == ("sam3d_auto", LoggedPrompts(), False)
    assert (unsure.result, unsure.mask, unsure.version) == ("uncertainty", None, "small-1")


def test_a_chosen_candidate_of_another_version_is_not_logged(app: Any, folder: Path) -> None:
    ask(app, foreground=[CENTRE], chosen_candidate={"number": 0, "foreground": [CENTRE], "version": SECRET})
    (request,) = logged(folder)
    assert request.prompts == LoggedPrompts(inside=((15, 13, 6),))
    refused(app, foreground=[[30, 0, 0]], chosen_candidate={"number": 0, "foreground": [CENTRE], "version": SECRET})
    assert SECRET not in "".join(each.model_dump_json() for each in logged(folder))


def test_a_batch_is_logged_image_by_image(app: Any, folder: Path) -> None:
    app.batch_infer({"model": "sam3d_auto", "images": ["mr", "text"], "max_workers": 1})
    assert [(request.image, request.error is None) for request in logged(folder)] == [("mr", True), ("text", False)]


def test_what_is_refused_is_logged_with_the_reason(app: Any, folder: Path) -> None:
    refused(app, foreground=[[30, 0, 0]])
    refused(app, foreground="nonsense")
    refused(app, image="text", foreground=[CENTRE])
    outside, unreadable, broken = logged(folder)
    assert outside.prompts == LoggedPrompts(inside=((30, 0, 0),))
    assert "PromptError: click (30, 0, 0) is outside the volume" in str(outside.error)
    assert unreadable.prompts is None
    assert (broken.image, broken.error.startswith("VolumeError: the image")) == ("text", True)
    assert not any(request.mask or request.version for request in logged(folder))


def test_nothing_that_a_client_wrote_gets_into_the_log(app: Any, folder: Path) -> None:
    for wrong in (
        {"image": SECRET},
        {"image": f"/data/{SECRET}.nii.gz"},
        {"model": SECRET},
        {"device": SECRET, "foreground": [CENTRE]},
        {"foreground": SECRET},
        {"foreground": [CENTRE], "label_prompt": SECRET},
        {"session": {"name": SECRET}},
    ):
        refused(app, **wrong)
    ask(app, foreground=[CENTRE], label=SECRET, client_id=SECRET, session=SECRET)
    text = "".join(file.read_text(encoding="utf-8") for file in (folder / "studies-model/clicks").iterdir())
    assert len(logged(folder)) == 8
    assert SECRET not in text
    assert str(folder) not in text
    assert [request.image for request in logged(folder)][:2] == [None, None]
    assert logged(folder)[-1].label is None


@pytest.mark.parametrize("broken", [False, True])
def test_a_session_is_logged_under_a_hash(app: Any, folder: Path, broken: bool) -> None:
    upload = write_nifti(folder / f"{SECRET}.nii.gz")
    session, info = app.sessions().add_session(str(upload))
    if broken:
        Path(info.image).write_bytes(b"no volume" * 100)
    for _ in range(2):
        request = {"image": SECRET, "session": {"name": session}, "foreground": [CENTRE]}
        refused(app, **request) if broken else ask(app, **request)
    one, other = logged(folder)
    assert one.image == other.image
    assert one.image.startswith("session-")
    assert session not in str(one.image)
    assert (one.error is None) is not broken
    assert SECRET not in one.model_dump_json()


def test_the_log_can_be_switched_off(folder: Path, weights_path: Path) -> None:
    app = make_app(folder / "studies", {"weights": str(weights_path), "click_log": "off"})
    ask(app, foreground=[CENTRE])
    assert not (folder / "studies-model" / "clicks").exists()


def test_a_click_is_answered_where_the_log_cannot_be_written(app: Any, folder: Path) -> None:
    (folder / "studies-model").mkdir(exist_ok=True)
    (folder / "studies-model" / "clicks").write_text("in the way", encoding="utf-8")
    assert ask(app, foreground=[CENTRE])["params"]["model_version"] == "small-1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (VolumeError("/data/John Doe/a b.nii.gz has 2 dimensions"), "VolumeError: the image has 2 dimensions"),
        (VolumeError("Image a b.nii.gz is flat"), "VolumeError: Image the image is flat"),
        (PromptError("label: 'John' and \"O'Neill\" are unknown"), "PromptError: label: … and … are unknown"),
        (Sam3dError("see /data/John Doe/other"), "Sam3dError"),
        (HTTPException(404, "There is no image 'John'"), "HTTPException: There is no image …"),
        (Sam3dError("\udc80" + "x" * 999), "Sam3dError: ?" + "x" * 187),
    ],
)
def test_reasons_are_the_apps_own_words(error: Exception, expected: str) -> None:
    assert reason(error, "/data/John Doe/a b.nii.gz") == expected
