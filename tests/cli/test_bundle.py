"""The copy of an installed app that MONAI Label writes into."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam3d_label.cli import bundle


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as a wheel installs it, and a data folder of the user."""
    package = tmp_path / "site-packages" / "sam3d_label"
    write(package / "app" / "main.py", "one")
    write(package / "app" / "lib" / "old.py", "one")
    write(package / "app" / "lib" / "__pycache__" / "old.pyc", "compiled")
    write(package / "app" / "page" / "index.html", "one")
    monkeypatch.setattr(bundle, "PACKAGE", package)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return package


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


ONE = {"main.py": "one", "lib/old.py": "one", "page/index.html": "one"}


def test_an_installed_app_is_copied_to_the_users_data(package: Path, tmp_path: Path) -> None:
    assert bundle.app_folder() == tmp_path / "data" / "sam3d-label" / "app"
    assert files(bundle.app_folder()) == ONE
    assert bundle.samples() == package / "samples"
    assert bundle.default_model_folder() == bundle.app_folder() / "model"


def test_an_upgrade_replaces_the_app_and_keeps_models_and_logs(package: Path) -> None:
    app = bundle.app_folder()
    write(app / "model" / "versions" / "0001" / "card.json", "learned")
    write(app / "logs" / "app.log", "log")
    write(package / "app" / "main.py", "two")
    (package / "app" / "lib" / "old.py").unlink()
    write(package / "app" / "lib" / "new" / "file.py", "two")
    assert files(bundle.app_folder()) == {
        "main.py": "two",
        "lib/new/file.py": "two",
        "page/index.html": "one",
        "model/versions/0001/card.json": "learned",
        "logs/app.log": "log",
    }


def test_an_app_that_is_current_is_not_written(package: Path) -> None:
    before = (bundle.app_folder() / "main.py").stat()
    after = (bundle.app_folder() / "main.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
