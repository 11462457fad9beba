"""Re-run a click log with other weights: the same prompts on the same images, measured."""
