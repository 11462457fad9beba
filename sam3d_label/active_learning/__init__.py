"""Scores of images without a label, to choose the next image."""
