import importlib.util
import json
import re
import socket
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

ROOT = Path(__file__).resolve().parents[2]
CASES = [f"phantom_{number:03d}" for number in range(3)]


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_sample_labels_lie_on_their_images(case: str) -> None:
    image, label = (nib.load(ROOT / "sample-data" / kind / f"{case}.nii.gz") for kind in ("images", "labels"))
    assert image.shape == label.shape
    assert_array_equal(image.affine, label.affine)
    assert set(np.unique(label.dataobj)) == {0, 1}


@pytest.mark.parametrize("case", CASES)
def test_the_shown_click_is_in_the_lesion(demo: ModuleType, case: str) -> None:
    command = demo.curl_of_a_click("http://127.0.0.1:8000", case)
    found = re.search(r"-F 'params=(.*?)' 'http://127.0.0.1:8000/infer/sam3d\?image=(.*?)&output=image'", command)
    assert found is not None
    assert found[2] == case
    (click,) = json.loads(found[1])["foreground"]
    label = np.asarray(nib.load(ROOT / "sample-data" / "labels" / f"{case}.nii.gz").dataobj)
    assert label[tuple(click)] == 1


def test_a_taken_port_is_refused(demo: ModuleType) -> None:
    with socket.socket() as other:
        other.bind((demo.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is not free"):
            demo.refuse_taken_port(port)


def test_studies_are_a_copy(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SCRATCH", tmp_path / "scratch")
    studies = demo.copy_samples()
    (studies / "datastore_v2.json").touch()
    again = demo.copy_samples()
    assert sorted(path.name for path in again.iterdir()) == [f"{case}.nii.gz" for case in CASES]
