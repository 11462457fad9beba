"""A server takes an unpacked archive with its images as studies and as model folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.datastores.studies import SafeDatastore
from lib.trainers.cases import labelled_cases
from sam3d_label.archive.pack import export
from sam3d_label.archive.unpack import unpack
from sam3d_label.model_update.versions import Versions
from tests.helpers.app_helpers import SHAPE, make_app, write_nifti


@pytest.fixture
def team(tmp_path: Path, weights_path: Path) -> Path:
    """studies/ with a label of two structures as Slicer saves it, and model/ with a version that serves."""
    store = SafeDatastore(str(tmp_path / "studies"), auto_reload=False)
    write_nifti(tmp_path / "studies" / "mr.nii.gz")
    store.refresh()
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[3:9, 3:9, 3:9], drawn[20:25, 9:15, 3:9] = 1, 2
    info = {"client_id": "user-doe", "label_info": [{"name": "cyst", "idx": 1}, {"name": "tumor", "idx": 4}]}
    store.save_label("mr", str(write_nifti(tmp_path / "drawn.nii.gz", drawn)), "final", info)
    versions = Versions(tmp_path / "model" / "versions")
    with versions.new_version() as (_, folder):
        for name in ("adapter.safetensors", "card.json"):
            shutil.copy(weights_path.with_name(name), folder)
    versions.publish("0001", "gate")
    return tmp_path


def test_it_serves_the_version_and_knows_the_labels(team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monailabel.config.settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    export(team / "studies", team / "out.zip", model_dir=team / "model")
    unpack(team / "out.zip", team / "back")
    shutil.copy(team / "studies" / "mr.nii.gz", team / "back")
    app = make_app(team / "back", {"labels": "tumor,cyst", "model_dir": str(team / "back")})
    (case,), skipped = labelled_cases(app.datastore(), ["tumor", "cyst"])
    assert skipped == {}
    assert {target.target: target.value for target in case.targets} == {"cyst": 1, "tumor": 2}
    answer = app.infer({"model": "sam3d", "image": "mr", "foreground": [[15, 13, 6]]})
    Path(answer["file"]).unlink()
    assert answer["params"]["model_version"] == "small-1"
