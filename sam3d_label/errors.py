"""What a caller did wrong and can mend: the command line answers it with one line, the server with a 400."""


class Sam3dError(ValueError):
    """Base of the errors whose message tells the user what is wrong and how to mend it."""


class VolumeError(Sam3dError):
    """A volume that cannot be read or is not one scalar 3D image."""


class PromptError(Sam3dError):
    """A click or box that does not fit the volume, contradicts another, or that the weights have not learned."""


class WeightsError(Sam3dError):
    """Weights that are missing, damaged, or made for another network."""
