"""Write an archive of a studies folder and a model folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from sam3d_label import __version__
from sam3d_label.archive.manifest import MANIFEST, PART, ArchivedFile, LeftOut, Manifest
from sam3d_label.archive.pseudonyms import Pseudonyms
from sam3d_label.errors import Sam3dError, VolumeError
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.volume import save_mask
from sam3d_label.io import replacing
from sam3d_label.model_update import split_ledger
from sam3d_label.model_update.report import UpdateReport
from sam3d_label.model_update.versions import REPORT, Versions
from sam3d_label.studies import click_log
from sam3d_label.studies.folder import FINAL, KEPT, LISTING, StoredFile, Studies, StudiesListing, StudyImage
from sam3d_label.studies.label_names import name_values
from sam3d_label.weights.locations import ADAPTER, CARD, TRUNK

CLICKS, VERSIONS = "clicks/clicks-000001.jsonl", "versions"
PACKED = (".gz", ".safetensors", ".png")
"""Suffixes of files that are compressed already."""

LABEL = ".nii.gz"
KINDS = (np.uint8, np.uint16, np.int16, np.int32)
"""Voxel types of labels; the first that holds all values is used."""

ABSENT = "its file is not here; from a DICOMweb server it comes when the server trains, or when somebody opens it"
Show = Callable[[str, int, int], None]


@dataclass
class _Archive:
    """An archive that is being written."""

    zip: zipfile.ZipFile
    names: Pseudonyms
    files: list[ArchivedFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, path: str, source: Path | bytes, **about: object) -> None:
        """Add a file, or its content, with its fields in the manifest."""
        info = zipfile.ZipInfo(path)
        info.external_attr = 0o644 << 16
        info.compress_type = zipfile.ZIP_STORED if path.endswith(PACKED) else zipfile.ZIP_DEFLATED
        digest, size = hashlib.sha256(), 0
        with self.zip.open(info, "w", force_zip64=True) as member:
            for part in _parts(source):
                member.write(part)
                digest.update(part)
                size += len(part)
        found = {"path": path, "bytes": size, "sha256": digest.hexdigest()}
        self.files.append(ArchivedFile.model_validate({**found, **about}))

    def add_json(self, path: str, value: object, **about: object) -> None:
        """Add a JSON file without paths and with the archive's names of images."""
        self.add(path, (json.dumps(self.names.clean(value), indent=1) + "\n").encode(), **about)

    def leave_out(self, what: str, why: str) -> None:
        """Record an item that could not be exported."""
        self.left_out.append(LeftOut(what=what, why=str(self.names.clean(why))))


