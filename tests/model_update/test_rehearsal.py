"""Phantoms are rehearsed among the cases of an update."""

from __future__ import annotations

import numpy as np
import pytest

from sam3d_label.model_update import rehearsal
from sam3d_label.model_update.rehearsal import rehearsal_cases
from sam3d_label.training.dataset import OpenedCase
from sam3d_label.weights.load import UNTRAINED_INTENSITY


def test_half_of_the_crops_show_phantoms_that_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "PHANTOMS", 3)
    waited = []
    cases = rehearsal_cases(tmp_path, 5, lambda: waited.append(1))
    assert sum(case.weight for case in cases) == pytest.approx(5)
    assert len(cases) == 3
    assert all(case.rehearsed and not case.salient for case in cases)
    assert waited
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    (tmp_path / "images" / "phantom_002.nii.gz").unlink()
    again = rehearsal_cases(tmp_path, 1)
    assert [case.image for case in again] == [case.image for case in cases], "an interrupted run completes them"
    assert set(tmp_path.rglob("*.nii.gz")) == set(written)
    opened = [OpenedCase.open(case, UNTRAINED_INTENSITY) for case in again]
    assert all(np.any(case.target.array) for case in opened)
