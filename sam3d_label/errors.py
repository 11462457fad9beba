"""Errors that the caller can fix: the command line reports them in one line, the server with status 400."""

import re


class Sam3dError(ValueError):
    """Base of the errors whose message says what is wrong and how to fix it."""


class VolumeError(Sam3dError):
    """A volume that cannot be read or is not one scalar 3D image."""


class PromptError(Sam3dError):
    """A click or box that does not fit the volume, contradicts another, or that the weights have not learned."""


class WeightsError(Sam3dError):
    """Weights that are missing, damaged, or made for another network."""


class NewerFormatError(Sam3dError):
    """A file that a newer release has written."""


class StorageError(Sam3dError, OSError):
    """A file that cannot be stored or read because of its disk; the message names the file and the way out.

    Args:
        message: What is wrong and how to fix it.
        number: The errno of the cause.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class DiskFullError(StorageError):
    """The disk is full or the user's quota is used up."""


class ReadOnlyError(StorageError):
    """The folder is read-only for this user."""


_PLAIN = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "give a whole number"),
    (r"Input should be a valid number.*", "give a number"),
    (r"Input should be a valid boolean.*", "give true or false"),
    (r"Input should be greater than or equal to (\S+)", r"give \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"give at most \1"),
    (r"Input should be greater than (\S+)", r"give more than \1"),
    (r"Input should be ", "give "),
)
"""Messages of pydantic, and plain words for the user."""


def plain_words(message: str) -> str:
    """Return pydantic's message about a value in words for people who have typed it."""
    for words, plain in _PLAIN:
        message = re.sub(words, plain, message)
    return message
