"""Image files: what their headers claim, limits on that, verified voxels, and geometry as ITK sees it."""
