"""Infer tasks: a request for a volume -> a mask."""
