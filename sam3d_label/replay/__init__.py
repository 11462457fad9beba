"""What a click log would have got from other weights: the same prompts on the same images, measured."""
