"""How the shipped weights `tiny` are made."""
