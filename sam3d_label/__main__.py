"""``python -m sam3d_label COMMAND``."""

from sam3d_label.cli.app import app

if __name__ == "__main__":
    app(prog_name="python -m sam3d_label")
