"""Serves the app on a copy of sample-data and shows how to send it a click.

The server writes into its studies folder, so it gets a copy in ``.demo``. Its log is ``.demo/server.log``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from sam3d_label.masks import deepest_voxel
from sam3d_label.serving import HOST, ServerStartError, serving, start_server

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample-data"
SCRATCH = ROOT / ".demo"


def centre_of_lesion(label: Path) -> list[int]:
    """Return the deepest voxel (i, j, k) of the lesion in a label file."""
    nifti = nib.Nifti1Image.from_filename(label)
    deepest = deepest_voxel(np.asarray(nifti.dataobj) > 0, nifti.header.get_zooms())
    assert deepest is not None, f"{label} is empty"
    return list(deepest)


def curl_of_a_click(address: str, case: str) -> str:
    """Return a shell command that clicks in the lesion of a sample case and saves the mask.

    It ends with status 22 when the request is rejected; the file then holds the reason.
    """
    params = {"foreground": [centre_of_lesion(SAMPLES / "labels" / f"{case}.nii.gz")], "background": []}
    url = f"{address}/infer/sam3d?image={case}&output=image"
    return f"curl -sS --fail-with-body -o mask.nii.gz -F 'params={json.dumps(params, separators=(',', ':'))}' '{url}'"


def refuse_taken_port(port: int) -> None:
    """Exit with a message if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            sys.exit(f"error: port {port} is not free ({error}); choose another: make demo PORT={port + 1}")


def copy_samples() -> Path:
    """Make a fresh studies folder with the sample images."""
    studies = SCRATCH / "studies"
    shutil.rmtree(studies, ignore_errors=True)
    studies.mkdir(parents=True)
    for image in sorted((SAMPLES / "images").glob("*.nii.gz")):
        shutil.copy(image, studies)
    return studies


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port: int = parser.parse_args().port
    address = f"http://{HOST}:{port}"
    refuse_taken_port(port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    conf = ("--conf", "model_dir", str(SCRATCH / "model"))
    command = start_server(ROOT / "apps" / "sam3d", port, "--studies", str(copy_samples()), *conf)
    log = SCRATCH / "server.log"
    log.unlink(missing_ok=True)
    try:
        with serving(command, address, log, folder=ROOT) as server:
            case = min((SAMPLES / "images").glob("*.nii.gz")).name.removesuffix(".nii.gz")
            print(
                f"Serving sample-data at {address} (Ctrl-C stops it; log: .demo/server.log)."
                " If a click is rejected, curl reports an error and mask.nii.gz holds the reason:"
            )
            print(curl_of_a_click(address, case), flush=True)
            sys.exit(server.process.wait())
    except ServerStartError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
