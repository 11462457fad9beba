"""A studies folder: images, labels, their names, and the log of clicks."""
