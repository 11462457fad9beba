"""A team that trains adapters on a SAM checkpoint: label, train, publish, serve, roll back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from sam3d_label.training import TrainSettings
from tests.helpers.app_helpers import CENTRE, ball, make_app, orthogonal, write_nifti
from tests.helpers.sam import stand_in_for_vit_b


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app on four volumes and a small SAM checkpoint."""
    checkpoint = stand_in_for_vit_b(monkeypatch, tmp_path / "sam_small.pth")
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in "abcd":
        write_nifti(studies / f"{name}.nii.gz")
    app = make_app(studies, {"preset": "vit_b", "sam_checkpoint": str(checkpoint), "reference_limit": "none"})
    quick = TrainSettings(epochs=1, steps_per_epoch=4, learning_rate=4e-3, warmup=0, workers=0, precision="fp32")
    monkeypatch.setitem(type(app.trainer).__call__.__globals__, "train_settings", lambda *_, **__: quick)
    return app


def click(app: Any) -> np.ndarray:
    answer = app.infer({"model": "sam3d", "image": "d", "foreground": [CENTRE]})
    return np.asanyarray(nib.Nifti1Image.from_filename(answer["file"]).dataobj)


def test_adapters_on_sam_are_trained_published_used_and_rolled_back(app: Any, tmp_path: Path) -> None:
    with pytest.raises(HTTPException, match="adapters are trained"):
        click(app)
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image((ball() > 140).astype(np.uint8), orthogonal()), label)
    for image in "abc":
        app.datastore().save_label(image, str(label), "final", {})
    report = app.train({"model": "sam3d", "device": "cpu"})
    assert report["gate"]["passes"], report["gate"]["reason"]
    assert app.versions.current() == "0001"
    card = json.loads((app.versions.path("0001") / "card.json").read_text())
    assert card["preset"] == "vit_b"
    assert len(card["base"]["sha256"]) == 64
    trained = {path.name for path in app.versions.path("0001").iterdir()}
    assert "trunk.safetensors" not in trained, "SAM's own weights are not copied into a version"

    first = click(app)
    assert first.shape == ball().shape
    second = app.train({"model": "sam3d", "device": "cpu"})
    assert second["started_from"] == "0001"
    if app.versions.current() != "0002":
        app.versions.publish("0002", "test")
    assert app.versions.rollback() == "0001"
    assert np.array_equal(click(app), first)
