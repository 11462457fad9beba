"""What a caller did wrong and can mend: the command line answers it with one line, the server with a 400."""


class Sam3dError(ValueError):
    """Base of the errors whose message tells the user what is wrong and how to mend it."""


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
