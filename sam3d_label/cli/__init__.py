"""The command line: ``python -m sam3d_label COMMAND``."""