def export(
    folder: Path,
    out: Path,
    *,
    model_dir: Path,
    tags: Sequence[str] = (FINAL,),
    key: Path | None = None,
    progress: Show = lambda *_: None,
) -> Manifest:
    """Write labels, clicks, versions and ledger into one archive; a server may be running on them.

    The unpacked archive can be used by the server when the images are added: it is a studies folder that is also the
    app's model folder. Labels are rewritten, so that they contain only voxels and geometry. Of what clients
    sent along, the names of the structures are kept and nothing else.

    Args:
        folder: The studies; of a DICOMweb server the folder with what was downloaded.
        out: The archive (.zip); it appears whole or not at all.
        model_dir: Model folder of the app, with click log and versions.
        tags: Tags of the labels to export.
        key: Replace the ids of images by numbers, and write the key to this file.
        progress: Called with (id, labels done, labels in all) before each label, and once at the end.

    Returns:
        What is in the archive.

    Raises:
        Sam3dError: There is nothing to export, or a listing is damaged.
        OSError: The archive cannot be written.
    """
    if out.suffix != ".zip":
        raise Sam3dError(f"{out}: the archive's name must end in .zip")
    studies, names = Studies(folder), Pseudonyms(pseudonyms=key is not None)
    listing, reading = studies.read(), _read_clicks(model_dir)
    ledger = _ledger_file(folder, model_dir)
    names.assign({*listing.objects, *_images(reading), *(split_ledger.Ledger(ledger).entries if ledger else ())})
    versions = Versions(model_dir / VERSIONS)
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", strict_timestamps=False) as file:
        archive = _Archive(file, names)
        _add_labels(archive, studies, listing, tags, progress)
        _add_clicks(archive, reading)
        _add_versions(archive, versions)
        if ledger:
            _add_ledger(archive, ledger)
        if not {entry.kind for entry in archive.files} - {"ledger"}:
            raise Sam3dError(_nothing_to_export(folder, model_dir, tags, archive))
        manifest = Manifest(
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            made_by=__version__,
            serves=_active_version(versions, archive),
            pseudonyms=names.pseudonyms,
            files=archive.files,
            left_out=archive.left_out,
        )
        file.writestr(zipfile.ZipInfo(MANIFEST), manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
        if key:
            names.write_key(key)
    return manifest


def _add_labels(
    archive: _Archive, studies: Studies, listing: StudiesListing, tags: Sequence[str], progress: Show
) -> None:
    """Add every label with one of the tags, and a listing in the format of the server."""
    chosen = [(image, tag) for image, found in sorted(listing.objects.items()) for tag in tags if tag in found.labels]
    kept = StudiesListing()
    with tempfile.TemporaryDirectory() as scratch:
        for done, (image, tag) in enumerate(chosen):
            progress(image, done, len(chosen))
            found, name = listing.objects[image], archive.names.of(image)
            file = studies.label_file(listing, image, tag)
            try:
                clean, present = _clean_label(file, Path(scratch, f"label{LABEL}"))
            except (VolumeError, OSError) as error:
                archive.leave_out(f"label {name} ({tag})", str(error).replace(str(file), "the file"))
                continue
            names = _value_names(present, found.labels[tag])
            path = f"{kept.labels_dir}/{tag}/{name}{LABEL}"
            archive.add(path, clean, kind="label", case=name, tag=tag, names=names)
            entry = kept.objects.setdefault(name, StudyImage(image=StoredFile(ext=found.image.ext)))
            info = {"label_info": [{"name": said, "idx": value} for value, said in names.items()]} if names else {}
            entry.labels[tag] = StoredFile(ext=LABEL, info=info)
    for image, tag in studies.absent_labels():
        if tag in tags:
            archive.leave_out(f"label {archive.names.of(image)} ({tag})", ABSENT)
    for tag in tags:
        for image, reason in studies.unusable_labels(listing, tag):
            archive.leave_out(f"label {archive.names.of(image)} ({tag})", reason)
    if kept.objects:
        archive.add(LISTING, kept.model_dump_json(indent=1).encode(), kind="listing")
    progress("", len(chosen), len(chosen))


def _clean_label(file: Path, copy: Path) -> tuple[Path, list[int]]:
    """Return a copy of a label with voxels and geometry only, and its values except 0.

    Raises:
        VolumeError: It cannot be read, or is no label.
    """
    label = open_label(file)
    lowest, highest = label.array.min(), label.array.max()
    small = next(kind for kind in KINDS if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max)
    save_mask(copy, label.array.astype(small), label)
    return copy, structures(label)


def _value_names(present: Sequence[int], label: StoredFile) -> dict[int, str]:
    """Return the names of a label's values; none where they are not known."""
    try:
        return name_values(present, label.info, ())
    except VolumeError:
        return {}


def _read_clicks(model_dir: Path) -> click_log.LogContent:
    try:
        return click_log.read_log(model_dir)
    except Sam3dError:
        return click_log.LogContent([], 0)


def _images(reading: click_log.LogContent) -> set[str]:
    return {request.image for request in reading.requests if request.image and not request.of_session}


def _add_clicks(archive: _Archive, reading: click_log.LogContent) -> None:
    if reading.damaged:
        archive.leave_out("click log", f"{reading.damaged} lines cannot be read")
    if not reading.requests:
        return
    lines = []
    for request in reading.requests:
        image = request.image
        named = image if image is None or request.of_session else archive.names.of(image)
        error = archive.names.clean(request.error)
        lines.append(request.model_copy(update={"image": named, "error": error}).model_dump_json() + "\n")
    archive.add(CLICKS, "".join(lines).encode(), kind="clicks", requests=len(lines))


def _add_versions(archive: _Archive, versions: Versions) -> None:
    for version in versions.names():
        try:
            folder, report = versions.path(version), versions.report(version)
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            archive.leave_out(f"version {version}", str(error))
            continue
        place = f"{VERSIONS}/{version}"
        for name in (ADAPTER, TRUNK):
            if (folder / name).is_file():
                archive.add(f"{place}/{name}", folder / name, kind="version", version=version)
        archive.add_json(f"{place}/{CARD}", card, kind="version", version=version)
        if report:
            if archive.names.pseudonyms:
                report = _without_skipped(report)
            content = report.model_dump(mode="json", exclude_unset=True)
            archive.add_json(f"{place}/{REPORT}", content, kind="version", version=version)


def _without_skipped(report: UpdateReport) -> UpdateReport:
    """Return a report without skipped cases: removed images and reference cases, whose names are not known as ids."""
    changes: dict[str, object] = {"skipped": {}}
    if report.reference:
        changes["reference"] = report.reference.model_copy(update={"skipped": {}})
    return report.model_copy(update=changes)


def _active_version(versions: Versions, archive: _Archive) -> str | None:
    current = versions.current()
    return current if any(entry.version == current for entry in archive.files if entry.version) else None


def _ledger_file(folder: Path, model_dir: Path) -> Path | None:
    """Return the ledger of the studies: in their folder, or in the model folder if they are on a DICOMweb server."""
    found = [folder / KEPT / split_ledger.FILE, *sorted(model_dir.glob("ledger-*.json"))]
    return next((path for path in found if path.is_file()), None)


def _add_ledger(archive: _Archive, path: Path) -> None:
    names, content = archive.names, json.loads(path.read_text(encoding="utf-8"))
    content["cases"] = {
        names.of(case): {**entry, "group": names.of_group(entry["group"])} for case, entry in content["cases"].items()
    }
    archive.add(f"{KEPT}/{split_ledger.FILE}", (json.dumps(content, indent=1) + "\n").encode(), kind="ledger")


def _nothing_to_export(folder: Path, model_dir: Path, tags: Sequence[str], archive: _Archive) -> str:
    why = f"; {archive.left_out[0].what}: {archive.left_out[0].why}" if archive.left_out else ""
    return (
        f"there is nothing to export: no label under {', '.join(tags)} in {folder}, no click log and no version in"
        f" {model_dir}; name the app's model folder with --model-dir{why}"
    )


def _parts(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while part := file.read(PART):
            yield part
