"""Convert saved labels to training cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from lib.datastores.metadata import FINAL, PATIENT
from sam3d_label.errors import VolumeError
from sam3d_label.image.labels import open_label, structures
from sam3d_label.image.volume import Volume
from sam3d_label.model_update.update import LabelledCase
from sam3d_label.studies.label_names import name_values
from sam3d_label.training.dataset import TrainingCase


def labelled_cases(
    datastore: Datastore, labels: Sequence[str], patient: str | None = None, unprompted: str | None = None
) -> tuple[list[LabelledCase], dict[str, str]]:
    """Return every image with a final label, and what is wrong with those that cannot be used.

    Args:
        datastore: Images and labels.
        labels: Names of the structures that the app segments.
        patient: Regular expression whose group finds the patient in an image's id; without it, what the datastore
            knows about the image.
        unprompted: The label that is learned without a prompt too; the first without it.

    Returns:
        The usable cases by id, each with a target for every one of the app's labels that is drawn on it; and by id the
        reason why an image, or a structure on it, is left out.
    """
    cases, skipped = [], {}
    for image in sorted(datastore.get_labeled_images()):
        try:
            targets, left_out = find_targets(datastore, image, labels, unprompted)
        except VolumeError as error:
            skipped[image] = str(error)
            continue
        if left_out:
            skipped[f"{image}: {', '.join(left_out)}"] = f"this server segments {', '.join(labels)} only"
        if targets:
            group = group_of(image, patient, datastore.get_image_info(image))
            cases.append(LabelledCase(image, group, tuple(targets)))
        elif not left_out:
            skipped[image] = "the label is empty"
    return cases, skipped


def find_targets(
    datastore: Datastore, image: str, labels: Sequence[str], unprompted: str | None = None
) -> tuple[list[TrainingCase], list[str]]:
    """Return the targets on an image, and the names of what else is drawn on it.

    Without a prompt a network can segment one structure only: with several labels, one of them is learned in this way.

    Raises:
        VolumeError: A file is missing or cannot be read, the volume is larger than any scanner's, the grids differ, or
            the label's values have no names.
    """
    image_file, label_file = datastore.get_image_uri(image), datastore.get_label_uri(image, FINAL)
    if not image_file or not label_file:
        raise VolumeError("the file of the image or of its label is missing")
    label = open_label(label_file)
    volume = Volume.open(image_file)
    volume.require_plausible_size()
    volume.require_same_grid(label)
    present = structures(label)
    names = name_values(present, datastore.get_label_info(image, FINAL), labels)
    several = len(labels) > 1
    drawn = [
        TrainingCase(
            Path(image_file),
            Path(label_file),
            value=value,
            salient=names[value] == (unprompted or labels[0]),
            target=names[value] if several else "",
        )
        for value in present
        if names[value] in labels
    ]
    return drawn, [names[value] for value in present if names[value] not in labels]


def group_of(image: str, patient: str | None, info: Mapping[str, object] | None = None) -> str:
    """Return the group with which an image shares its split in the ledger: its patient, or the image itself.

    Args:
        image: Its id.
        patient: Regular expression whose group finds the patient in an image's id.
        info: Record of the datastore; its `PATIENT` is used where the id does not contain the patient.
    """
    found = re.search(patient, image) if patient else None
    known = found.group(1) if found else (info or {}).get(PATIENT)
    return f"patient {known}" if known else image
