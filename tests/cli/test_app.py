"""The command line: what it prints, what it refuses, what it writes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from sam3d_label import __version__
from sam3d_label.cli.app import DatasetName, SamName, app
from sam3d_label.cli.evaluate import AnnotatorName
from sam3d_label.cli.options import PresetName, repeat_options
from sam3d_label.errors import WeightsError
from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.image.volume import Volume
from sam3d_label.io import Record
from sam3d_label.network import PRESETS
from sam3d_label.weights.reference import DATASETS
from sam3d_label.weights.sam import OFFICIAL

COMMANDS = (
    "phantom",
    "segment",
    "evaluate",
    "picture",
    "train",
    "convert-reference",
    "convert-litemedsam",
    "fetch",
    "benchmark",
)
HEAVY = ("torch", "monai", "matplotlib")
SHAPE = (24, 20, 12)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


class BallSegmenter:
    """A ball around each positive click; takes the place of the network."""

    def __init__(self, volume, weights):
        self.volume = volume
        assert weights.version == "7"

    def segment(self, prompts):
        prompts.validate(self.volume.shape)
        grid = np.indices(self.volume.shape)
        mask = np.zeros(self.volume.shape, np.uint8)
        for click in prompts.positive:
            mask[((grid - np.reshape(click.ijk, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 25] = 1
        for box in prompts.boxes:
            mask[tuple(slice(low, high + 1) for low, high in zip(box.lower, box.upper, strict=True))] = 1
        return SimpleNamespace(mask=mask, seconds=0.1)

    def segment_unprompted(self):
        return SimpleNamespace(mask=np.ones(self.volume.shape, np.uint8), seconds=0.1)


@pytest.fixture
def capabilities(monkeypatch):
    """Capabilities of the weights that stand in for real ones; the network is replaced by balls."""
    learned = ["positive_click", "negative_click", "box"]

    def open_weights(name=None, device="cpu"):
        if name == "missing":
            raise WeightsError("missing is neither a file nor\nthe name of shipped weights")
        return SimpleNamespace(version="7", card=SimpleNamespace(preset="tiny", capabilities=learned))

    monkeypatch.setattr("sam3d_label.segmentation.segmenter.Segmenter", BallSegmenter)
    monkeypatch.setattr("sam3d_label.weights.open_weights", open_weights)
    return learned


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """images/ and labels/ with two cases, in the current folder."""
    monkeypatch.chdir(tmp_path)
    truth = np.zeros(SHAPE, np.uint8)
    truth[3:15, 6:13, 2:9] = 1
    for folder, array in (("images", np.random.default_rng(0).normal(size=SHAPE)), ("labels", truth)):
        (tmp_path / folder).mkdir()
        for name in ("a.nii.gz", "b.nii.gz"):
            nib.save(nib.Nifti1Image(array.astype(np.float32), AFFINE), tmp_path / folder / name)
    return tmp_path


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def refused(*args):
    """The one line on standard error, after those of steps, of a command that ends with status 2."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *steps, message = result.stderr.splitlines(keepends=True)
    assert all(step.endswith(" …\n") for step in steps)
    assert message.startswith("error: ")
    return message


def test_help_lists_the_commands():
    for args in ([], ["--help"]):
        result = run(*args)
        assert result.exit_code == 0
        assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"python -m sam3d_label {command}" in result.stdout


def test_the_version_is_that_of_the_package():
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"sam3d_label {__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from sam3d_label.cli.app import app\n"
        "assert CliRunner().invoke(app, ['evaluate', '--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'monai', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


