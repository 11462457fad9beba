"""``python -m sam3d_label COMMAND``: volumes, clicks and measurements from a shell.

What the user can mend ends with one line on standard error and exit status 2. Heavy imports wait inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from sam3d_label import (
    __version__,
    api_keys_cli,
    evaluation_cli,
    exporting_cli,
    importing_cli,
    replay_cli,
    versions_cli,
)
from sam3d_label.errors import Sam3dError
from sam3d_label.options import (
    ClickOption,
    DeviceOption,
    ExcludeOption,
    LabelOption,
    ListedVoxels,
    OverwriteOption,
    WeightsOption,
    box_of,
    check_device,
    clicks_of,
    examples,
    require_unused,
)

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class OneLineErrors(TyperGroup):
    """The commands; a mistake of the user ends with one line on standard error and exit status 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; see the class for what becomes of its errors."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        run = partial(super().main, arguments, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            status = run()
        except _UsageError as error:
            _fail(error.format_message())  # type: ignore[attr-defined]
        except Sam3dError as error:
            _fail(str(error))
        except BrokenPipeError:
            sys.exit(1)
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except typer.Abort:
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Click on a tumour in a CT or MR volume and get its 3D mask.",
    epilog="Each command shows examples: [bold]python -m sam3d_label COMMAND --help[/bold]",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sam3d_label {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options in front of the command; the help of the whole is that of `app`."""


@app.command(epilog=examples("phantom phantoms --cases 20 --seed 1"))
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write images/ and labels/ into.")],
    cases: Annotated[int, typer.Option(metavar="N", help="How many volumes.")] = 3,
    seed: Annotated[int, typer.Option(metavar="S", help="The same seed makes the same volumes.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Make synthetic CT and MR volumes with lesions, and their labels."""
    if cases < 1:
        raise Sam3dError(f"--cases {cases}: give at least 1")
    if seed < 0:
        raise Sam3dError(f"--seed {seed}: give 0 or more")
    there = (entry for kind in ("images", "labels") for entry in (out / kind).glob("*"))
    require_unused(*(entry for entry in there if not entry.is_dir()), overwrite=overwrite)
    from sam3d_label.phantoms import write_phantoms

    written = write_phantoms(out, cases, seed)
    typer.echo(f"wrote {len(written)} volumes to {out / 'images'} and their labels to {out / 'labels'}")


@app.command(
    cls=ListedVoxels,
    epilog=examples(
        "segment ct.nii.gz mask.nii.gz --click 120,88,31",
        "segment ct.nrrd m.nrrd --click 99,88,31 91,70,33 --exclude 80,70,31",
        "segment dicom-folder mask.nii.gz --box 90,140,70,99,20,40",
    ),
)
def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="NIfTI, NRRD or MHA file, or a DICOM folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Mask to write, 1 inside: .nii.gz, .nii, .nrrd or .mha.")],
    click: ClickOption = None,
    exclude: ExcludeOption = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="I0,I1,J0,J1,K0,K1", help="Opposite corners of a box around the target, both included."),
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Segment what the clicks point at in one volume."""
    clicks, boxes = clicks_of(click, exclude), [box_of(text) for text in box or []]
    if not clicks and not boxes:
        raise Sam3dError("nothing points at the target; add --click I,J,K or --box I0,I1,J0,J1,K0,K1")
    check_device(device)
    import numpy as np

    from sam3d_label.prompts import Prompts
    from sam3d_label.segmenter import Segmenter
    from sam3d_label.volume import Volume, require_mask_geometry, require_mask_suffix, save_mask
    from sam3d_label.weights import open_weights

    require_mask_suffix(out)
    require_unused(out, overwrite=overwrite, inputs=[image])
    prompts = Prompts(clicks=tuple(clicks), boxes=tuple(boxes))
    volume = Volume.open(image)
    require_mask_geometry(out, volume)
    prompts.validate(volume.shape)
    result = Segmenter(volume, open_weights(weights, device)).segment(prompts)
    save_mask(out, result.mask, volume)
    voxels = int(np.count_nonzero(result.mask))
    millilitres = voxels * float(np.prod(volume.spacing)) / 1000
    typer.echo(f"wrote {out}: {voxels} voxels, {millilitres:.1f} mL, in {result.seconds:.1f} s")


@app.command(
    cls=ListedVoxels,
    epilog=examples("picture ct.nii.gz label.nii.gz click.png --click 120,88,31"),
)
def picture(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Volume to click on.")],
    truth: Annotated[Path, typer.Argument(metavar="LABEL", help="Its label.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="PNG to write.")],
    click: ClickOption = None,
    exclude: ExcludeOption = None,
    label: LabelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Draw a click, the mask it gives and the truth, side by side."""
    clicks = clicks_of(click, exclude)
    if not clicks:
        raise Sam3dError("nothing points at the target; add --click I,J,K")
    require_unused(out, overwrite=overwrite, inputs=[image, truth])
    check_device(device)
    import numpy as np

    from sam3d_label.evaluation.pictures import draw_click
    from sam3d_label.evaluation.protocol import Case, open_case
    from sam3d_label.prompts import Prompts
    from sam3d_label.segmenter import Segmenter
    from sam3d_label.weights import open_weights

    volume, target = open_case(Case(image.name, image, truth), label)
    prompts = Prompts(clicks=tuple(clicks))
    prompts.validate(volume.shape)
    result = Segmenter(volume, open_weights(weights, device)).segment(prompts)
    draw_click(out, np.asarray(volume.array), volume.affine, result.mask > 0, target, clicks)
    typer.echo(f"wrote {out}")


