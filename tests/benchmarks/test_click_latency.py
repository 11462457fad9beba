"""The volumes and clicks of the latency benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from click_latency import LARGE, SCANS, SMALL, Latency, Scan, summary, timed

from sam3d_label.image.volume import Volume


@pytest.mark.parametrize("radius", [LARGE, SMALL])
def test_clicks_inside_are_in_the_ball_and_others_are_not(tmp_path: Path, radius: float) -> None:
    scan = Scan((96, 96, 48), (1.0, 1.0, 2.0), radius)
    scan.write(tmp_path / "scan.nii.gz")
    volume, clicks = Volume.open(tmp_path / "scan.nii.gz"), scan.clicks(7)
    assert volume.shape == scan.shape
    assert len({click.ijk for click in clicks}) == 7
    assert {click.positive for click in clicks} == {True, False}
    assert all((volume.array[click.ijk] > 80) == click.positive for click in clicks)


def test_every_click_is_timed_with_all_before_it() -> None:
    seconds, encoded = timed(len, Scan((9, 9, 9), (1, 1, 1)).clicks(3))
    assert len(seconds) == 3
    assert encoded == [1, 2, 3]


def test_the_table_has_the_least_value_of_several_runs() -> None:
    latencies = [
        Latency(where=where, image=scan.name, opened=opened, seconds=[first, 0.2, 0.3, 0.4], encoded=[2, 0, 0, 0])
        for scan in SCANS
        for where, opened in (("library", 0.5), ("HTTP", None))
        for first in (3.0, 2.0, 4.0)
    ]
    table = summary(latencies)
    first, following = (list(table.columns[number].cells) for number in (4, 6))
    assert first == ["2.00"] * 2 * len(SCANS)
    assert following == ["0.30"] * 2 * len(SCANS)
