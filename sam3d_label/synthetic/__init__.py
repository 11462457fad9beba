"""Synthetic CT- and MR-like volumes with one labelled lesion, for tests, samples and training; lesions in real volumes.

A phantom is painted in layers, far to near: air, body (skin, fat, muscle with fat septa), organs, bones,
vessels, look-alike lesions that are *not* labelled, and the labelled lesion. Every structure is an
ellipsoid, bent and roughened by smooth noise, given as a *depth* in millimetres (positive inside), so that
borders are blurred by a known width and masks follow from the sign. Blur, bias field and noise come last.

Arrays have the axes (I, J, K) of a stored image; positions are in millimetres from the centre of the grid,
along the array axes; only the affine knows about left and right.
"""

from sam3d_label.synthetic.anatomy import Modality
from sam3d_label.synthetic.lesion_insertion import insert_lesions
from sam3d_label.synthetic.lesions import LESION_KINDS, LesionKind
from sam3d_label.synthetic.phantoms import MODALITIES, Phantom, make_phantom, save_nifti, write_mosaics, write_phantoms

__all__ = [
    "LESION_KINDS",
    "MODALITIES",
    "LesionKind",
    "Modality",
    "Phantom",
    "insert_lesions",
    "make_phantom",
    "save_nifti",
    "write_mosaics",
    "write_phantoms",
]