def test_module_runs():
    command = [sys.executable, "-m", "sam3d_label", "nonsense"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: No such command 'nonsense'."


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["segment", "a.nii", "b.nii", "--click", "1,2"], "--click 1,2: give 3 whole numbers"),
        (["segment", "a.nii", "b.nii", "--click", "1,2,x"], "--click 1,2,x"),
        (["segment", "a.nii", "b.nii", "--exclude", "1.5,2,3"], "--exclude 1.5,2,3"),
        (["segment", "a.nii", "b.nii", "--box", "1,2,3"], "--box 1,2,3: give 6 whole numbers"),
        (["segment", "a.nii", "b.nii"], "add --click"),
        (["segment", "a.nii", "b.nii", "--click", "1,2,3", "--device", "toaster"], "--device toaster"),
        (["segment", "a.nii"], "OUT"),
        (["segment", "a.nii", "b.nii", "--clik", "1,2,3"], "--clik"),
        (["evaluate", "i", "l", "o", "--clicks", "0"], "--clicks 0: give click counts from 1 on"),
        (["evaluate", "i", "l", "o", "--clicks", "-1,1"], "--clicks -1,1"),
        (["evaluate", "i", "l", "o", "--clicks", "one"], "--clicks one"),
        (["evaluate", "i", "l", "o", "--clicks", "1,1001"], "--clicks 1,1001: give click counts up to 1000"),
        (["evaluate", "i", "l", "o", "--noc", "1001"], "'--noc': give at most 1000"),
        (["evaluate", "i", "l", "o", "--annotator", "bob"], "'bob' is not one of 'error_centre'"),
        (["evaluate", "i", "l", "o", "--noc", "0"], "'--noc': give 1 or more"),
        (["evaluate", "i", "l", "o", "--seed", "x"], "--seed"),
        (["evaluate", "nowhere", "l", "o"], "nowhere does not exist"),
        (["phantom", "out", "--cases", "0"], "'--cases': give 1 or more"),
        (["phantom", "out", "--seed", "-1"], "'--seed': give 0 or more"),
        (["train", "i", "l", "o", "--seed", "-1"], "'--seed': give 0 or more"),
        (["train", "i", "l", "o", "--epochs", "0"], "'--epochs': give 1 or more"),
        (["train", "i", "l", "o", "--validation", "1.5"], "'--validation': give at most 0.95"),
        (["train", "i", "l", "o", "--label", "0"], "'--label': give 1 or more"),
        (["train", "i", "l", "o", "--preset", "huge"], "Invalid value for '--preset': 'huge' is not one of 'tiny'"),
        (["train", "nowhere", "l", "o"], "nowhere does not exist"),
        (
            ["replay", "log", "studies", "o", "--workers", "0"],
            "'--workers': give 1 or more",
        ),
        (["replay", "log", "studies", "o"], "log does not exist"),
        (["convert-reference", "a.pth.tar", "b.safetensors", "--dataset", "mine"], "'mine' is not one of 'kits21'"),
        (["convert-reference", "a.pth.tar", "b.safetensors", "--prompt-heads", "0"], "'--prompt-heads'"),
        (["fetch", "vit_x"], "'vit_x' is not one of 'vit_b'"),
        (["export", "studies", "team.zip"], "studies does not exist"),
        (["unpack", "team.zip", "--check"], "team.zip does not exist"),
        (["segment", "a.nii", "b.nii", "--click", "1,2,3"], "a.nii does not exist"),
        (["picture", "a.nii", "b.nii", "c.png"], "add --click"),
        (["benchmark", "--preset", "vit_z"], "vit_z"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(args, message):
    assert message in refused(*args)


@pytest.mark.parametrize(
    "command",
    [
        ["segment", "images/a.nii.gz", "mask.nii.gz", "--click", "1,1,1"],
        ["evaluate", "images", "labels", "out"],
        ["train", "images", "labels", "out"],
    ],
)
def test_a_wrong_precision_is_reported_before_work_begins(volumes, command, monkeypatch):
    monkeypatch.setenv("SAM3D_PRECISION", "half")
    assert "SAM3D_PRECISION is 'half': it must be one of auto, bf16, fp32" in refused(*command)


@pytest.mark.parametrize(
    ("args", "ends"),
    [
        (["segment", "a.nii", "b.mhd", "--click", "1,2,3"], ".nii, .nii.gz, .nrrd, .mha"),
        (["segment", "a.nii", ".nii.gz", "--click", "1,2,3"], ".nii, .nii.gz, .nrrd, .mha"),
        (["picture", "a.nii", "b.jpg", "--click", "1,2,3"], ".png"),
        (["picture", "a.nii", "label.nii", "b.nii.gz", "--click", "1,2,3"], ".png"),
        (["convert-reference", "a.pth.tar", "b.pth"], ".safetensors"),
        (["convert-litemedsam", "a.pth", "b.pth"], ".safetensors"),
        (["benchmark", "--json", "numbers.csv"], ".json"),
        (["export", "studies", "team.tar"], ".zip"),
        (["export", "studies", "team.zip", "--pseudonyms", "key.txt"], ".csv"),
    ],
)
def test_a_wrong_suffix_is_rejected_before_anything_is_read(args, ends):
    """None of the inputs exists."""
    assert f"ends in {ends}" in refused(*args)


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["segment", "--help"],
        ["segment", "ct.nii.gz", "m.txt", "--click", "1,1,1"],
        ["segment", "ct.nii.gz", "m.nii", "--click", "1,1"],
        ["segment", "ct.nii.gz", "m.nii", "--click", "1,1,99"],
        ["segment", "ct.nii.gz", "m.nii", "--click", "1,1,1", "--exclude", "1,1,1"],
        ["segment", "ct.nii.gz", "m.nii", "--click", "1,1,1", "--weights", "nothing"],
        ["segment", "ct.nii.gz", "m.nii", "--click", "1,1,1", "--device", "toaster"],
        ["segment", "text.nii.gz", "m.nii", "--click", "1,1,1"],
        ["segment", "missing.nii.gz", "m.nii", "--click", "1,1,1"],
        ["picture", "ct.nii.gz", "m.png", "--click", "1,1,99"],
        ["picture", "ct.nii.gz", "m.png"],
        ["evaluate", "missing", "missing", "out"],
        ["evaluate", ".", ".", "ct.nii.gz"],
        ["evaluate", "empty", "empty", "out"],
        ["evaluate", "ct.nii.gz", "label.nii.gz", "out", "--label", "7"],
        ["train", "ct.nii.gz", "label.nii.gz", "out", "--label", "7"],
        ["train", "missing", "missing", "out"],
        ["train", "empty", "empty", "out"],
        ["train", "empty", "empty", "out", "--resume"],
        ["convert-reference", "missing.pth.tar", "out.safetensors"],
        ["convert-litemedsam", "missing.pth", "out.safetensors"],
        ["benchmark", "--json", "numbers.txt"],
        ["replay", "missing", "missing", "out"],
        ["replay", "empty", "empty", "out", "--shard", "9/3"],
        ["export", "missing", "team.zip"],
        ["unpack", "text.nii.gz", "new"],
        ["import-msd", "empty", "studies"],
        ["import-kits", "empty", "studies"],
        ["versions"],
        ["versions", "publish", "0009"],
        ["api-key", "list", "--file", "missing.json"],
    ],
    ids=" ".join,
)
def test_the_first_answer_needs_no_torch(args, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.nii.gz").write_text("no volume")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), tmp_path / "label.nii.gz")
    code = (
        "import atexit, sys\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: print('imported', [name for name in heavy if name in sys.modules]))\n"
        f"sys.argv = ['sam3d_label', *{args}]\n"
        "from sam3d_label.cli.app import app\n"
        "app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("imported []\n")
    assert done.returncode == 2 or done.stdout.count("\n") > 1  # a rejection, or an answer


@pytest.mark.parametrize(
    "args",
    [
        ["segment", "images/a.nii.gz", "m.nii", "--click", "8,9,5"],
        ["picture", "images/a.nii.gz", "m.png", "--click", "8,9,5"],
        ["evaluate", "images", "labels", "out", "--weights", "{weights}"],
        ["train", "images", "labels", "out"],
        ["train", "images", "labels", "out", "--preset", "tiny"],
        ["replay", "log.jsonl", "images", "out"],
        ["convert-reference", "images/a.nii.gz", "w.safetensors"],
        ["convert-litemedsam", "images/a.nii.gz", "w.safetensors"],
        ["benchmark", "--preset", "tiny"],
    ],
    ids=" ".join,
)
def test_a_long_command_says_what_it_does_before_it_imports_torch(args, volumes):
    (volumes / "log.jsonl").touch()
    weights = volumes / "own.safetensors"
    weights.touch()
    args = [part.format(weights=weights) for part in args]
    code = (
        "import builtins, os, sys\n"
        "real = builtins.__import__\n"
        "def stop(name, *rest, **more):\n"
        "    if name.split('.')[0] == 'torch':\n"
        "        sys.stdout.flush(); sys.stderr.flush(); os._exit(7)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = stop\n"
        f"sys.argv = ['sam3d_label', *{args}]\n"
        "from sam3d_label.cli.app import app\n"
        "app()"
    )
    for rank in ("0", "1"):
        environment = {**os.environ, "RANK": rank}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 7, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert (len(lines) == 1 and lines[0].endswith(" …")) if rank == "0" else not lines
        assert "own.safetensors" in done.stderr or rank == "1" or "--weights" not in args


def test_the_choices_are_those_of_the_library():
    assert [preset.value for preset in PresetName] == list(PRESETS)
    assert [name.value for name in AnnotatorName] == list(ANNOTATORS)
    assert [name.value for name in DatasetName] == list(DATASETS)
    assert [name.value for name in SamName] == list(OFFICIAL)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("phantom", ["x>=1", "x>=0"]),
        ("train", ["tiny|tiny-geodesic|vit_b|vit_l|vit_h", "x>=1", "x>=0", "0<=x<=0.95"]),
        ("evaluate", ["jittered", "x>=1"]),
        ("convert-reference", ["kits21|lits17|pancreas|colon", "x>=1"]),
        ("fetch", ["vit_b|vit_l|vit_h"]),
        ("benchmark", ["tiny|tiny-geodesic|vit_b|vit_l|vit_h"]),
        ("replay", ["x>=1"]),
    ],
)
def test_help_shows_ranges_and_choices(command, shown):
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert all(part in text for part in shown)


