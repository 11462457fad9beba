"""The whole loop on a CPU with the shipped weights: labels, a version that serves, a bad batch kept out, roll-back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest

from tests.helpers.app_helpers import serve, wait

pytestmark = pytest.mark.e2e

CASES = 10
SECONDS = 25 * 60


@pytest.fixture
def hippocampi(real_data: Path) -> list[Path]:
    return sorted((real_data / "hippocampus" / "images").glob("*.nii.gz"))[:CASES]


class Annotators:
    """Uploads volumes and labels, as clients do, and looks at the state.

    Args:
        url: The server's address.
        folder: Where files are put before they are sent.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.http = httpx.Client(base_url=url, timeout=120)
        self.folder = folder

    def upload(self, image: Path) -> None:
        with image.open("rb") as file:
            answer = self.http.put("/datastore/", params={"image": name(image)}, files={"file": (image.name, file)})
        assert answer.status_code == 200, answer.text

    def label(self, image: Path, values: np.ndarray) -> None:
        path = self.folder / image.name
        nib.save(nib.Nifti1Image(values.astype(np.uint8), nib.Nifti1Image.from_filename(image).affine), path)
        info = {"label_info": [{"name": "hippocampus", "idx": 1}], "client_id": "user-test"}
        with path.open("rb") as file:
            answer = self.http.put(
                "/datastore/label",
                params={"image": name(image), "tag": "final"},
                data={"params": json.dumps(info)},
                files={"label": (image.name, file)},
            )
        assert answer.status_code == 200, answer.text

    def state(self) -> dict[str, Any]:
        answer = self.http.get("/sam3d/state")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def version(self, number: str) -> dict[str, Any] | None:
        """What the page says of a version, once it is there and its training has ended."""
        state = self.state()
        assert "error" not in state["training"]["stats"], state["training"]["stats"]
        ready = [each for each in state["versions"] if each["version"] == number]
        return ready[0] if ready and state["training"]["status"] == "DONE" else None

    def served(self, image: Path) -> str:
        """Version of the weights that answer a click."""
        voxel = [int(size) // 2 for size in nib.Nifti1Image.from_filename(image).shape]
        params = {"foreground": [voxel], "background": []}
        answer = self.http.post(
            "/infer/sam3d", params={"image": name(image), "output": "json"}, data={"params": json.dumps(params)}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_version"])


def name(image: Path) -> str:
    return image.name.removesuffix(".nii.gz")


def truth(image: Path) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(image.parents[1] / "labels" / image.name).dataobj) > 0


def poisoned(image: Path, shift: int) -> np.ndarray:
    """What is left of a truth when somebody mixed up the volumes: elsewhere, and mirrored."""
    return np.roll(truth(image)[::-1], (shift, -shift, shift), axis=(0, 1, 2))


def test_the_loop(hippocampi: list[Path], tmp_path: Path) -> None:
    arguments = ["--studies", str(tmp_path / "studies")]
    options = {"labels": "hippocampus", "auto_train_every": "5", "train_epochs": "2", "reference_seconds": "120"}
    for key, value in options.items():
        arguments += ["--conf", key, value]
    (tmp_path / "studies").mkdir()
    with serve(arguments, tmp_path) as url:
        team = Annotators(url, tmp_path)
        assert team.state()["serving"]["version"] == "shipped"

        for image in hippocampi[:5]:
            team.upload(image)
            assert team.state()["versions"] == []
            team.label(image, truth(image))
        first = wait(lambda: team.version("0001"), "no training started by itself at the fifth label", SECONDS)
        assert first["passes"], first["reason"]
        assert first["annotated"] == 5
        assert team.served(hippocampi[0]) == "0001"

        for number, image in enumerate(hippocampi[5:], start=1):
            team.upload(image)
            team.label(image, poisoned(image, 4 * number))
        second = wait(lambda: team.version("0002"), "no training started by itself at the tenth label", SECONDS)
        assert not second["passes"], second["reason"]
        assert team.served(hippocampi[0]) == "0001"
        state = team.state()
        assert [row["published"] for row in state["curve"]] == ["1", "0"]
        assert sum(state["ledger"]["counts"].values()) == CASES

        assert team.http.post("/sam3d/rollback", json={}).json() == {"version": "shipped"}
        assert team.served(hippocampi[0]).startswith("tiny")
        assert team.http.post("/sam3d/rollback", json={"version": "0001"}).json() == {"version": "0001"}
        assert team.served(hippocampi[0]) == "0001"