@app.command(
    epilog=examples(
        "train images labels out --epochs 20",
        "train images labels out --label 2 --weights out-of-last-week",
        "train images labels out --epochs 40 --resume",
        "train images labels out --preset vit_b --device cuda",
    )
)
def train(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of volumes.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of labels with the images' names.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for weights, card, checkpoint, log and curves.")],
    label: LabelOption = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="P", help="Start from new adapters on SAM's vit_b, vit_l or vit_h, or on tiny's trunk."),
    ] = None,
    weights: WeightsOption = None,
    epochs: Annotated[int, typer.Option(metavar="E", help="Epochs, a checkpoint after each.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUT.")] = False,
    device: DeviceOption = "cpu",
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the cases that are scored and never trained on.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(metavar="S", help="Fixes every random choice.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Fine-tune weights on annotated volumes.

    The adapters train in simulated sessions of clicks and corrections; SAM's
    trunk stays frozen. OUT then serves: --weights OUT.
    """
    if preset and weights:
        raise Sam3dError("--preset starts new adapters and --weights goes on with trained ones: give one of the two")
    if seed < 0:
        raise Sam3dError(f"--seed {seed}: give 0 or more")
    if epochs < 1:
        raise Sam3dError(f"--epochs {epochs}: give at least 1")
    if not 0 <= validation < 1:
        raise Sam3dError(f"--validation {validation}: give a share from 0 to below 1")
    check_device(device)
    from sam3d_label.training.fine_tune import CHECKPOINT, CURVES, LOG

    if not resume and int(os.environ.get("RANK", "0")) == 0:  # one process of torchrun looks, before any has written
        written = ("adapter.safetensors", "trunk.safetensors", "card.json", CHECKPOINT, LOG, CURVES)
        require_unused(*(out / name for name in written), overwrite=overwrite)
    from sam3d_label.training.run import train_folder
    from sam3d_label.weights import open_weights, untrained

    start = untrained(preset, device=device) if preset else open_weights(weights, device)
    console = Console(stderr=True)
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
    )
    typer.echo(f"wrote {out}: version {card.version}, serves with --weights {out}")


@app.command(epilog=examples("convert-reference best.pth.tar adapter.safetensors"))
def convert_reference(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of the authors (.pth.tar).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Weights file to write (.safetensors).")],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Data set it was trained on, which fixes the intensities.")
    ] = "kits21",
    prompt_heads: Annotated[
        int, typer.Option(metavar="N", help="Attention heads of its prompt encoder; the file does not tell.")
    ] = 8,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a checkpoint of 3DSAM-adapter's authors to this project's weights."""
    require_unused(out, out.with_name("card.json"), overwrite=overwrite, inputs=[checkpoint])
    from sam3d_label.weights.reference import convert

    card = convert(checkpoint, out, dataset=dataset, prompt_heads=prompt_heads)
    typer.echo(f"wrote {out}: {(card.training.model_extra or {})['note']}")


@app.command(epilog=examples("fetch vit_b", "fetch vit_h --folder /data/sam"))
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="vit_b, vit_l or vit_h.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to store it.", show_default="~/.cache/sam3d")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Download one of SAM's published checkpoints, which the presets of its sizes build on."""
    from sam3d_label.weights import sam

    typer.echo(f"wrote {sam.fetch(name, folder or sam.cache_folder(), overwrite=overwrite)}")


@app.command(epilog=examples("benchmark", "benchmark --preset vit_b --json benchmark.json", "benchmark --device cuda"))
def benchmark(
    preset: Annotated[str, typer.Option(metavar="P", help="tiny, vit_b, vit_l or vit_h.")] = "vit_b",
    device: DeviceOption = "cpu",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here too.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Time first click, next click and training step, beside the plain formulation of the same network."""
    check_device(device)
    require_unused(*([json] if json else []), overwrite=overwrite)
    from sam3d_label.benchmark import run
    from sam3d_label.network.config import PRESETS

    if preset not in PRESETS:
        raise Sam3dError(f"--preset {preset}: there is no such one; choose from {', '.join(PRESETS)}")
    numbers = run(preset, device, console=Console())
    if json:
        from sam3d_label.io import write_json

        write_json(json, numbers)


app.add_typer(evaluation_cli.app)
app.add_typer(importing_cli.app)
app.add_typer(exporting_cli.app)
app.add_typer(replay_cli.app)
app.add_typer(versions_cli.app, name="versions")
app.add_typer(api_keys_cli.app, name="api-key")


def _fail(message: str) -> NoReturn:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)