def test_segment_writes_a_mask_on_the_stored_grid(volumes, capabilities):
    result = run("segment", "images/a.nii.gz", "mask.nii.gz", "--click", "8,9,5", "--exclude", "20,2,2")
    assert result.exit_code == 0, result.output
    mask = nib.Nifti1Image.from_filename(volumes / "mask.nii.gz")
    values = np.asanyarray(mask.dataobj)
    assert values.shape == SHAPE
    assert values.dtype == np.uint8
    assert values[8, 9, 5] == 1
    assert np.array_equal(mask.affine, AFFINE)
    assert f"{np.count_nonzero(values)} voxels" in result.stdout


def test_segment_takes_several_clicks_and_a_box(volumes, capabilities):
    result = run("segment", "images/a.nii.gz", "m.nii.gz", "--click", "4,4,4", "20,15,9", "--box", "9,8,1,2,3,3")
    assert result.exit_code == 0, result.output
    mask = np.asanyarray(nib.Nifti1Image.from_filename(volumes / "m.nii.gz").dataobj)
    assert all(mask[voxel] for voxel in ((4, 4, 4), (20, 15, 9), (8, 1, 3), (9, 2, 3)))


def test_segment_refuses_what_does_not_fit(volumes, capabilities):
    segment = ("segment", "images/a.nii.gz", "m.nii.gz", "--click")
    assert "outside" in refused(*segment, "99,0,0")
    assert "outside" in refused(*segment, "-1,0,0")
    assert "both" in refused(*segment, "1,1,1", "--exclude", "1,1,1")
    assert "nor the name of shipped weights" in refused(*segment, "1,1,1", "--weights", "missing")
    assert "does not exist" in refused("segment", "images/z.nii.gz", "m.nii.gz", "--click", "1,1,1")
    assert not (volumes / "m.nii.gz").exists()


