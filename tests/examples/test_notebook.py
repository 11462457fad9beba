"""The notebook runs from its first cell to its last, and training helps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900


@pytest.mark.slow
def test_the_notebook_runs_and_training_helps(tmp_path: Path) -> None:
    program = (
        "import sys, nbformat, nbclient; notebook = nbformat.read(sys.argv[1], 4);"
        f"nbclient.NotebookClient(notebook, timeout={SECONDS}, kernel_name='python3').execute();"
        "nbformat.write(notebook, sys.argv[2])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}
    out = tmp_path / "executed.ipynb"
    notebook = ROOT / "examples" / "click_and_learn.ipynb"
    subprocess.run([sys.executable, "-c", program, notebook, out], check=True, cwd=tmp_path, env=environment)
    if folder := os.environ.get("SAM3D_SCREENSHOTS"):
        Path(folder, notebook.name).write_bytes(out.read_bytes())
    found = re.search(r"Dice after one click: (\S+) -> ([\d.]+)", out.read_text(encoding="utf-8"))
    assert found is not None
    before, after = map(float, found.groups())
    assert after > before
