"""Labels, clicks and versions as one archive: what is in it, what is not, and that damage is found."""

from __future__ import annotations

import gzip
import json
import shutil
import stat
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from sam3d_label.archive.manifest import MANIFEST, Manifest
from sam3d_label.archive.pack import export
from sam3d_label.archive.pseudonyms import PATH, Pseudonyms
from sam3d_label.archive.unpack import check, unpack
from sam3d_label.cli.app import app
from sam3d_label.errors import Sam3dError
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.versions import REPORT, Versions
from sam3d_label.segmentation.prompts import Click, Prompts
from sam3d_label.studies.click_log import ClickLog, LoggedPrompts, LoggedRequest, read_log
from sam3d_label.studies.folder import StoredFile, Studies, StudyImage
from sam3d_label.weights import open_weights
from sam3d_label.weights.adapter import save_whole

SHAPE = (12, 10, 8)
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])
SECRET = "Doe^John"
PEOPLE = {"client_id": f"user-{SECRET}", "label_info": [{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 2}]}


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = nib.Nifti1Image(array, AFFINE)
    stored.header["descrip"] = SECRET.encode()
    nib.save(stored, path)
    return path


def drawn(*values: int) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        label[2 + 2 * place, 3:7, 2:6] = value
    return label


def request(image: str | None, **more) -> LoggedRequest:
    prompts = LoggedPrompts.of(Prompts((Click((2, 4, 3)), Click((9, 9, 7), positive=False))))
    given = {"at": "2026-01-02T03:04:05.678+00:00", "model": "sam3d", "prompts": prompts, "seconds": 0.5}
    return LoggedRequest(image=image, **{**given, **more})


@pytest.fixture
def team(tmp_path, small_weights):
    """studies/ with two labelled images of three, and model/ with clicks and two versions, one of which serves."""
    studies = Studies(tmp_path / "studies")
    for number, name in enumerate(("anna", "berta", "clara")):
        write(studies.folder / f"{name}.nii.gz", np.full(SHAPE, number, np.float32))
    write(studies.folder / "labels/final/anna.nii.gz", drawn(1, 2))
    write(studies.folder / "labels/final/berta.nii.gz", drawn(1))
    write(studies.folder / "labels/original/clara.nii.gz", drawn(1))
    with studies.changing() as listing:
        info = {"name": "anna.nii.gz", "params": {"path": "/home/doe/anna"}, **PEOPLE}
        labels = {"final": StoredFile(ext=".nii.gz", info=info)}
        listing.objects["anna"] = StudyImage(image=StoredFile(ext=".nii.gz", info={"patient": SECRET}), labels=labels)
    log = ClickLog(tmp_path / "model" / "clicks")
    for each in (request("anna"), request("session-0123456789ab"), request(None, error="PromptError: wrong")):
        log.append(each)
    versions = Versions(tmp_path / "model" / "versions")
    for _ in range(2):
        with versions.new_version() as (version, folder):
            save_whole(small_weights.model, folder / "adapter.safetensors")
            small_weights.card.model_copy(update={"version": version}).write(folder / "card.json")
            report = {
                "train": ["anna"],
                "validation": ["berta"],
                "gate": {"passes": True},
                "skipped": {"dora": "/srv/studies/dora.nii.gz is damaged", "clara: cyst": "not here"},
                "reference": {
                    **{"digest": "0", "baseline_version": "shipped"},
                    "skipped": {"emil.nii.gz": "/srv/reference/labels/emil.nii.gz is empty"},
                },
            }
            (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    versions.publish("0002", "gate")
    Ledger(tmp_path / "studies" / ".sam3d" / "ledger.json").assign({"anna": "patient anna-1", "berta": "berta"})
    return tmp_path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def exported(team: Path, **more) -> Manifest:
    return export(team / "studies", team / "out.zip", model_dir=team / "model", **more)


def contents(archive: Path) -> dict[str, bytes]:
    """Every file of an archive, unpacked where it is packed again."""
    with zipfile.ZipFile(archive) as file:
        held = {name: file.read(name) for name in file.namelist()}
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in held.items()}


def rewritten(archive: Path, change) -> None:
    """Write an archive again with other contents."""
    with zipfile.ZipFile(archive) as file:
        held = {name: file.read(name) for name in file.namelist()}
    change(held)
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in held.items():
            file.writestr(name, data)