def test_options_take_several_voxels():
    args = ["--click", "1,2,3", "4,5,6", "-1,0,0", "--exclude", "7,8,9", "x", "--seed", "3"]
    once = [
        "--click",
        "1,2,3",
        "--click",
        "4,5,6",
        "--click",
        "-1,0,0",
        "--exclude",
        "7,8,9",
        "x",
        "--seed",
        "3",
    ]
    assert list(repeat_options(args)) == once
    assert list(repeat_options(once)) == once


def test_evaluate(volumes, capabilities):
    result = run("evaluate", "images", "labels", "out", "--clicks", "1,3", "--cases", "a*", "--noc", "4")
    assert result.exit_code == 0, result.output
    summary = json.loads((volumes / "out/summary.json").read_text())
    assert summary["cases"] == 1
    assert set(summary["dice"]) == {"1", "3"}
    assert summary["noc_cap"] == 4
    assert summary["weights"] == {"name": "tiny", "version": "7"}
    assert summary["annotator"] == "error_centre"
    assert summary["peak_memory_mib"] > 10
    with (volumes / "out/cases.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    with (volumes / "out/clicks.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert (volumes / "out/curve.png").exists()
    assert "Dice" in result.stdout


def test_evaluate_says_what_it_skipped(volumes, capabilities):
    (volumes / "labels/b.nii.gz").unlink()
    result = run("evaluate", "images", "labels", "out", "--clicks", "1")
    assert result.exit_code == 0, result.output
    assert "skipped b: there is no label" in result.stderr
    assert "no label holds the value 9, only 1" in refused("evaluate", "images", "labels", "other", "--label", "9")


def test_evaluate_needs_what_the_annotator_uses(volumes, capabilities):
    capabilities.remove("negative_click")
    assert "random_foreground" in refused("evaluate", "images", "labels", "out")
    assert run("evaluate", "images", "labels", "o", "--clicks", "1", "--annotator", "random_foreground").exit_code == 0


def test_evaluate_without_a_click(volumes, capabilities):
    evaluate = ("evaluate", "images", "labels", "out", "--clicks", "0,1")
    assert "leave 0 out of --clicks" in refused(*evaluate)
    capabilities.append("no_click")
    result = run(*evaluate)
    assert result.exit_code == 0, result.output
    assert list(json.loads((volumes / "out/summary.json").read_text())["dice"]) == ["0", "1"]
    assert (volumes / "out/worst.png").exists()


def test_a_picture_of_clicks_needs_no_label(volumes, capabilities):
    result = run("picture", "images/a.nii.gz", "click.png", "--click", "8,9,5")
    assert result.exit_code == 0, result.output
    assert (volumes / "click.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("also", [(), ("--click", "8,9,5"), ("--exclude", "8,9,5")])
def test_a_picture_of_a_saved_mask_runs_no_network(also, volumes, monkeypatch):
    monkeypatch.setattr("sam3d_label.weights.open_weights", None)
    shown = ("--mask", "labels/a.nii.gz", *also)
    assert run("picture", "images/a.nii.gz", "mask.png", *shown).exit_code == 0
    assert run("picture", "images/a.nii.gz", "labels/b.nii.gz", "both.png", *shown).exit_code == 0
    assert (volumes / "mask.png").read_bytes() != (volumes / "both.png").read_bytes()


def test_a_picture_that_cannot_be_drawn_is_rejected(volumes, capabilities):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), "empty.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), AFFINE), "small.nii.gz")
    picture = ("picture", "images/a.nii.gz", "new.png")
    assert "add --click" in refused(*picture)
    assert "add --click" in refused(*picture, "--exclude", "1,1,1")
    assert "the mask is empty" in refused(*picture, "--mask", "empty.nii.gz")
    assert "shape (5, 5, 5)" in refused(*picture, "--mask", "small.nii.gz")
    assert "missing.nii does not exist" in refused(*picture, "--mask", "missing.nii")
    assert "outside the volume" in refused(*picture, "--mask", "labels/a.nii.gz", "--exclude", "99,0,0")
    assert "give one of the two" in refused(*picture, "--mask", "labels/a.nii.gz", "--weights", "tiny")
    assert "one file too many" in refused("picture", "images/a.nii.gz", "l.nii", "m.nii", "new.png", "--click", "1,1,1")
    assert not (volumes / "new.png").exists()


def test_picture(volumes, capabilities):
    result = run("picture", "images/a.nii.gz", "labels/a.nii.gz", "new/click.png", "--click", "8,9,5")
    assert result.exit_code == 0, result.output
    assert (volumes / "new/click.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("source", [("--click", "8,9,5"), ("--mask", "mask.nii.gz")])
def test_ignored_voxels_do_not_count_in_a_picture(volumes, capabilities, monkeypatch, source):
    drawn: dict[str, Any] = {}

    def draw_click(path, image, affine, mask, truth, clicks, modality):
        drawn.update(mask=mask, truth=truth)

    monkeypatch.setattr("sam3d_label.evaluation.pictures.draw_click", draw_click)
    ball = (((np.indices(SHAPE) - np.reshape((8, 9, 5), (3, 1, 1, 1))) ** 2).sum(axis=0) <= 25).astype(np.int16)
    nib.save(nib.Nifti1Image(ball, AFFINE), "mask.nii.gz")
    ball[8:][ball[8:] > 0] = -1
    nib.save(nib.Nifti1Image(ball, AFFINE), "label.nii.gz")
    result = run("picture", "images/a.nii.gz", "label.nii.gz", "new.png", *source)
    assert result.exit_code == 0, result.output
    assert np.array_equal(drawn["mask"], drawn["truth"])
    assert np.array_equal(drawn["truth"], ball > 0)


def test_phantom(tmp_path):
    result = run("phantom", tmp_path, "--cases", 1, "--seed", 3)
    assert result.exit_code == 0, result.output
    (image,) = (tmp_path / "images").glob("*.nii.gz")
    assert (tmp_path / "labels" / image.name).exists()


def test_convert_reference_refuses_a_missing_file(tmp_path):
    assert "best.pth.tar" in refused("convert-reference", tmp_path / "best.pth.tar", tmp_path / "out.safetensors")


def test_convert_litemedsam_rejects_another_file(volumes):
    message = refused("convert-litemedsam", volumes / "images" / "a.nii.gz", volumes / "out.safetensors")
    assert "is not LiteMedSAM's checkpoint" in message


def test_benchmark_writes_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("sam3d_label.benchmark.run", lambda preset, device, *, console: Record())
    result = run("benchmark", "--preset", "tiny", "--json", tmp_path / "new" / "numbers.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "new" / "numbers.json").read_text()) == {"format": 1}


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (("segment", "images/a.nii.gz", "mask.nii.gz", "--click", "8,9,5"), "mask.nii.gz"),
        (("evaluate", "images", "labels", "out", "--clicks", "1"), "out/cases.csv"),
        (("picture", "images/a.nii.gz", "labels/a.nii.gz", "click.png", "--click", "8,9,5"), "click.png"),
        (("phantom", "made", "--cases", "1"), "made/labels/phantom_000.nii.gz"),
    ],
)
def test_nothing_is_overwritten_unasked(command, written, volumes, capabilities):
    (volumes / written).parent.mkdir(parents=True, exist_ok=True)
    (volumes / written).write_text("of the user")
    assert f"{written} exists: write elsewhere, or add --overwrite" in refused(*command)
    assert (volumes / written).read_text() == "of the user"
    result = run(*command, "--overwrite")
    assert result.exit_code == 0, result.output


def test_everything_that_would_be_overwritten_is_named(volumes, capabilities):
    (volumes / "out").mkdir()
    for name in ("clicks.csv", "worst.png"):
        (volumes / "out" / name).write_text("of the user")
    message = refused("evaluate", "images", "labels", "out", "--clicks", "1")
    assert "out/clicks.csv, out/worst.png exist: write elsewhere, or add --overwrite to replace them" in message


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder.nii.gz", "is a folder"),
        ("images/a.nii.gz/mask.nii.gz", "a.nii.gz is not a folder"),
        (f"{'m' * 250}.nii.gz", "has 257 bytes in UTF-8: a name has at most 255"),
        ("m\udcff.nii.gz", "is not valid UTF-8"),
        ("bad\udcff/mask.nrrd", "is not valid UTF-8"),
    ],
)
@pytest.mark.parametrize("also", [(), ("--overwrite",)])
def test_a_name_that_no_file_can_have_is_rejected_before_work(out, message, also, volumes, capabilities):
    (volumes / "folder.nii.gz").mkdir()
    assert message in refused("segment", "images/a.nii.gz", out, "--click", "8,9,5", *also)


