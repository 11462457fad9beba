"""Modules that the command line needs for its first answer import neither torch nor MONAI."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sam3d_label
import sam3d_label.network
import sam3d_label.training
import sam3d_label.weights

HEAVY = "torch", "monai", "matplotlib", "pandas"


@pytest.mark.parametrize(
    "module",
    [
        "sam3d_label",
        "sam3d_label.cli.app",
        "sam3d_label.image.volume",
        "sam3d_label.evaluation.cohort",
        "sam3d_label.archive.pack",
        "sam3d_label.studies.public_datasets",
        "sam3d_label.model_update.versions",
        "sam3d_label.model_update.learning_curve",
        "sam3d_label.charts",
    ],
)
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


def test_a_click_needs_neither_monai_nor_segment_anything() -> None:
    names = "monai", "segment_anything", "torchvision"
    code = f"import sys, sam3d_label.segmentation.segmenter; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [sam3d_label, sam3d_label.network, sam3d_label.weights, sam3d_label.training])
def test_every_exported_name_can_be_imported(package: object) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)  # type: ignore[attr-defined]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = sam3d_label.nothing
