import json
import re
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import demo
import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

ROOT = Path(__file__).resolve().parents[2]
CASES = ["lung_ct", *(f"phantom_{number:03d}" for number in range(3))]


@pytest.mark.parametrize("case", CASES)
def test_sample_labels_lie_on_their_images(case: str) -> None:
    image, label = (
        nib.Nifti1Image.from_filename(ROOT / "sample-data" / kind / f"{case}.nii.gz") for kind in ("images", "labels")
    )
    assert image.shape == label.shape
    assert_array_equal(image.affine, label.affine)
    assert set(np.unique(label.dataobj)) == {0, 1}


@pytest.mark.parametrize("case", CASES)
def test_the_shown_click_is_in_the_lesion(case: str) -> None:
    command = demo.curl_of_a_click("http://127.0.0.1:8000", case)
    found = re.search(r"-F 'params=(.*?)' 'http://127.0.0.1:8000/infer/sam3d\?image=(.*?)&output=image'", command)
    assert found is not None
    assert found[2] == case
    (click,) = json.loads(found[1])["foreground"]
    label = np.asarray(nib.Nifti1Image.from_filename(ROOT / "sample-data" / "labels" / f"{case}.nii.gz").dataobj)
    assert label[tuple(click)] == 1


class Rejecting(BaseHTTPRequestHandler):
    """Answers each click as the server answers one that is outside the volume."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"detail": "click (0, 0, 99) is outside the volume"}'
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_shown_command_reports_a_rejection_and_keeps_the_reason(tmp_path: Path) -> None:
    with HTTPServer((demo.HOST, 0), Rejecting) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        command = demo.curl_of_a_click(f"http://{demo.HOST}:{server.server_port}", CASES[0])
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 22
    assert "400" in done.stderr
    assert "outside the volume" in (tmp_path / "mask.nii.gz").read_text()


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind((demo.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is not free"):
            demo.refuse_taken_port(port)


def test_studies_are_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SCRATCH", tmp_path / "scratch")
    studies = demo.copy_samples()
    (studies / "datastore_v2.json").touch()
    again = demo.copy_samples()
    assert sorted(path.name for path in again.iterdir()) == [f"{case}.nii.gz" for case in CASES]
