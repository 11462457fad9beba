"""Remove identifying data before an export: paths and, optionally, the ids of images."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sam3d_label.io import replacing

PATH = re.compile(r"(?<![\w./\\])(?!(?<=:)//)(?:~|[A-Za-z]:)?(?:[/\\]+[^\s/\\'\",;:()]+){2,}[/\\]?")
"""An absolute path of a machine in a text."""


class Pseudonyms:
    """Pseudonyms of images, and of groups such as patients, in an archive.

    Args:
        pseudonyms: Whether to replace ids by numbers; else the ids of the studies are used.
    """

    def __init__(self, pseudonyms: bool = False) -> None:
        self.pseudonyms = pseudonyms
        self._given: dict[str, str] = {}
        self._groups: dict[str, str] = {}

    def of(self, image: str) -> str:
        """Return the pseudonym of an image."""
        if not self.pseudonyms:
            return image
        return self._given.setdefault(image, f"case-{len(self._given) + 1:04d}")

    def of_group(self, group: str) -> str:
        """Return the pseudonym of a group of the ledger; a group of a single image has the pseudonym of the image."""
        if not self.pseudonyms or group in self._given:
            return self.of(group)
        return self._groups.setdefault(group, f"group-{len(self._groups) + 1:04d}")

    def assign(self, images: Iterable[str]) -> None:
        """Assign numbers to images in the order of their ids, independent of the order in which files are read."""
        for image in sorted(images):
            self.of(image)

    def clean(self, value: object) -> object:
        """Replace image ids in a JSON value by their pseudonyms and remove paths from its texts."""
        if isinstance(value, Mapping):
            return {self._text(str(key)): self.clean(held) for key, held in value.items()}
        if isinstance(value, list):
            return [self.clean(held) for held in value]
        return self._text(value) if isinstance(value, str) else value

    def write_key(self, path: Path) -> None:
        """Write the image id of each pseudonym, readable by the owner of the file only.

        Raises:
            OSError: The file cannot be written.
        """
        with replacing(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(("pseudonym", "image"))
                rows.writerows((pseudonym, image) for image, pseudonym in self._given.items())

    def _text(self, text: str) -> str:
        if self._given:
            longest_first = sorted(map(re.escape, self._given), key=len, reverse=True)
            known = re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])")
            text = known.sub(lambda found: self._given[found.group()], text)
        return PATH.sub("…", text)
