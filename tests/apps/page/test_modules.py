"""The modules of the page: unit tests run by Node.js, the type check, and the vendored viewer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "apps" / "sam3d" / "page"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
def test_the_modules_pass_their_unit_tests() -> None:
    assert NODE is not None
    command = [NODE, "--test", *map(str, sorted(Path(__file__).parent.glob("*.test.mjs")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_vendored_viewer_is_the_pinned_version_with_its_licence() -> None:
    lock = json.loads((ROOT / "scripts" / "page" / "package-lock.json").read_text(encoding="utf-8"))
    pinned = lock["packages"]["node_modules/@niivue/niivue"]
    assert pinned["integrity"].startswith("sha512-")
    assert (PAGE / "vendor" / f"niivue-{pinned['version']}.min.js").is_file()
    licences = (PAGE / "vendor" / "LICENCES.txt").read_text(encoding="utf-8")
    assert f"@niivue/niivue {pinned['version']} (BSD-2-Clause)" in licences


def test_the_page_loads_nothing_from_other_hosts_and_runs_under_a_strict_policy() -> None:
    sources = [PAGE / "index.html", *(PAGE / "js").glob("*.js"), *(PAGE / "css").glob("*.css")]
    for source in sources:
        text = source.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), source.name
        assert not re.search(r"\binnerHTML|\beval\(|new Function|style=\"", text), source.name
    viewer = next((PAGE / "vendor").glob("*.min.js")).read_text(encoding="utf-8")
    assert not re.search(r"WebAssembly|new Function\(|\beval\(", viewer)
