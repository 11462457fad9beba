"""The wheel in an empty environment: the two commands of the README give a server that segments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from sam3d_label.masks import dice
from sam3d_label.serving import HOST, free_port, serving, start_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
UV = [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a user whose virtual environment has the wheel and what it needs, at the locked versions."""
    folder = tmp_path_factory.mktemp("wheel")
    venv = folder / "venv"
    subprocess.run([*UV, "build", "--quiet", "--wheel", "--no-build-isolation", "-o", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*UV, "venv", "--quiet", "--no-project", "--python", sys.executable, venv], check=True)
    into, pins = ["pip", "install", "--quiet", "--python", str(venv)], str(ROOT / "requirements.txt")
    subprocess.run([*UV, *into, "--constraint", pins, str(wheel)], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE", "XDG_"))}
    return {
        **kept,
        "HOME": str(folder),
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
    }


@contextmanager
def demo(environment: dict[str, str], folder: Path) -> Iterator[list[str]]:
    """Run `sam3d-label serve` until the block ends, and yield the two lines that it prints."""
    command = [shutil.which("sam3d-label", path=environment["PATH"]) or "missing", "serve", "--port", str(free_port())]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [process.stdout.readline() for _ in range(2)]
        finally:
            process.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_demo_of_the_wheel_segments_the_real_case(environment: dict[str, str], tmp_path: Path) -> None:
    with demo(environment, tmp_path) as (serving_line, curl):
        found = re.search(r"http://127\.0\.0\.1:\d+", serving_line)
        assert found is not None, serving_line
        page = httpx.get(f"{found[0]}/sam3d/")
        subprocess.run(curl, shell=True, cwd=tmp_path, check=True, timeout=120)
    assert page.status_code == 200
    mask, label = (
        np.asarray(nib.Nifti1Image.from_filename(path).dataobj) > 0
        for path in (tmp_path / "mask.nii.gz", ROOT / "sample-data" / "labels" / "lung_ct.nii.gz")
    )
    assert dice(mask, label) > 0.65
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii.gz"]


def test_monai_label_starts_the_app_of_the_wheel(environment: dict[str, str], tmp_path: Path) -> None:
    app = subprocess.run(["sam3d-label", "app-path"], env=environment, check=True, capture_output=True, text=True)
    port, log = free_port(), tmp_path / "log"
    program = [shutil.which("python", path=environment["PATH"]) or "missing", "-m", "monailabel.main"]
    command = start_server(Path(app.stdout.strip()), port, "--studies", str(tmp_path / "studies"), program=program)
    with serving(command, f"http://{HOST}:{port}", log, folder=tmp_path, environment=environment) as server:
        assert "sam3d" in httpx.get(f"{server.url}/info/").json()["models"]


def test_the_command_line_of_the_wheel_finds_the_models_of_its_app(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["sam3d-label", "versions"], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "no version is active" in done.stdout
