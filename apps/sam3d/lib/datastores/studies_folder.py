"""Whether the studies folder is there, and is the one that was opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from lib.errors import StudiesGoneError

logger = logging.getLogger(__name__)
GONE = (
    "The studies folder is gone, or another folder is in its place: mount its disk again. Nothing is read or stored"
    " until it is back; restart the server to use the folder that is there now"
)
EMPTY = (
    "The studies folder is empty. A folder that does not exist is made: check the spelling of --studies if this is not"
    " what you want"
)


class StudiesFolder:
    """The studies folder, identified by its device and inode.

    Args:
        folder: The folder, which exists.
        is_known: Whether the current content of the folder was there before. A disk that is mounted again may have
            another device number.
    """

    def __init__(self, folder: str, is_known: Callable[[], bool]) -> None:
        self._folder, self._is_known = folder, is_known
        self._place = device_and_inode(folder)
        self._is_gone = False

    def check(self) -> bool:
        """Return whether the folder has just come back.

        Raises:
            StudiesGoneError: It is not there, or it is another one.
        """
        place = device_and_inode(self._folder)
        if place is None or (place != self._place and not self._is_known()):
            if not self._is_gone:
                logger.error(GONE)
            self._is_gone = True
            raise StudiesGoneError(GONE)
        self._place = place
        is_back, self._is_gone = self._is_gone, False
        if is_back:
            logger.warning("The studies folder is back")
        return is_back


def device_and_inode(folder: str) -> tuple[int, int] | None:
    """Return device and inode of a folder; None when it cannot be reached."""
    try:
        stat = os.stat(folder)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def check_studies(folder: Path, must_exist: bool = False) -> None:
    """Warn of an empty studies folder: MONAI Label makes one that does not exist, such as one with a typing error.

    Args:
        folder: The folder.
        must_exist: Whether it is an error when it does not exist.

    Raises:
        StudiesGoneError: It does not exist.
    """
    if must_exist and not folder.is_dir():
        raise StudiesGoneError(GONE)
    if not folder.is_dir() or not any(folder.iterdir()):
        logger.warning(EMPTY)
