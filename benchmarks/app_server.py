"""Start the app as users do, on a free port of this machine, for the benchmarks that measure a running server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam3d_label.serving import HOST, Server, free_port, serving, start_server

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def server(studies: Path, *options: str) -> Iterator[Server]:
    """Serve a folder of volumes, with the model folder in it, until the block ends.

    Args:
        studies: The folder.
        options: Further options of `start_server`.

    Raises:
        ServerStartError: The server ended, or did not answer in time.
    """
    port = free_port()
    conf = ("--conf", "model_dir", str(studies / ".model"))
    command = start_server(ROOT / "apps" / "sam3d", port, "--studies", str(studies), *conf, *options)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(command, f"http://{HOST}:{port}", Path(folder, "log"), folder=ROOT) as started,
    ):
        yield started
