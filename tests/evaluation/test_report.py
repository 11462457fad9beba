"""The files of an evaluation."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.cohort import evaluate_cohort
from sam3d_label.evaluation.pictures import axial_slice, draw_click, draw_sheet, sheet_row, window
from sam3d_label.evaluation.report import write_report
from sam3d_label.evaluation.summary import Conditions, EvaluationSummary, WeightsName
from sam3d_label.io import read_record, replacing, write_json
from sam3d_label.segmentation.prompts import Click
from tests.helpers.sessions import COHORT

AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


def test_report_on_disk(tmp_path):
    out = tmp_path / "new" / "out"
    summary = write_report(
        out, COHORT, [1, 3], 5, Conditions(annotator="error_centre", weights=WeightsName(name="tiny"))
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "cases.csv",
        "clicks.csv",
        "curve.png",
        "summary.json",
    ]
    assert read_record(EvaluationSummary, out / "summary.json") == summary
    assert summary.annotator == "error_centre"
    with (out / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["case", "clicks", "dice", "nsd_2mm", "nsd_5mm", "seconds"]
    assert [(row["case"], row["clicks"]) for row in rows] == [("a", "1"), ("a", "3"), ("b", "1"), ("b", "3")]
    assert float(rows[1]["dice"]) == 0.85
    with (out / "clicks.csv").open() as file:
        voxels = [(row["i"], row["positive"]) for row in csv.DictReader(file)]
    assert len(voxels) == 10
    assert voxels[3] == ("4", "1")
    assert voxels[-1] == ("", "")
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_a_cohort(cohort, tmp_path, ball_segmenter):
    annotator = ANNOTATORS["error_centre"]
    counts = (0, 1, 2, 6)
    measured = evaluate_cohort(cohort / "images", cohort / "labels", ball_segmenter, annotator, clicks=counts)
    summary = write_report(tmp_path / "out", measured, counts, 6)
    assert list(summary.dice) == [0, 1, 2, 6]
    assert summary.dice[6] > summary.dice[1] > 0.3
    with (tmp_path / "out/cases.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["case"], first["clicks"], first["placed"]) == ("a_ct", "0", "0")
    assert (tmp_path / "out/worst.png").read_bytes().startswith(b"\x89PNG")
    assert summary.honoured_share is not None
    assert 0 < summary.honoured_share <= 1


def test_candidates_have_a_table_and_the_best_of_them_in_the_summary(cohort, tmp_path, ball_segmenter):
    def evaluate(**options):
        annotator, out = ANNOTATORS["error_centre"], tmp_path / "out"
        measured = evaluate_cohort(
            cohort / "images", cohort / "labels", ball_segmenter, annotator, clicks=(1, 3), **options
        )
        return write_report(out, measured, (1, 3), 3)

    summary = evaluate(candidates=True)
    assert summary.dice_best_candidate == summary.dice
    assert summary.dice_first_candidate == {1: 0, 3: 0}
    with (tmp_path / "out/candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary.cases * 2 * 2
    assert [(row["clicks"], row["candidate"], row["predicted_dice"]) for row in rows[:2]] == [
        ("1", "1", "0.900000"),
        ("1", "2", "0.600000"),
    ]
    assert rows[1]["dice"] == rows[1]["answer_dice"] > rows[0]["dice"] == "0.000000"
    assert evaluate().dice_best_candidate is None
    assert not (tmp_path / "out/candidates.csv").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_halfway():
        with replacing(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"dice": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("order", "signs"),
    [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, 1, 1))],
)
def test_slices_look_alike_in_every_orientation(order, signs):
    rng = np.random.default_rng(0)
    ras = rng.normal(size=(6, 7, 8)).astype(np.float32)
    spacing = np.array([1.0, 2.0, 3.0])
    at = (4, 1, 5)
    stored = ras.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    ijk = []
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[world]
        ijk.append(at[world] if sign > 0 else stored.shape[axis] - 1 - at[world])
    i, j, k = ijk
    clicks = [Click((i, j, k)), Click((0, 0, 0), positive=False)]
    view = axial_slice(stored, affine, stored > 0, stored > 1, clicks)
    radiological = ras[::-1, ::-1, at[2]].T
    assert np.array_equal(view.image, radiological)
    assert np.array_equal(view.mask, radiological > 0)
    assert view.spacing == (2.0, 1.0)
    assert view.clicks[0] == (7 - 1 - at[1], 6 - 1 - at[0], True)


def test_clicks_near_a_slice_are_projected_onto_it():
    volume = np.zeros((6, 7, 8), np.float32)
    clicks = [Click((1, 2, 3)), Click((2, 2, 5), positive=False), Click((3, 2, 7))]
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    view = axial_slice(volume, affine, volume > 0, volume > 0, clicks, at=4, near=5.0)
    assert view.clicks == ((2, 1, True), (2, 2, False))


def test_a_row_of_the_sheet_shows_the_largest_error(truth):
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    first, last = np.zeros_like(truth), truth.copy()
    last[:, :, 3] = False
    last[12:, :, 7] = False
    clicks = [Click((10, 9, 3)), Click((1, 1, 3), positive=False)]
    row = sheet_row("a", image, AFFINE, truth, {1: first, 6: last}, clicks)
    before, after = row.moments
    assert (before.clicks, before.dice, after.clicks) == (1, 0, 6)
    assert 0.8 < after.dice < 1
    assert np.array_equal(after.view.image, before.view.image)
    assert not after.view.mask.any()
    assert np.count_nonzero(after.view.truth) == np.count_nonzero(truth[:, :, 3])
    assert [len(moment.view.clicks) for moment in row.moments] == [1, 2]
    assert after.view.image.base is None


@pytest.mark.parametrize("cases", [1, 3])
def test_sheet(tmp_path, truth, cases):
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    masks = {1: np.zeros_like(truth), 3: np.roll(truth, 2, axis=0)}
    row = sheet_row("a case", image, AFFINE, truth, masks, [Click((10, 9, 5)), Click((1, 1, 5), positive=False)])
    path = tmp_path / "worst.png"
    draw_sheet(path, [row] * cases)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def titles(monkeypatch):
    """The titles of the charts that were written."""
    found: list[str] = []
    save = Figure.savefig

    def savefig(figure, *args, **options):
        found.extend(axes.get_title() for axes in figure.axes)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


@pytest.mark.parametrize("name", ["a case", "costs_$5_and_$6", "a\udcff", "x_{1}^2 \\frac"])
def test_the_sheet_names_case_and_slice(tmp_path, truth, titles, name):
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    mask = truth.copy()
    mask[:, :, 6] = False
    row = sheet_row(name, image, AFFINE, truth, {1: np.zeros_like(truth), 3: mask}, [Click((10, 9, 5))])
    draw_sheet(tmp_path / "worst.png", [row])
    shown = name.replace("\udcff", "?")
    assert [title.splitlines()[0] for title in titles] == [shown] * 2
    assert all(title.splitlines()[1].startswith("slice k = 6 · ") for title in titles)


def test_a_slice_is_named_by_the_stored_axis(truth):
    first_axis_up = np.eye(4)[[1, 2, 0, 3]]
    view = axial_slice(truth.astype(np.float32), first_axis_up, truth, truth, [Click((4, 9, 5))])
    assert view.name == "slice i = 4"


def test_a_picture_without_a_label_or_a_click_shows_the_largest_part_of_the_mask(tmp_path, truth, titles):
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    mask = np.zeros_like(truth)
    mask[8:12, 8:12, 6] = mask[9:11, 9:11, 7] = True
    draw_click(tmp_path / "mask.png", image, AFFINE, mask, None, [])
    assert titles == ["image\nslice k = 6", "mask · 0.1 mL in 3D\nslice k = 6"]


def test_windows():
    rng = np.random.default_rng(0)
    ct = np.concatenate([rng.normal(middle, 15, 3000) for middle in (-1000, -100, 50)]).astype(np.float32)
    assert window(ct) == window(np.zeros(4, np.float32), "CT") == (-160, 240)
    assert window(ct + 1024) == (864, 1264)
    mr = rng.gamma(4, 40, 9000).astype(np.float32)
    mr[0] = -3000
    assert window(mr) == window(ct * 0 + mr, "MR") != (-160, 240)
    assert window(mr)[0] > 0
    low, high = window(np.linspace(0, 3000, 500, dtype=np.float32))
    assert 0 < low < high < 3000
    assert window(np.zeros(4, np.float32)) == (0, 1)


@pytest.mark.parametrize("empty", [False, True])
def test_picture(tmp_path, truth, empty):
    image = np.random.default_rng(0).normal(size=truth.shape).astype(np.float32)
    mask = np.zeros_like(truth) if empty else np.roll(truth, 1, axis=0)
    clicks = [Click((10, 9, 5)), Click((1, 1, 5), positive=False)]
    path = tmp_path / "click.png"
    draw_click(path, image, AFFINE, mask, truth, clicks)
    assert path.read_bytes().startswith(b"\x89PNG")
