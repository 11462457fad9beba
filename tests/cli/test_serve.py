"""`serve` and `app-path`: what they print and refuse, and the studies of the demo."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from sam3d_label.cli import bundle, serve
from sam3d_label.cli.app import app
from sam3d_label.serving import HOST

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
    command = serve.curl_of_a_click("http://127.0.0.1:8000", case)
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
    with HTTPServer((HOST, 0), Rejecting) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        command = serve.curl_of_a_click(f"http://{HOST}:{server.server_port}", CASES[0])
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 22
    assert "400" in done.stderr
    assert "outside the volume" in (tmp_path / "mask.nii.gz").read_text(encoding="utf-8")


def error_of(*arguments: str) -> str:
    """The one line with which a command refuses its arguments."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2
    return result.stderr


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is not free" in error_of("serve", str(tmp_path), "--port", str(port))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("sam3d.example.org", "http://sam3d.example.org:8000"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, url: str) -> None:
    assert serve.url_of(host, 8000) == url


def test_a_missing_studies_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    assert "is not a folder: give a folder of volumes" in error_of("serve", str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("words", [["labels"], ["=tumor"]])
def test_a_key_without_a_value_is_refused(tmp_path: Path, words: list[str]) -> None:
    assert "give a key and a value" in error_of("serve", str(tmp_path), "--conf", *words)


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["--conf", "labels", "a,b", "studies"], ["--conf", "labels=a,b", "studies"]),
        (["--conf", "patient", "(x)=(y)"], ["--conf", "patient=(x)=(y)"]),
        (["studies", "--conf", "labels=a", "--port", "1"], ["studies", "--conf", "labels=a", "--port", "1"]),
        (["--conf", "a", "1", "--conf", "b", "2"], ["--conf", "a=1", "--conf", "b=2"]),
        (["--conf"], ["--conf"]),
    ],
)
def test_keys_are_joined_with_their_values(words: list[str], joined: list[str]) -> None:
    assert list(serve.join_pairs(words)) == joined


def test_labels_saved_in_the_demo_stay_for_the_next_time(tmp_path: Path) -> None:
    studies = serve.copy_samples(tmp_path)
    saved = studies / "labels" / "final" / "lung_ct.nii.gz"
    saved.parent.mkdir(parents=True)
    saved.touch()
    (studies / "phantom_000.nii.gz").unlink()
    serve.copy_samples(tmp_path)
    assert sorted(path.name for path in studies.glob("*.nii.gz")) == [f"{case}.nii.gz" for case in CASES]
    assert saved.exists()


def test_a_checkout_serves_its_own_app() -> None:
    assert CliRunner().invoke(app, ["app-path"]).stdout == f"{ROOT / 'apps/sam3d'}\n"
    assert bundle.samples() == ROOT / "sample-data"
    assert bundle.demo_folder() == ROOT / ".demo"
