"""The annotator who knows the truth: what is sent to the server, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import annotate
import httpx
import nibabel as nib
import numpy as np
import pytest

from sam3d_label.errors import VolumeError

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (12, 10, 8)


class Server:
    """Answers as many voxels around the clicks inside as there are clicks, and keeps what it got."""

    def __init__(self, folder: Path, status: int = 200) -> None:
        self.folder, self.status = folder, status
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.saved: list[tuple[dict[str, str], bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.saved.append((dict(request.url.params), request.read()))
            return httpx.Response(self.status, json={})
        params = json.loads(parse_qs(request.read().decode())["params"][0])
        self.asked.append((dict(request.url.params), params))
        mask = np.zeros(SHAPE, np.uint8)
        for i, j, k in params["foreground"]:
            mask[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 1
        nib.save(nib.Nifti1Image(mask, np.eye(4)), self.folder / "answer.nii.gz")
        return httpx.Response(self.status, content=(self.folder / "answer.nii.gz").read_bytes())


@pytest.fixture
def label(tmp_path: Path) -> Path:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:9, 2:7, 2:6], drawn[9, 9, 7] = 2, 1
    nib.save(nib.Nifti1Image(drawn, np.eye(4)), tmp_path / "case 1.nii.gz")
    return tmp_path / "case 1.nii.gz"


def annotator(server: Server, value: int | None = 2) -> annotate.Annotator:
    client = httpx.Client(transport=httpx.MockTransport(server), base_url="http://server")
    return annotate.Annotator(client, "cyst", value)


def test_it_sends_all_clicks_each_time_and_saves_the_label(label: Path, tmp_path: Path) -> None:
    server = Server(tmp_path)
    dices = annotator(server).annotate(label, 3)
    assert len(dices) == 3
    assert dices[-1] > dices[0]
    assert [len(params["foreground"] + params["background"]) for _, params in server.asked] == [1, 2, 3]
    query, params = server.asked[0]
    assert query["image"] == "case 1"
    assert params["label"] == "cyst"
    ((query, sent),) = server.saved
    assert query == {"image": "case 1", "tag": "final"}
    assert b'{"label_info": [{"name": "cyst", "idx": 1}]}' in sent


def test_without_clicks_it_only_saves(label: Path, tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert annotator(server, None).annotate(label, 0) == []
    assert len(server.saved) == 1


def test_what_the_server_refuses_is_reported(label: Path, tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="the server refused"):
        annotator(Server(tmp_path, 404)).annotate(label, 1)
