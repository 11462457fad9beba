"""Compute a mask on the stored grid from prompts."""
