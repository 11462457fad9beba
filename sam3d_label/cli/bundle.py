"""Folders of the app and the sample data, in a checkout and in an installed wheel.

A wheel has the app and the sample data inside the package. MONAI Label writes models and logs into the folder of an
app, so an installed app is copied to the user's data folder: it is writable there, and what the server has learned
survives an upgrade and another environment.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from sam3d_label.io import replacing

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
SUBFOLDERS = ("lib", "page")
"""Folders of the app that hold nothing but its own files."""


def is_installed() -> bool:
    """Return whether this is a wheel's package rather than one in a checkout."""
    return (PACKAGE / "app" / "main.py").is_file()


def data_folder() -> Path:
    """Return the folder for what an installed server keeps; on Linux, `XDG_DATA_HOME` changes its place."""
    return platformdirs.user_data_path("sam3d-label", appauthor=False)


def samples() -> Path:
    """Return the folder of the sample data, with `images` and `labels`."""
    return PACKAGE / "samples" if is_installed() else CHECKOUT / "sample-data"


def demo_folder() -> Path:
    """Return the folder of the demo's studies, models and log."""
    return data_folder() / "demo" if is_installed() else CHECKOUT / ".demo"


def default_model_folder() -> Path:
    """Return the folder of models that the app uses unless another is configured."""
    return data_folder() / "app" / "model" if is_installed() else Path("apps/sam3d/model")


def app_folder() -> Path:
    """Return the folder of the app, for `monailabel start_server --app`; an installed app is copied first."""
    if not is_installed():
        return CHECKOUT / "apps" / "sam3d"
    app = data_folder() / "app"
    update_copy(PACKAGE / "app", app)
    return app


def update_copy(packaged: Path, app: Path) -> None:
    """Make the copy of an app equal to the packaged one, except for models, logs and programs that are next to it."""
    current = set(_files(packaged))
    for name in current:
        source, target = packaged / name, app / name
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            with replacing(target, durable=False) as part:
                shutil.copyfile(source, part)
    for subfolder in SUBFOLDERS:
        for name in _files(app / subfolder):
            if subfolder / name not in current:
                (app / subfolder / name).unlink()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, relative to it, without compiled Python."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)
