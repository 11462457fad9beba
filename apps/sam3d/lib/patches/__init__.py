"""Patches of MONAI Label and of the OHIF that it includes."""
