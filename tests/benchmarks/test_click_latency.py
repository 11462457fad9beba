"""The volumes and clicks of the latency benchmark."""

from __future__ import annotations

from pathlib import Path

from click_latency import Scan, timed

from sam3d_label.image.volume import Volume


def test_clicks_inside_are_in_the_ball_and_others_are_not(tmp_path: Path) -> None:
    scan = Scan((96, 96, 48), (1.0, 1.0, 2.0))
    scan.write(tmp_path / "scan.nii.gz")
    volume, clicks = Volume.open(tmp_path / "scan.nii.gz"), scan.clicks(7)
    assert volume.shape == scan.shape
    assert len({click.ijk for click in clicks}) == 7
    assert {click.positive for click in clicks} == {True, False}
    assert all((volume.array[click.ijk] > 80) == click.positive for click in clicks)


def test_every_click_is_timed_with_all_before_it() -> None:
    sent: list[int] = []
    assert len(timed(lambda clicks: sent.append(len(clicks)), Scan((9, 9, 9), (1, 1, 1)).clicks(3))) == 3
    assert sent == [1, 2, 3]
