"""``python -m sam3d_label replay``: re-run a click log with given weights."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import (
    DeviceOption,
    OverwriteOption,
    WeightsOption,
    check_device,
    examples,
    require_weights,
)
from sam3d_label.cli.paths import require_apart, require_folder, require_inputs
from sam3d_label.errors import Sam3dError
from sam3d_label.replay.files import WRITTEN

if TYPE_CHECKING:
    from sam3d_label.replay.jobs import Shard
    from sam3d_label.replay.summary import ReplaySummary
    from sam3d_label.replay.workers import ReplayResult

app = typer.Typer()


@app.command(
    epilog=examples(
        "replay apps/sam3d/model studies out --workers 2",
        "replay apps/sam3d/model studies out-2 --weights apps/sam3d/model/versions/0002",
        "replay team/clicks studies out --shard 1/8",
        "torchrun --nproc-per-node 2 -m sam3d_label replay apps/sam3d/model studies out",
    )
)
def replay(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="Click log: a file, its folder, or the app's model folder.")
    ],
    studies: Annotated[
        Path,
        typer.Argument(metavar="STUDIES", help="Studies folder, or the folder of downloads from a DICOMweb server."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for table, summary and intermediate results.")],
    weights: WeightsOption = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Model folder with the original versions; compare with their masks, too."),
    ] = None,
    tag: Annotated[str, typer.Option(metavar="TAG", help="Tag of the labels to compare with.")] = "final",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Labels of the app, for label files without names.",
            show_default="the label of the log, if it has one only",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes on this machine.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="i/n",
            help="Replay only the i-th of n shards; set automatically under torchrun and in SLURM arrays.",
            show_default="all",
        ),
    ] = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Re-run the prompts of a click log on the same images with given weights.

    Each mask is compared with the saved label and with the mask that was
    served. OUT holds summary.json, and requests.csv with a row for each
    request; a request that cannot be replayed has the reason in its row. The
    same command continues an interrupted replay, and shards with one OUT are
    merged; --overwrite starts again and replaces another replay in OUT.
    """
    require_folder(out)
    require_inputs(log, studies, model_dir)
    require_apart((out / name for name in WRITTEN), (log, studies, model_dir, Path(weights) if weights else None))
    require_weights(weights)
    from sam3d_label.replay.jobs import find_shard

    found = find_shard(shard, os.environ)
    if overwrite and found.of > 1:
        raise Sam3dError("--overwrite: one of several shards would remove the results of the others; remove OUT first")
    from sam3d_label.cli.progress import bar, loading, stderr, steps

    console = stderr()
    device = _device(device)
    with steps(console) as say:
        say(loading(weights))
        check_device(device)
        from sam3d_label.replay.request import ReplayData
        from sam3d_label.replay.workers import WorkerInput
        from sam3d_label.replay.workers import replay as run

    given = tuple(name.strip() for name in (labels or "").split(",") if name.strip())
    work = WorkerInput(weights, device, ReplayData(studies, tag, given, model_dir), out)
    command = shlex.join(["python", "-m", "sam3d_label", *sys.argv[1:]])
    with bar(console) as show:
        result = run(log, work, workers=workers, shard=found, command=command, progress=show, overwrite=overwrite)
    _report(result, found, out)


def _device(device: str) -> str:
    """Return the GPU of this process if torchrun has started several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several and device == "cuda" else device


def _report(result: ReplayResult, shard: Shard, out: Path) -> None:
    summary = result.summary
    if result.newer > 0:
        typer.echo(f"{result.newer} requests are newer than this replay: replay them to another folder", err=True)
    if shard.by:
        typer.echo(f"replayed {result.share} of {summary.requests} requests, {shard.number}/{shard.of} by {shard.by}")
    if not summary.complete:
        left = summary.requests - summary.done
        typer.echo(f"{left} of {summary.requests} requests are left; wrote the results so far to {out}")
        return
    if not summary.replayed:
        reasons = ", ".join(summary.skipped) or "the log is empty"
        raise Sam3dError(f"none of {summary.requests} requests could be replayed: {reasons}")
    _show(summary)
    typer.echo(f"wrote {out}")


def _show(summary: ReplaySummary) -> None:
    from rich.table import Table

    table = Table("clicks", "requests", "Dice", "NSD 2 mm", "NSD 5 mm", title_justify="left")
    table.title = f"{summary.replayed} of {summary.requests} requests · version {summary.weights.version}"
    for column in table.columns:
        column.justify = "right"
    for clicks, group in summary.by_clicks.items():
        means = (f"{each:.3f}" for each in (group.dice, group.nsd_2mm, group.nsd_5mm))
        table.add_row(clicks, str(group.requests), *means)
    console = Console()
    console.print(table)
    for reason, count in summary.skipped.items():
        console.print(f"skipped {count}: {reason}", highlight=False, markup=False, soft_wrap=True)
    for note, count in summary.notes.items():
        console.print(f"note on {count}: {note}", highlight=False, markup=False, soft_wrap=True)
    if summary.dice_last is not None and summary.dice_last_ci95 is not None:
        low, high = summary.dice_last_ci95
        console.print(f"last request on each image: Dice {summary.dice_last:.3f} ({low:.3f}–{high:.3f})")
    if summary.same_mask_share is not None:
        alike = "" if summary.agreement is None else f"; Dice with the original masks {summary.agreement:.3f}"
        console.print(f"same mask as the original one: {summary.same_mask_share:.0%}{alike}")
