"""``python -m sam3d_label picture``: an image with clicks, a mask and a label as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam3d_label.cli.options import (
    ClickOption,
    DeviceOption,
    ExcludeOption,
    LabelOption,
    ListedVoxels,
    OverwriteOption,
    WeightsOption,
    examples,
    prompts_of,
    require_weights,
    segment_volume,
)
from sam3d_label.cli.paths import require_inputs, require_suffix, require_unused
from sam3d_label.errors import Sam3dError

app = typer.Typer()


@app.command(
    cls=ListedVoxels,
    epilog=examples(
        "picture ct.nii.gz click.png --click 120,88,31",
        "picture ct.nii.gz label.nii.gz click.png --click 120,88,31",
        "picture ct.nii.gz mask.png --mask mask.nii.gz",
    ),
)
def picture(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Volume to show.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="[LABEL] OUT", help="Label to compare with, if there is one; PNG to write.")
    ],
    click: ClickOption = None,
    exclude: ExcludeOption = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show this saved mask; the network does not run.", show_default=False),
    ] = None,
    label: LabelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Draw an axial slice with clicks and their mask, or with a saved mask.

    With LABEL, the picture shows the label too, and the title its Dice with
    the mask; voxels with a negative label do not count. The slice is that of
    the first click; without a click, the one with most errors of the mask, or
    with most of the mask.
    """
    truth, out = _label_and_out(files)
    prompts = prompts_of(click, exclude, None)
    if mask is None and not prompts.positive:
        raise Sam3dError("nothing marks the target: add --click I,J,K, or --mask FILE for a saved mask")
    if mask is not None and weights is not None:
        raise Sam3dError("--mask shows a saved mask and --weights computes one: give one of the two")
    require_suffix(out, [".png"], "a picture")
    require_unused(out, overwrite=overwrite, inputs=[path for path in (image, truth, mask) if path])
    require_inputs(image, truth, mask)
    if mask is None:
        require_weights(weights)
    from sam3d_label.cli.progress import stderr, steps
    from sam3d_label.evaluation.cases import EvaluationCase, read_case
    from sam3d_label.evaluation.pictures import draw_click
    from sam3d_label.image.labels import open_label
    from sam3d_label.image.volume import Volume

    target = ignored = None
    with steps(stderr(), f"Reading {image.name} …") as say:
        if truth is None:
            volume = Volume.open(image)
        else:
            volume, target, ignored = read_case(EvaluationCase(image.name, image, truth), label)
        volume.require_plausible_size()
        prompts.require_inside(volume.shape)
        if mask is None:
            prompts.validate(volume.shape)
            found = segment_volume(volume, prompts, weights, device, say).mask > 0
        else:
            stored = open_label(mask)
            volume.require_same_grid(stored)
            found = stored.array > 0
        if ignored is not None:
            found &= ~ignored  # as in an evaluation
        draw_click(out, volume.array, volume.affine, found, target, prompts.clicks, volume.modality)
    typer.echo(f"wrote {out}")


def _label_and_out(files: list[Path]) -> tuple[Path | None, Path]:
    if len(files) > 2:
        raise Sam3dError(f"{files[2]} is one file too many: give IMAGE, LABEL if there is one, and OUT")
    return (None, files[0]) if len(files) == 1 else (files[0], files[1])
