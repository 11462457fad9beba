"""``python -m sam3d_label serve`` and ``app-path``: the server on a studies folder or on a copy of the sample data."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sam3d_label.cli import bundle
from sam3d_label.cli.options import examples
from sam3d_label.errors import Sam3dError
from sam3d_label.serving import HOST, ServerStartError, serving, start_server

EVERYWHERE = ("0.0.0.0", "::")
URLS = ("http://", "https://")
app = typer.Typer()


class KeysAndValues(TyperCommand):
    """A command with ``--conf KEY VALUE``, as MONAI Label has it, and ``--conf KEY=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer hides the class of contexts
        """Join each key with its value."""
        return super().parse_args(ctx, list(join_pairs(args)))


def join_pairs(args: Iterable[str]) -> Iterator[str]:
    """Yield the arguments, with `KEY=VALUE` in place of the two words after each ``--conf``."""
    words = iter(args)
    for word in words:
        yield word
        if word == "--conf":
            key = next(words, None)
            value = None if key is None or "=" in key else next(words, None)
            if key is not None:
                yield key if value is None else f"{key}={value}"


@app.command(
    cls=KeysAndValues,
    epilog=examples("serve", "serve studies --port 8001", "serve studies --conf labels tumor,cyst"),
)
def serve(
    studies: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDIES]",
            help="Folder of volumes, or URL of a DICOMweb server.",
            show_default="a copy of the sample data",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen on; any other than this machine's needs a login.")
    ] = HOST,
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    conf: Annotated[
        list[str] | None, typer.Option(metavar="KEY VALUE", help="An option of the app; may be repeated.")
    ] = None,
) -> None:
    """Start the server and wait until it is stopped with Ctrl-C.

    Without STUDIES it serves a copy of the sample data, and labels that you
    save stay there for the next time. For TLS and other options of MONAI
    Label, use python -m monailabel.main start_server --app "$(sam3d-label app-path)".
    """
    pairs = [_pair(text) for text in conf or ()]
    refuse_taken_port(host, port)
    if studies is None:
        folder = bundle.demo_folder()
        served, name, log = str(copy_samples(folder)), "sample-data", folder / "server.log"
        pairs.insert(0, ("model_dir", str(folder / "model")))
    else:
        served = name = require_studies(studies)
        log = bundle.app_folder() / "logs" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)

    options = [word for key, value in pairs for word in ("--conf", key, value)]
    command = start_server(bundle.app_folder(), port, "--studies", served, *options, host=host)
    address = url_of(host, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    typer.echo("Starting the server, which can take a minute …", err=True)
    try:
        with serving(command, address, log) as server:
            typer.echo(f"Serving {name} at {address} (page: {address}/sam3d/; log: {log}; Ctrl-C stops it)")
            if studies is None:
                typer.echo("To send a click from a shell (if it is rejected, mask.nii.gz holds the reason):", err=True)
                typer.echo(curl_of_a_click(address, first_sample()))
            sys.stdout.flush()
            sys.exit(server.process.wait())
    except ServerStartError as error:
        typer.echo(f"error: {error}", err=True)  # several lines: the end of the log
        sys.exit(1)
    except KeyboardInterrupt:
        pass


@app.command(epilog=examples("app-path"))
def app_path() -> None:
    """Print the folder of the app, for MONAI Label's own start_server.

    An installed app is first copied to the folder for user data, where
    models and logs are kept.
    """
    typer.echo(bundle.app_folder())


def _pair(text: str) -> tuple[str, str]:
    """Return key and value of `KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Sam3dError(f"--conf {text}: give a key and a value, such as --conf labels tumor,cyst")
    return key, value


def require_studies(studies: str) -> str:
    """Return a URL as it is, and a folder as an absolute path.

    Raises:
        Sam3dError: It is neither a URL nor a folder that exists.
    """
    if studies.startswith(URLS):
        return studies
    folder = Path(studies).expanduser()
    if not folder.is_dir():
        raise Sam3dError(f"{studies} is not a folder: give a folder of volumes, or the URL of a DICOMweb server")
    return str(folder.resolve())


def refuse_taken_port(host: str, port: int) -> None:
    """Raise a Sam3dError if the port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Sam3dError(
                f"port {port} of {host} is not free ({error.strerror or error}); choose another: --port {port + 1}"
            ) from None


def url_of(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on an address."""
    reached = HOST if host in EVERYWHERE else host
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def copy_samples(folder: Path) -> Path:
    """Copy the sample images that are missing into `folder/studies`, and return it; the server writes into it."""
    studies = folder / "studies"
    studies.mkdir(parents=True, exist_ok=True)
    for image in sorted((bundle.samples() / "images").glob("*.nii.gz")):
        if not (studies / image.name).exists():
            shutil.copyfile(image, studies / image.name)
    return studies


def first_sample() -> str:
    """Return the id of the first sample image."""
    return min((bundle.samples() / "images").glob("*.nii.gz")).name.removesuffix(".nii.gz")


def centre_of_lesion(label: Path) -> list[int]:
    """Return the deepest voxel (i, j, k) of the lesion in a label file."""
    import nibabel as nib
    import numpy as np

    from sam3d_label.masks import deepest_voxel

    nifti = nib.Nifti1Image.from_filename(label)
    deepest = deepest_voxel(np.asarray(nifti.dataobj) > 0, nifti.header.get_zooms())
    assert deepest is not None, f"{label} is empty"
    return list(deepest)


def curl_of_a_click(address: str, case: str) -> str:
    """Return a shell command that clicks in the lesion of a sample case and saves the mask.

    It ends with status 22 when the request is rejected; the file then holds the reason.
    """
    params = {"foreground": [centre_of_lesion(bundle.samples() / "labels" / f"{case}.nii.gz")], "background": []}
    url = f"{address}/infer/sam3d?image={case}&output=image"
    return f"curl -sS --fail-with-body -o mask.nii.gz -F 'params={json.dumps(params, separators=(',', ':'))}' '{url}'"
