"""``python -m sam3d_label train``: fine-tune weights on two folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sam3d_label.cli.options import (
    DeviceOption,
    LabelOption,
    OverwriteOption,
    PresetName,
    SeedOption,
    WeightsOption,
    check_device,
    examples,
    require_weights,
)
from sam3d_label.cli.paths import require_folder, require_inputs, require_unused
from sam3d_label.cli.progress import bar, loading, stderr, steps
from sam3d_label.errors import Sam3dError

app = typer.Typer()


@app.command(
    epilog=examples(
        "train images labels out --epochs 20",
        "train images labels out --label 2 --weights out-of-last-week",
        "train images labels out --epochs 40 --resume",
        "train images labels out --preset vit_b --device cuda",
        "torchrun --nproc-per-node 2 -m sam3d_label train images labels out --device cuda",
    )
)
def train(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of volumes.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of labels with the names of the images.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for weights, card, checkpoint, log and curves.")],
    label: LabelOption = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="Start from new adapters on the trunk of this preset.", show_default="trained weights"),
    ] = None,
    weights: WeightsOption = None,
    epochs: Annotated[int, typer.Option(metavar="E", min=1, help="Epochs; a checkpoint is written after each.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in OUT.")] = False,
    device: DeviceOption = "cpu",
    validation: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=0.95, help="Share of the cases that are scored and never trained on."),
    ] = 0.2,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Fine-tune weights on annotated volumes.

    The adapters train in simulated sessions of clicks and corrections; SAM's
    trunk stays frozen. The result is used with --weights OUT.
    """
    main_process = int(os.environ.get("RANK", "0")) == 0
    if preset and weights:
        raise Sam3dError("--preset starts new adapters and --weights continues with trained ones: give one of the two")
    require_folder(out)
    require_inputs(images, labels)
    if not preset:
        require_weights(weights)
    from sam3d_label.evaluation.cases import find_cases, require_value
    from sam3d_label.training.files import CHECKPOINT, CURVES, LOG
    from sam3d_label.weights.locations import ADAPTER, CARD, TRUNK

    if resume and not (out / CHECKPOINT).is_file():
        raise Sam3dError(f"{out / CHECKPOINT} does not exist: there is nothing to resume")
    if not resume and main_process:  # under torchrun the main process checks, before any of them has written
        written = (ADAPTER, CARD, TRUNK, CHECKPOINT, LOG, CURVES)
        require_unused(*(out / name for name in written), overwrite=overwrite)
    require_value(find_cases(images, labels), label)
    console = stderr()
    with steps(console) as say:
        say(f"Building the network {preset.value} …" if preset else loading(weights))
        check_device(device)
        from sam3d_label.training.folder import train_folder
        from sam3d_label.weights import open_weights, untrained

        start = untrained(preset.value, device=device) if preset else open_weights(weights, device)
    with bar(console) as show:
        card = train_folder(
            start,
            images,
            labels,
            out,
            value=label,
            epochs=epochs,
            resume=resume,
            validation_share=validation,
            seed=seed,
            device=device,
            console=console,
            show=show,
        )
    if main_process:
        typer.echo(f"wrote {out}: version {card.version}; use it with --weights {out}")