def test_what_was_exported_comes_back(team):
    told = run("export", team / "studies", team / "out.zip", "--model-dir", team / "model")
    assert told.exit_code == 0, told.output
    assert "2 labels, 3 requests, 2 versions" in told.stdout
    back = run("unpack", team / "out.zip", team / "back")
    assert back.exit_code == 0, back.output
    for name in ("anna", "berta"):
        before, after = (
            nib.Nifti1Image.from_filename(team / place / f"labels/final/{name}.nii.gz") for place in ("studies", "back")
        )
        assert np.array_equal(before.get_fdata(), after.get_fdata())
        assert np.allclose(before.affine, after.affine)
    assert read_log(team / "back").requests == read_log(team / "model").requests
    versions = Versions(team / "back" / "versions")
    assert versions.names() == ["0001", "0002"]
    assert versions.current() == "0002"
    ours, theirs = (open_weights(team / place / "versions" / "0002") for place in ("model", "back"))
    assert theirs.version == ours.version
    assert all((ours.model.state_dict()[name] == tensor).all() for name, tensor in theirs.model.state_dict().items())
    assert Ledger(team / "back/.sam3d/ledger.json").entries == Ledger(team / "studies/.sam3d/ledger.json").entries


def test_what_was_unpacked_is_a_studies_folder_once_the_images_lie_in_it(team):
    exported(team)
    unpack(team / "out.zip", team / "back")
    assert Studies(team / "back").read().objects == {}
    shutil.copy(team / "studies/anna.nii.gz", team / "back")
    (anna,) = Studies(team / "back").read().objects.values()
    assert anna.labels["final"].info == {"label_info": [{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 2}]}


def test_the_manifest_says_what_each_file_is(team):
    manifest = exported(team)
    labels = {entry.case: entry for entry in manifest.of("label")}
    assert labels.keys() == {"anna", "berta"}
    assert labels["anna"].names == {1: "tumor", 2: "cyst"}
    assert labels["berta"].names == {}
    assert {entry.version for entry in manifest.of("version")} == {"0001", "0002"}
    assert manifest.serves == "0002"
    assert check(team / "out.zip") == manifest
    held = contents(team / "out.zip")
    assert json.loads(held[MANIFEST])["format_version"] == 1
    assert held.keys() - {MANIFEST} == {entry.path for entry in manifest.files}


def test_tags_can_be_chosen(team):
    told = run("export", team / "studies", team / "out.zip", "--model-dir", team / "model", "--tag", "original")
    assert "1 labels" in told.stdout
    assert [entry.case for entry in check(team / "out.zip").of("label")] == ["clara"]


def test_no_name_and_no_path_is_in_the_archive(team):
    exported(team)
    for name, data in contents(team / "out.zip").items():
        assert SECRET.encode() not in data, name
        assert str(team).encode() not in data, name
        assert b"/home" not in data, name
        assert b"/srv" not in data, name


def test_pseudonyms_replace_the_ids_everywhere_and_the_key_stays(team):
    told = run(
        "export", team / "studies", team / "out.zip", "--model-dir", team / "model", "--pseudonyms", team / "key.csv"
    )
    assert told.exit_code == 0, told.output
    for name, data in contents(team / "out.zip").items():
        for image in (b"anna", b"berta", b"clara", b"dora", b"emil"):
            assert image not in data, name
            assert image not in name.encode()
    key = (team / "key.csv").read_text(encoding="utf-8").splitlines()
    assert key == ["pseudonym,image", "case-0001,anna", "case-0002,berta", "case-0003,clara"]
    assert stat.S_IMODE((team / "key.csv").stat().st_mode) == 0o600
    unpack(team / "out.zip", team / "back")
    assert [each.image for each in read_log(team / "back").requests] == ["case-0001", "session-0123456789ab", None]
    report = Versions(team / "back/versions").report("0002")
    assert (report.train, report.validation) == (["case-0001"], ["case-0002"])
    sides = Ledger(team / "back/.sam3d/ledger.json").entries
    assert {case: entry.group for case, entry in sides.items()} == {"case-0001": "group-0001", "case-0002": "case-0002"}


def test_what_cannot_be_exported_is_reported_and_the_rest_is_exported(team):
    (team / "studies/labels/final/berta.nii.gz").write_bytes(b"no label" * 99)
    (team / "model/versions/0001/adapter.safetensors").unlink()
    with next((team / "model/clicks").glob("*.jsonl")).open("ab") as file:
        file.write(b'{"torn')
    with Studies(team / "studies").changing() as listing:
        listing.objects["clara"] = StudyImage(
            image=StoredFile(ext=".nii.gz"), labels={"final": StoredFile(ext=".nii.gz")}
        )
    told = run("export", team / "studies", team / "out.zip", "--model-dir", team / "model")
    assert told.exit_code == 0, told.output
    assert "1 labels, 3 requests, 1 versions" in told.stdout
    left = {each.what: each.why for each in check(team / "out.zip").left_out}
    assert left.keys() == {"label berta (final)", "label clara (final)", "version 0001", "click log"}
    assert "lacks adapter.safetensors" in left["version 0001"]
    assert all(f"left out {what}: {why}" in told.stderr for what, why in left.items())
    assert str(team) not in " ".join(left.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("studies", "out.tar"), "the name of an archive ends in .zip"),
        (("nowhere", "out.zip"), "nowhere does not exist"),
        (("empty", "out.zip", "--model-dir", "empty"), "there is nothing to export"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(team, monkeypatch, arguments, message):
    monkeypatch.chdir(team)
    (team / "empty").mkdir()
    before = sorted(team.rglob("*"))
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(team.rglob("*")) == before


def truncate(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-2000])


