"""Public data sets into a studies folder: what arrives, what is refused, and what a second run finds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from sam3d_label.cli.app import app
from sam3d_label.errors import Sam3dError
from sam3d_label.studies.folder import Studies
from sam3d_label.studies.public_datasets import import_data, open_kits, open_msd
from sam3d_label.synthetic import write_phantoms

SHAPE = (12, 10, 8)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def image(seed: int = 0, channels: int = 0) -> np.ndarray:
    shape = (*SHAPE, channels) if channels else SHAPE
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def label(*values: int) -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        drawn[2 + 2 * place] = value
    return drawn


def write_msd(folder: Path, channels: int = 0, training: int = 3, test: int = 1) -> Path:
    """A task with a label of two structures on each training image, as the Decathlon distributes it."""
    names = {"0": "FLAIR", "1": "T1w"} if channels else {"0": "CT"}
    told = {
        "name": "Liver",
        "description": "Liver and cancer",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D" if channels else "3D",
        "modality": names,
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": training,
        "numTest": test,
        "training": [
            {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"} for n in range(training)
        ],
        "test": [f"./imagesTs/liver_{training + n}.nii.gz" for n in range(test)],
    }
    for n in range(training + test):
        write(folder / ("imagesTr" if n < training else "imagesTs") / f"liver_{n}.nii.gz", image(n, channels))
    for n in range(training):
        write(folder / "labelsTr" / f"liver_{n}.nii.gz", label(1, 2))
    (folder / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def listing(studies: Path) -> dict:
    return json.loads((studies / "datastore_v2.json").read_text(encoding="utf-8"))["objects"]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj)


@pytest.fixture
def msd(tmp_path):
    return write_msd(tmp_path / "Task03_Liver")


@pytest.fixture
def studies(tmp_path):
    return tmp_path / "studies"


def test_a_task_of_the_decathlon_arrives_with_named_labels(msd, studies):
    result = run("import-msd", msd, studies)
    assert result.exit_code == 0, result.output
    assert "imported 4 of 4 cases" in result.stdout
    assert "3 have a label: liver, cancer" in result.stdout
    assert f"--studies {studies} --conf labels liver,cancer" in result.stdout
    found = listing(studies)
    assert sorted(found) == [f"liver_{n}" for n in range(4)]
    assert found["liver_3"]["labels"] == {}
    info = found["liver_0"]["labels"]["final"]["info"]
    assert info["label_info"] == [{"name": "liver", "idx": 1}, {"name": "cancer", "idx": 2}]
    assert (studies / "liver_3.nii.gz").read_bytes() == (msd / "imagesTs/liver_3.nii.gz").read_bytes()
    assert (studies / "labels/final/liver_1.nii.gz").read_bytes() == (msd / "labelsTr/liver_1.nii.gz").read_bytes()


def test_a_second_run_finds_everything_there_and_changes_nothing(msd, studies):
    run("import-msd", msd, studies)
    before = tree(studies)
    result = run("import-msd", msd, studies)
    assert "imported 0 of 4 cases" in result.stdout
    assert "4 already present" in result.stdout
    assert tree(studies) == before


def test_what_annotators_changed_since_stays(msd, studies):
    run("import-msd", msd, studies)
    mended = write(studies / "labels/final/liver_0.nii.gz", label(2)).read_bytes()
    (studies / "labels/final/liver_1.nii.gz").unlink()
    result = run("import-msd", msd, studies)
    assert "imported 1 of 4" in result.stdout
    assert (studies / "labels/final/liver_0.nii.gz").read_bytes() == mended
    assert (studies / "labels/final/liver_1.nii.gz").exists()


@pytest.mark.parametrize(("channel", "number"), [("1", 1), ("t1w", 1), ("FLAIR", 0)])
def test_of_images_with_channels_one_is_chosen(tmp_path, studies, channel, number):
    task = write_msd(tmp_path / "Task01", channels=2)
    result = run("import-msd", task, studies, "--channel", channel)
    assert result.exit_code == 0, result.output
    stored = nib.Nifti1Image.from_filename(studies / "liver_1.nii.gz")
    assert np.array_equal(np.asanyarray(stored.dataobj), image(1, 2)[..., number])
    assert np.array_equal(stored.affine, AFFINE)
    assert "4 already present" in run("import-msd", task, studies, "--channel", channel).stdout


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip().count("\n") == 0
    return result.stderr


def test_what_cannot_be_imported_at_all_is_one_line(tmp_path, studies, msd):
    several = write_msd(tmp_path / "Task01", channels=2)
    assert "2 channels (0 FLAIR, 1 T1w): choose one with --channel" in refusal("import-msd", several, studies)
    assert "no such channel; choose one of 0 FLAIR, 1 T1w" in refusal("import-msd", several, studies, "--channel", "7")
    assert "no such channel; choose one of 0 CT" in refusal("import-msd", msd, studies, "--channel", "T1w")
    assert "give the folder of one task" in refusal("import-msd", tmp_path, studies)
    assert "holds no folders case_00000" in refusal("import-kits", tmp_path, studies)
    (msd / "dataset.json").write_text('{"labels": ["liver"]}', encoding="utf-8")
    assert "not one of the Medical Segmentation Decathlon" in refusal("import-msd", msd, studies)
    assert not studies.exists()


def test_each_case_that_cannot_be_used_is_reported_with_its_reason_and_the_others_arrive(msd, studies):
    (msd / "imagesTr/liver_0.nii.gz").write_bytes(b"no volume")
    write(msd / "labelsTr/liver_1.nii.gz", label(1), AFFINE @ np.diag([-1, 1, 1, 1]))
    write(msd / "labelsTr/liver_2.nii.gz", label(1, 7))
    result = run("import-msd", msd, studies)
    assert result.exit_code == 0, result.output
    reasons = dict(line.removeprefix("rejected ").split(": ", 1) for line in result.stderr.splitlines())
    assert "cannot be read as a volume" in reasons["liver_0"]
    assert "mm away from the image" in reasons["liver_1"]
    assert "holds the values 7, but the data set names only 1 = liver, 2 = cancer" in reasons["liver_2"]
    assert sorted(listing(studies)) == ["liver_3"]
    assert {path.name for path in studies.glob("*.nii.gz")} == {"liver_3.nii.gz"}


def test_when_no_case_is_usable_it_fails(msd, studies):
    for file in msd.glob("*/*.nii.gz"):
        file.write_bytes(b"no volume")
    assert "none of 4 cases of Liver could be imported; liver_0: " in refusal("import-msd", msd, studies)


def test_an_image_of_the_same_name_in_the_studies_is_not_replaced(msd, studies):
    own = write(studies / "liver_0.nii.gz", image(99)).read_bytes()
    same = (msd / "imagesTr/liver_1.nii.gz").read_bytes()
    (studies / "liver_1.nii.gz").write_bytes(same)
    result = run("import-msd", msd, studies)
    assert "rejected liver_0: the studies hold another image of this name" in result.stderr
    assert (studies / "liver_0.nii.gz").read_bytes() == own
    assert listing(studies)["liver_1"]["labels"]["final"]["info"]["label_info"][0]["name"] == "liver"


@pytest.mark.parametrize("end", [".nii", ".NII.GZ", ".nrrd"])
@pytest.mark.parametrize(("folder", "kind"), [(".", "image"), ("labels/final", "label")])
@pytest.mark.parametrize("content", ["volume", "damaged"])
def test_a_file_of_the_user_with_another_suffix_still_has_its_id(msd, studies, end, folder, kind, content):
    own = studies / folder / f"liver_0{end}"
    own.parent.mkdir(parents=True)
    if content == "volume" and end != ".nrrd":
        write(own.with_suffix(".nii"), image(99)).rename(own)
    else:
        own.write_bytes(b"of the user")
    before = own.read_bytes()
    result = run("import-msd", msd, studies)
    assert f"rejected liver_0: the studies hold another {kind} of this name, {own.name}: move it away" in result.stderr
    assert own.read_bytes() == before
    assert "liver_0" not in listing(studies)
    assert not list(studies.rglob("liver_0.nii.gz"))
    assert "liver_1" in listing(studies)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_voxels_with_another_suffix_or_type_are_served_as_they_are(msd, studies, dtype):
    own = write(studies / "liver_0.nii", image(0).astype(dtype))
    result = run("import-msd", msd, studies)
    assert "imported 4 of 4" in result.stdout
    assert listing(studies)["liver_0"]["image"]["ext"] == ".nii"
    assert not (studies / "liver_0.nii.gz").exists()
    assert Studies(studies).read().objects["liver_0"].image.info["name"] == own.name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 220, "220 bytes in UTF-8"),
        ("a\nb", "U+000A"),
        (" a", "remove the space"),
        ("a\u202eb", "U+202E"),
    ],
)
def test_an_image_whose_name_the_server_does_not_accept_is_rejected(msd, studies, name, reason):
    (msd / "imagesTr/liver_0.nii.gz").rename(msd / "imagesTr" / f"{name}.nii.gz")
    told = (msd / "dataset.json").read_text().replace('"./imagesTr/liver_0.nii.gz"', json.dumps(f"{name}.nii.gz"))
    (msd / "dataset.json").write_text(told.replace(json.dumps(f"{name}.nii.gz"), json.dumps(f"imagesTr/{name}.nii.gz")))
    result = run("import-msd", msd, studies)
    assert "imported 3 of 4 cases" in result.stdout
    assert "does not accept this name as an image id" in result.stderr
    assert reason in " ".join(result.stderr.split())
    assert len(list(studies.glob("*.nii.gz"))) == 3


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["liver,cancer"], "it holds a comma"),
        (["a\\b"], "it holds a backslash"),
        ([" liver"], "remove the space"),
        (["x" * 65], "65 characters"),
        (["liver", "liver"], "another structure has this name"),
        (["L\u00e9sion", "Le\u0301sion"], "another structure has this name"),
    ],
)
def test_a_structure_that_cannot_be_a_label_is_named(msd, studies, names, reason):
    told = json.loads((msd / "dataset.json").read_text())
    told["labels"] = {"0": "background", **{str(value): name for value, name in enumerate(names, start=1)}}
    (msd / "dataset.json").write_text(json.dumps(told))
    message = refusal("import-msd", msd, studies)
    assert f"calls value {len(names)} " in message
    assert "cannot be a label" in message
    assert reason in message
    assert not studies.exists()


@pytest.mark.parametrize("moves", range(6))
def test_a_run_that_was_cut_off_leaves_whole_files_and_is_gone_on_with(msd, studies, monkeypatch, moves):
    whole = tree(msd)
    replace, left = os.replace, iter(range(moves))

    def cut_off(source, target):
        if next(left, None) is None:
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", cut_off)
        assert "the disk is full" in refusal("import-msd", msd, studies)
    for file in studies.rglob("*.nii.gz"):
        assert file.read_bytes() in whole.values()
    for case, entry in (listing(studies) if (studies / "datastore_v2.json").exists() else {}).items():
        assert (studies / f"{case}.nii.gz").exists()
        assert bool(entry["labels"]) == (case != "liver_3")
    assert run("import-msd", msd, studies).exit_code == 0
    assert len(listing(studies)) == 4
    assert not list((studies / ".sam3d").glob("import-*"))


def test_links_share_the_data_sets_files(msd, studies):
    run("import-msd", msd, studies, "--link")
    assert (studies / "liver_0.nii.gz").samefile(msd / "imagesTr/liver_0.nii.gz")
    assert (studies / "labels/final/liver_0.nii.gz").samefile(msd / "labelsTr/liver_0.nii.gz")


def test_two_imports_into_one_folder_do_not_meet(msd, studies):
    def second(case, done, total):
        if done == 1:
            with pytest.raises(Sam3dError, match="another import"):
                import_data(open_msd(msd), studies)

    assert len(import_data(open_msd(msd), studies, progress=second).added) == 4


def test_what_other_programs_keep_in_the_listing_is_kept(msd, studies):
    studies.mkdir()
    given = {"name": "ours", "description": "d", "images_dir": ".", "labels_dir": "labels", "more": 1, "objects": {}}
    (studies / "datastore_v2.json").write_text(json.dumps(given), encoding="utf-8")
    run("import-msd", msd, studies)
    after = json.loads((studies / "datastore_v2.json").read_text(encoding="utf-8"))
    assert (after["name"], after["more"], len(after["objects"])) == ("ours", 1, 4)
    (studies / "datastore_v2.json").write_text("{", encoding="utf-8")
    assert "is damaged" in refusal("import-msd", msd, studies)


@pytest.fixture
def kits(tmp_path):
    """KiTS as its repositories have it: one case of each kind, and one whose image was not downloaded."""
    folder = tmp_path / "kits21" / "kits21" / "data"
    write_phantoms(tmp_path / "phantoms", 1, 0)
    (scan,) = (tmp_path / "phantoms/images").iterdir()
    for case in range(3):
        (folder / f"case_0000{case}").mkdir(parents=True)
        os.link(scan, folder / f"case_0000{case}" / "imaging.nii.gz")
    (drawn,) = (tmp_path / "phantoms/labels").iterdir()
    os.link(drawn, folder / "case_00000" / "segmentation.nii.gz")
    majority = voxels(drawn).astype(np.uint8) * 3
    write(folder / "case_00001/aggregated_MAJ_seg.nii.gz", majority, nib.Nifti1Image.from_filename(drawn).affine)
    write(folder / "case_00001/segmentation.nii.gz", label(1))
    (folder / "case_00003").mkdir()
    os.link(drawn, folder / "case_00003" / "segmentation.nii.gz")
    return tmp_path / "kits21"


def test_kits_arrives_with_its_names(kits, studies):
    result = run("import-kits", kits, studies)
    assert result.exit_code == 0, result.output
    assert "imported 3 of 4 cases" in result.stdout
    assert "labels kidney,tumor,cyst" in result.stdout
    assert "case_00003: " in result.stderr
    assert "imaging.nii.gz is missing" in result.stderr
    found = listing(studies)
    names = [one["name"] for one in found["case_00001"]["labels"]["final"]["info"]["label_info"]]
    assert names == ["kidney", "tumor", "cyst"]
    assert found["case_00002"]["labels"] == {}
    assert set(np.unique(voxels(studies / "labels/final/case_00001.nii.gz"))) == {0, 3}


@pytest.mark.parametrize("inside", ["data", "dataset", "."])
def test_kits_is_found_in_the_folders_of_its_repositories(tmp_path, inside):
    (tmp_path / inside / "case_00042").mkdir(parents=True)
    assert [case.id for case in open_kits(tmp_path).cases] == ["case_00042"]


@pytest.mark.parametrize("command", ["import-msd", "import-kits"])
def test_help_shows_examples(command):
    assert f"python -m sam3d_label {command} " in run(command, "--help").stdout


def test_the_studies_read_files_that_nobody_has_listed(tmp_path):
    write(tmp_path / "a.nii.gz", image())
    write(tmp_path / "labels/final/a.nii.gz", label(1))
    write(tmp_path / "labels/original/b.nii.gz", label(1))
    found = Studies(tmp_path).read().objects
    assert list(found) == ["a"]
    assert list(found["a"].labels) == ["final"]
