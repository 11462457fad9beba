"""Damaged and hostile files over the three routes that take files: a reason for each, and nothing is kept of them."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.damaged import BAD, SECRET, mutated, nifti, nrrd
from tests.helpers.fuzz_helpers import LONG, Probe

MUTATIONS = 25 * LONG


def routes(name: str) -> list[tuple[str, dict[str, str], str]]:
    """Path, query and name of the form field of the three routes."""
    return [
        ("/datastore/", {"image": f"fuzzed-{name}"}, "file"),
        ("/datastore/label", {"image": "one", "tag": "final"}, "label"),
        ("/session/", {}, "files"),
    ]


def content(path: Path) -> tuple[str, bytes]:
    """Name and bytes of a file; of a folder, those of an archive of it."""
    if path.is_file():
        return path.name, path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(path.rglob("*")):
            packed.write(file, file.relative_to(path))
    return f"{path.name}.zip", archive.getvalue()


def stored(probe: Probe) -> Any:
    return probe.client.get("/datastore/", params={"output": "all"}).json()["objects"].keys()


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_file_is_rejected_by_every_route_that_takes_files(probe: Probe, kind: str, tmp_path: Path) -> None:
    before = stored(probe)
    name, data = content(BAD[kind](tmp_path))
    for path, query, field in routes("bad"):
        answer = probe.check("PUT", path, params=query, files={field: (name, data)})
        assert 400 <= answer.status_code < 500, f"{path}: {answer.status_code} {answer.text}"
        assert answer.json()["detail"]
        for text in (str(tmp_path), SECRET.decode().split()[0]):
            assert text not in answer.text
    assert stored(probe) == before


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_a_file_with_random_damage_is_read_as_stored_or_rejected(probe: Probe, suffix: str) -> None:
    good = {".nii": nifti(), ".nii.gz": gzip.compress(nifti(), mtime=0), ".nrrd": nrrd(encoding="gzip")}[suffix]
    rng = random.Random(LONG)
    for _ in range(MUTATIONS):
        data = mutated(good, rng)
        for path, query, field in routes("mutated"):
            answer = probe.check("PUT", path, params=query, files={field: (f"fuzzed{suffix}", data)})
            if answer.status_code == 200 and path == "/session/":
                probe.check("DELETE", f"/session/{answer.json()['session_id']}")
            if answer.status_code == 200 and path == "/datastore/":
                probe.check("DELETE", "/datastore/", params={"id": "fuzzed-mutated"})
    assert probe.client.get("/info/").status_code == 200