@pytest.mark.parametrize(
    "command",
    [
        ("segment", "images/a.nii.gz", "{}/m.nii.gz", "--click", "8,9,5"),
        ("picture", "images/a.nii.gz", "{}/m.png", "--click", "8,9,5"),
        ("evaluate", "images", "labels", "{}"),
        ("train", "images", "labels", "{}"),
        ("phantom", "{}"),
        ("replay", "images", "images", "{}"),
        ("export", "images", "{}/team.zip"),
        ("export", "images", "team.zip", "--pseudonyms", "{}/key.csv"),
        ("unpack", "images/a.nii.gz", "{}"),
        ("import-msd", "images", "{}"),
        ("import-kits", "images", "{}"),
        ("benchmark", "--json", "{}/b.json"),
        ("convert-reference", "images/a.nii.gz", "{}/w.safetensors"),
        ("convert-litemedsam", "images/a.nii.gz", "{}/w.safetensors"),
        ("fetch", "vit_b", "--folder", "{}"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("x" * 256, "has 256 bytes in UTF-8: a name has at most 255"),
        ("\u80ba" * 86 + "/new", "has 258 bytes in UTF-8: a name has at most 255"),
        ("bad\udcff", "is not valid UTF-8"),
        ("/".join(["x" * 200] * 20), "bytes in UTF-8, too many for a path"),
    ],
    ids=["long", "long above", "not UTF-8", "deep"],
)
def test_every_folder_of_an_output_is_checked_before_work(command, folder, message, volumes):
    assert message in refused(*(part.format(folder) for part in command))
    assert sorted(path.name for path in volumes.iterdir()) == ["images", "labels"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("images/phantom_000.nii.gz/", "phantom_000.nii.gz is a folder"),
        ("images", "images is not a folder"),
        ("labels", "labels is not a folder"),
    ],
)
def test_phantoms_are_not_written_over_anything_else(tmp_path, path, message):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).mkdir() if path.endswith("/") else (tmp_path / path).touch()
    assert message in refused("phantom", tmp_path, "--overwrite")
    assert not list(tmp_path.rglob("phantom_001.nii.gz"))


