"""Sphinx: pages of docs/, the command line and the Python API, built without a network by ``make docs``."""

import re
import subprocess
import sys
from pathlib import Path

from sam3d_label import __version__

project = "SAM3D for MONAI Label"
author = "the SAM3D for MONAI Label authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_copyright = False

myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_use_legacy_class_based = True  # the other one imports pydantic's models with TYPE_CHECKING, which fails
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

COMMAND_LINE = Path(__file__).parent / "reference" / "command-line.md"


def write_command_line(_: object) -> None:
    """Write the page of the command line from the help texts of the commands."""
    command = [sys.executable, "-m", "typer", "sam3d_label.cli.app", "utils", "docs", "--name", "python -m sam3d_label"]
    text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    COMMAND_LINE.write_text(re.sub(r"\[/?bold\]", "**", text), encoding="utf-8")


def setup(app) -> None:
    """Connect with Sphinx."""
    app.connect("builder-inited", write_command_line)
