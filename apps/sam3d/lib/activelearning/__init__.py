"""Strategies that choose the next image to label, and their scoring."""
