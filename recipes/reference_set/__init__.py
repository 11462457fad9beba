"""How the real crops of the reference set are made."""