def flip(archive: Path) -> None:
    whole = bytearray(archive.read_bytes())
    whole[len(whole) // 3] ^= 0xFF
    archive.write_bytes(whole)


def lose_a_label(archive: Path) -> None:
    rewritten(archive, lambda held: held.pop("labels/final/anna.nii.gz"))


def change_a_label(archive: Path) -> None:
    rewritten(archive, lambda held: held.update({"labels/final/anna.nii.gz": held["labels/final/berta.nii.gz"]}))


def slip_one_in(archive: Path) -> None:
    rewritten(archive, lambda held: held.update({"../evil": b""}))


def drop_the_manifest(archive: Path) -> None:
    rewritten(archive, lambda held: held.pop(MANIFEST))


def edit(archive: Path, old: str, new: str) -> None:
    rewritten(archive, lambda held: held.update({MANIFEST: held[MANIFEST].decode().replace(old, new).encode()}))


def come_from_the_future(archive: Path) -> None:
    edit(archive, '"format_version": 1', '"format_version": 2')


def list_a_way_out(archive: Path) -> None:
    edit(archive, "labels/final/anna.nii.gz", "../anna.nii.gz")


def be_text(archive: Path) -> None:
    archive.write_text("no archive", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "is damaged or not an archive"),
        (flip, "damaged"),
        (lose_a_label, "lacks labels/final/anna.nii.gz"),
        (change_a_label, "labels/final/anna.nii.gz in"),
        (slip_one_in, "holds, unlisted, ../evil"),
        (drop_the_manifest, "holds no manifest.json"),
        (come_from_the_future, "update sam3d_label"),
        (list_a_way_out, "does not name a file inside the archive"),
        (be_text, "is damaged or not an archive"),
        (Path.unlink, "does not exist"),
    ],
)
def test_a_damaged_archive_is_refused_and_leaves_nothing(team, damage, message):
    exported(team)
    damage(team / "out.zip")
    for arguments in (["--check"], [team / "back"]):
        result = run("unpack", team / "out.zip", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in team.iterdir() if path.name != "out.zip") == ["model", "studies"]


def test_unpacking_takes_a_new_folder_only(team):
    exported(team)
    with pytest.raises(Sam3dError, match="is not empty"):
        unpack(team / "out.zip", team / "studies")
    assert run("unpack", team / "out.zip").exit_code == 2
    assert run("unpack", team / "out.zip", "--check").exit_code == 0


@pytest.mark.parametrize("folder", [".", "../" + "x" * 255, "../new/deep", "../link"])
def test_unpacking_fills_a_folder_that_is_empty_wherever_it_is(team, monkeypatch, folder):
    exported(team)
    for name in ("empty", "target"):
        (team / name).mkdir()
    (team / "link").symlink_to(team / "target")
    monkeypatch.chdir(team / "empty")
    before = Path(folder).stat().st_ino if Path(folder).exists() else None
    result = run("unpack", "../out.zip", folder)
    assert result.exit_code == 0, result.output
    assert {"clicks", "labels", "versions"} <= {path.name for path in Path(folder).iterdir()}
    assert before in {None, Path(folder).stat().st_ino}  # the current folder of a shell stays
    assert not list(team.rglob(".part-*"))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("the label is empty", "the label is empty"),
        ("/home/doe/x.nii.gz is damaged", "… is damaged"),
        ("cannot read '/home/doe/x.nii.gz': no", "cannot read '…': no"),
        (r"C:\Users\doe\x.nii.gz is damaged", "… is damaged"),
        ("~/studies/x", "…"),
        ("Dice/NSD of 1/2 and 3/4", "Dice/NSD of 1/2 and 3/4"),
        ("https://doi.org/10.7937/K9", "https://doi.org/10.7937/K9"),
    ],
)
def test_paths_leave_texts_and_nothing_else_does(text, cleaned):
    assert PATH.sub("…", text) == cleaned


def test_names_within_longer_names_stay():
    names = Pseudonyms(pseudonyms=True)
    names.assign(["a", "a-1"])
    assert names.clean({"a: tumor": ["a-1.nii.gz", "abc", 3, None]}) == {
        "case-0001: tumor": ["case-0002.nii.gz", "abc", 3, None]
    }
