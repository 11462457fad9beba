"""``python -m sam3d_label export`` and ``unpack``: what a team has made, as one archive and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.options import MODEL_DIR, ModelDir, OverwriteOption, examples, require_unused

if TYPE_CHECKING:
    from sam3d_label.exporting.manifest import Manifest

app = typer.Typer()


@app.command(
    epilog=examples(
        "export studies team.zip",
        "export studies team.zip --model-dir /data/model --pseudonyms key.csv",
    )
)
def export(
    studies: Annotated[
        Path, typer.Argument(metavar="STUDIES", help="Studies folder; of a DICOMweb server, its folder of downloads.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Archive to write.")],
    model_dir: ModelDir = MODEL_DIR,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Labels of this tag; may be repeated.", show_default="final"),
    ] = None,
    pseudonyms: Annotated[
        Path | None,
        typer.Option(metavar="KEY.csv", help="Number the images, and write here which number is which image."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Export labels, clicks, versions and ledger as one archive with a manifest.

    No images, no paths, no names of people who clicked. Images are known by
    their ids; where these tell a patient, --pseudonyms numbers them.
    """
    require_unused(*(file for file in (out, pseudonyms) if file), overwrite=overwrite)
    from sam3d_label.exporting.writing import FINAL
    from sam3d_label.exporting.writing import export as write
    from sam3d_label.progress import bar

    errors = Console(stderr=True)
    with bar(errors) as show:
        manifest = write(studies, out, model_dir=model_dir, tags=tag or [FINAL], key=pseudonyms, progress=show)
    for left in manifest.left_out:
        errors.print(f"left out {left.what}: {left.why}", highlight=False, markup=False, soft_wrap=True)
    typer.echo(f"wrote {out}: {_told(manifest)}")
    if pseudonyms:
        typer.echo(f"wrote {pseudonyms}: which number is which image; it stays here")


@app.command(
    epilog=examples(
        "unpack team.zip team",
        "unpack team.zip --check",
    )
)
def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE.zip", help="What export has written.")],
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="New folder for it.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare it with its manifest, and write nothing.")] = False,
) -> None:
    """Check an archive and unpack it.

    With the images beside, FOLDER serves: --studies FOLDER --conf model_dir FOLDER.
    """
    from sam3d_label.errors import Sam3dError
    from sam3d_label.exporting import reading
    from sam3d_label.progress import bar

    if (folder is None) != check:
        raise Sam3dError("give a FOLDER to unpack to, or --check")
    with bar(Console(stderr=True)) as show:
        manifest = reading.unpack(archive, folder, show) if folder else reading.check(archive, show)
    done = f"unpacked to {folder}" if folder else f"{archive} is whole"
    typer.echo(f"{done}: {_told(manifest)}, of {manifest.made}")


def _told(manifest: Manifest) -> str:
    requests = sum(file.requests or 0 for file in manifest.of("clicks"))
    versions = len({file.version for file in manifest.of("version")})
    return f"{len(manifest.of('label'))} labels, {requests} requests, {versions} versions"