def test_other_files_of_a_folder_of_phantoms_are_not_mentioned(tmp_path):
    for name in ("images/.lock", "images/datastore_v2.json", "labels/phantom_000.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    message = refused("phantom", tmp_path)
    assert (
        message
        == f"error: {tmp_path}/labels/phantom_000.nii.gz exists: write elsewhere, or add --overwrite to replace it\n"
    )


@pytest.mark.parametrize("name", ["m" * 248, "a\nb", "\u202egpj", "-x", "100%", "[red]", "\u80ba" * 82])
def test_a_mask_may_have_any_other_name(name, volumes, capabilities):
    result = run("segment", "images/a.nii.gz", volumes / f"{name}.nii.gz", "--click", "8,9,5")
    assert result.exit_code == 0, result.output
    assert Volume.open(volumes / f"{name}.nii.gz").shape == SHAPE


@pytest.mark.parametrize("also", [(), ("--overwrite",)])
def test_segment_never_writes_to_its_input(also, volumes, capabilities):
    before = (volumes / "images/a.nii.gz").read_bytes()
    (volumes / "link.nii.gz").symlink_to(volumes / "images/a.nii.gz")
    for out in ("images/a.nii.gz", "link.nii.gz"):
        assert "what the command reads" in refused("segment", "images/a.nii.gz", out, "--click", "8,9,5", *also)
    assert (volumes / "images/a.nii.gz").read_bytes() == before
