"""``python -m sam3d_label export`` and ``unpack``: the work of a team as one archive, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import MODEL_DIR, ModelDir, OverwriteOption, examples
from sam3d_label.cli.paths import require_folder, require_inputs, require_suffix, require_unused
from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.archive.manifest import Manifest

app = typer.Typer()


@app.command(
    epilog=examples(
        "export studies team.zip",
        "export studies team.zip --model-dir /data/model --pseudonyms key.csv",
    )
)
def export(
    studies: Annotated[
        Path,
        typer.Argument(metavar="STUDIES", help="Studies folder, or the folder of downloads from a DICOMweb server."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Archive to write.")],
    model_dir: ModelDir = MODEL_DIR,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Export labels with this tag; may be repeated.", show_default="final"),
    ] = None,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY.csv", help="Replace image ids by numbers, and write the key to this file.", show_default=False
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Export labels, clicks, versions and ledger as one archive with a manifest.

    The archive holds no images, no paths and no user names. Images are named
    by their ids; if these identify patients, use --pseudonyms.
    """
    require_suffix(out, [".zip"], "an archive")
    if pseudonyms is not None:
        require_suffix(pseudonyms, [".csv"], "the key of the pseudonyms")
    require_unused(*(file for file in (out, pseudonyms) if file), overwrite=overwrite)
    require_inputs(studies)
    from sam3d_label.archive.pack import FINAL
    from sam3d_label.archive.pack import export as write
    from sam3d_label.cli.progress import bar

    errors = Console(stderr=True)
    with bar(errors) as show:
        manifest = write(studies, out, model_dir=model_dir, tags=tag or [FINAL], key=pseudonyms, progress=show)
    for left in manifest.left_out:
        errors.print(f"left out {left.what}: {left.why}", highlight=False, markup=False, soft_wrap=True)
    typer.echo(f"wrote {out}: {_summary(manifest)}")
    if pseudonyms:
        typer.echo(f"wrote {pseudonyms}: the key from numbers to image ids; it is not in the archive")


@app.command(
    epilog=examples(
        "unpack team.zip team",
        "unpack team.zip --check",
    )
)
def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE.zip", help="An archive that export wrote.")],
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="New folder to unpack to.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare it with its manifest; write nothing.")] = False,
) -> None:
    """Check an archive and unpack it.

    To use FOLDER with the server, copy the images into it: --studies FOLDER --conf model_dir FOLDER.
    """
    if (folder is None) != check:
        raise Sam3dError("give a FOLDER to unpack to, or --check")
    require_inputs(archive)
    if folder is not None:
        require_folder(folder)
    from sam3d_label.archive import unpack
    from sam3d_label.cli.progress import bar

    with bar(Console(stderr=True)) as show:
        manifest = unpack.unpack(archive, folder, show) if folder else unpack.check(archive, show)
    done = f"unpacked to {folder}" if folder else f"{archive} is complete"
    typer.echo(f"{done}: {_summary(manifest)}, made on {manifest.made}")


def _summary(manifest: Manifest) -> str:
    requests = sum(file.requests or 0 for file in manifest.of("clicks"))
    versions = len({file.version for file in manifest.of("version")})
    return f"{len(manifest.of('label'))} labels, {requests} requests, {versions} versions"
