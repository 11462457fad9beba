"""Suffixes of the files that masks are written to; without imports, so that a wrong one is rejected at once."""

from __future__ import annotations

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")
"""Formats that masks are written in: one file each, and the whole geometry in it."""
