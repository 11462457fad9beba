"""``python -m sam3d_label import-msd`` and ``import-kits``: public data sets into a studies folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import examples
from sam3d_label.cli.paths import require_folder, require_inputs
from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.studies.public_datasets import ImportResult, PublicDataset

app = typer.Typer()
StudiesArgument = Annotated[Path, typer.Argument(metavar="STUDIES", help="Studies folder of the server.")]
LinkOption = Annotated[
    bool, typer.Option("--link", help="Make hard links instead of copies; both folders must be on one disk.")
]


@app.command(
    epilog=examples(
        "import-msd Task09_Spleen studies",
        "import-msd Task01_BrainTumour studies --channel T1gd",
        "import-msd Task03_Liver studies --link",
    )
)
def import_msd(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of the task: dataset.json, imagesTr, ….")],
    studies: StudiesArgument,
    channel: Annotated[
        str | None, typer.Option(metavar="C", help="Channel to import if images have several: number or name.")
    ] = None,
    link: LinkOption = False,
) -> None:
    """Import a task of the Medical Segmentation Decathlon, with its labels and their names.

    Images of imagesTs have no labels. A second call continues an interrupted
    one; labels that annotators have changed since are kept.
    """
    require_inputs(source)
    require_folder(studies)
    from sam3d_label.studies.public_datasets import open_msd

    _import(open_msd(source, channel), studies, link)


@app.command(
    epilog=examples(
        "import-kits kits23/dataset studies",
        "import-kits kits19/data studies --link",
    )
)
def import_kits(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of case_00000 and so on.")],
    studies: StudiesArgument,
    link: LinkOption = False,
) -> None:
    """Import KiTS19, KiTS21 or KiTS23: kidney, tumor and cyst.

    From KiTS21 the majority segmentation is imported. A second call continues
    an interrupted one; labels that annotators have changed since are kept.
    """
    require_inputs(source)
    require_folder(studies)
    from sam3d_label.studies.public_datasets import open_kits

    _import(open_kits(source), studies, link)


def _import(data: PublicDataset, studies: Path, link: bool) -> None:
    from sam3d_label.cli.progress import bar
    from sam3d_label.studies.public_datasets import import_data

    errors = Console(stderr=True)
    with bar(errors) as show:
        result = import_data(data, studies, link=link, progress=show)
    for case, reason in result.rejected.items() if result.added or result.present else ():
        errors.print(f"rejected {case}: {reason}", highlight=False, markup=False, soft_wrap=True)
    _report(data, studies, result)


def _report(data: PublicDataset, studies: Path, result: ImportResult) -> None:
    usable = {*result.added, *result.present}
    if not usable:
        first = next(iter(result.rejected.items()), ("", "it has no cases"))
        raise Sam3dError(f"none of {len(data.cases)} cases of {data.name} could be imported; {': '.join(first)}")
    labelled = sum(1 for case in data.cases if case.label and case.id in usable)
    there = f", {len(result.present)} already present" if result.present else ""
    refused = f", {len(result.rejected)} rejected" if result.rejected else ""
    typer.echo(f"imported {len(result.added)} of {len(data.cases)} cases into {studies}{there}{refused}")
    typer.echo(f"{labelled} have a label: {', '.join(data.names.values())}. Serve them with:")
    names = ",".join(data.names.values())
    serve = ["python", "-m", "monailabel.main", "start_server", "--app", "apps/sam3d", "--studies", str(studies)]
    typer.echo("  " + shlex.join([*serve, "--conf", "labels", names]))
