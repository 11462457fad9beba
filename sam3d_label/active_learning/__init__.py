"""Which image to label next: scores of images without a label."""
