"""What is changed in MONAI Label and in the OHIF that it brings."""
