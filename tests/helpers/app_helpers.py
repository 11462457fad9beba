"""Small volumes on disk, a small network in a file, and a way to send clicks."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import monailabel
import nibabel as nib
import numpy as np
import torch
from monailabel.utils.others.class_utils import get_class_of_subclass_from_file

from sam3d_label.image.intensity import Percentile
from sam3d_label.network import SAM3D, Config
from sam3d_label.serving import HOST, MONAI_LABEL, free_port, serving, start_server
from sam3d_label.weights.adapter import save_whole
from sam3d_label.weights.card import Base, Capability, Card, Training
from tests.helpers.networks import SMALL

APP = Path(__file__).resolve().parents[2] / "apps" / "sam3d"
SHAPE = (30, 26, 13)
CENTRE = [15, 13, 6]
OBLIQUE = np.array([[-1.2, 0.2, 0.1, 40.0], [0.15, -1.1, 0.3, 35.5], [0.05, 0.25, 2.4, -20.25], [0.0, 0.0, 0.0, 1.0]])
"""Voxel to RAS mm: oblique, anisotropic, and slightly sheared."""


def orthogonal(affine: np.ndarray = OBLIQUE) -> np.ndarray:
    """The affine with the nearest perpendicular axes, as scanners and NRRD have them."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / spacing)
    nearest = affine.copy()
    nearest[:3, :3] = (u @ v) * spacing
    return nearest


def ball(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Noise with a bright ball in the middle, float32."""
    rng = np.random.default_rng(0)
    distance = np.linalg.norm(np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) // 2), axis=0)
    return (rng.normal(100, 5, shape) + 80 * (distance < 4)).astype(np.float32)


def write_nifti(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Writes an array, or the ball; returns the path."""
    affine = orthogonal() if affine is None else affine
    nib.save(nib.Nifti1Image(ball() if array is None else array, affine), path)
    return path


def write_broken_volumes(folder: Path) -> None:
    """One file for each way in which a file is not one 3D volume."""
    with_nan = ball()
    with_nan[1, 2, 3] = np.nan
    write_nifti(folder / "nan.nii.gz", with_nan)
    write_nifti(folder / "flat.nii.gz", ball()[:, :, 0])
    write_nifti(folder / "series.nii.gz", np.stack([ball()] * 2, axis=-1))
    (folder / "empty.nii.gz").write_bytes(b"")
    whole = write_nifti(folder / "truncated.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nii.gz").write_bytes(b"no volume" * 100)


ALL: tuple[Capability, ...] = ("positive_click", "negative_click", "box", "no_click")


def write_weights(
    folder: Path, capabilities: Sequence[Capability] = ALL, labels: tuple[str, ...] = (), config: Config = SMALL
) -> Path:
    """A small network with random weights and its card; returns the path of the weights."""
    torch.manual_seed(0)
    path = folder / "adapter.safetensors"
    save_whole(SAM3D(config), path)
    card = Card(
        preset="custom",
        config=config,
        base=Base(name="random"),
        spacing=1.5,
        intensity=Percentile(),
        capabilities=list(capabilities),
        labels=list(labels),
        training=Training(),
        licence="Apache-2.0",
        version="small-1",
        date="2025-01-01",
    )
    card.write(path.with_name("card.json"))
    return path


def post(client: Any, image: str | None = "mr", *, model: str = "sam3d", query: Any = None, **params: Any) -> Any:
    """Sends a request to /infer with httpx or starlette's TestClient."""
    query = {**({} if image is None else {"image": image}), **(query or {})}
    return client.post(f"/infer/{model}", params=query, data={"params": json.dumps(params)})


def make_app(studies: Path, conf: dict[str, str]) -> Any:
    """Return the app on a folder of studies; its model folder is next to it."""
    app_class = get_class_of_subclass_from_file("main", str(APP / "main.py"), "MONAILabelApp")
    return app_class(app_dir=str(APP), studies=str(studies), conf={"model_dir": f"{studies}-model", **conf})


SCRIPT = ["bash", str(Path(monailabel.__file__).parent / "scripts" / "monailabel")]
"""MONAI Label's own way to start a server, which its documentation names."""


@contextmanager
def serve(
    arguments: list[str], folder: Path, *, program: Sequence[str] = MONAI_LABEL, log: Path | None = None
) -> Iterator[str]:
    """Serve the app until the block ends, and yield its address; background scoring is off unless requested.

    Args:
        arguments: Of `start_server`.
        folder: Where the model folder is.
        program: What starts MONAI Label.
        log: Its log; `log` in the folder without it.
    """
    port = free_port()
    environment = {
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "OMP_NUM_THREADS": "1",
    }
    conf = ("--conf", "model_dir", str(folder / "model"))
    command = start_server(APP, port, *arguments, *conf, program=program)
    ready = f"{os.environ.get('MONAI_LABEL_API_STR', '')}/info/"
    log, root = log or folder / "log", APP.parents[1]
    with serving(command, f"http://{HOST}:{port}", log, ready=ready, folder=root, environment=environment) as server:
        yield server.url


def wait(until: Callable[[], Any], what: str, seconds: float) -> Any:
    """What `until` finds once it finds something; fails with `what` when that takes longer."""
    deadline = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found
