"""``python -m sam3d_label COMMAND``: volumes, clicks and measurements from a shell.

A mistake of the user ends with one line on standard error and exit status 2. Commands check their arguments before they
import torch, so that help and such a line appear at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from sam3d_label import __version__
from sam3d_label.cli import api_keys, evaluate, export, import_data, picture, replay, serve, train, versions
from sam3d_label.cli.options import (
    ClickOption,
    DeviceOption,
    ExcludeOption,
    ListedVoxels,
    OverwriteOption,
    PresetName,
    SeedOption,
    WeightsOption,
    check_device,
    examples,
    prompts_of,
    require_weights,
    segment_volume,
)
from sam3d_label.cli.paths import require_folder, require_inputs, require_suffix, require_unused
from sam3d_label.errors import Sam3dError, plain_words
from sam3d_label.image.suffixes import MASK_SUFFIXES

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
        **extra: object,
    ) -> object:
        """Run a command and end with its exit status."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        run = partial(super().main, arguments, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            status = run()
        except _UsageError as error:
            _fail(plain_words(error.format_message()))  # type: ignore[attr-defined]  # click's UsageError
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
    """Take the options in front of the command; the help text is that of `app`."""


class SamName(str, Enum):
    """SAM's published checkpoints."""

    VIT_B = "vit_b"
    VIT_L = "vit_l"
    VIT_H = "vit_h"


class DatasetName(str, Enum):
    """Data sets of the authors' checkpoints; the names of `weights.reference.DATASETS`."""

    KITS21 = "kits21"
    LITS17 = "lits17"
    PANCREAS = "pancreas"
    COLON = "colon"


@app.command(epilog=examples("phantom phantoms --cases 20 --seed 1"))
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write images/ and labels/ into.")],
    cases: Annotated[int, typer.Option(metavar="N", min=1, help="Number of volumes.")] = 3,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Make synthetic CT and MR volumes with lesions, and their labels."""
    require_folder(out)
    from sam3d_label.cli.progress import bar
    from sam3d_label.synthetic import write_phantoms
    from sam3d_label.synthetic.phantoms import phantom_name

    names = [phantom_name(index) for index in range(cases)]
    require_unused(*(out / kind / name for kind in ("images", "labels") for name in names), overwrite=overwrite)

    with bar(Console(stderr=True)) as show:
        written = write_phantoms(out, cases, seed, progress=show)
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
    """Segment the target of clicks and boxes in one volume."""
    prompts = prompts_of(click, exclude, box)
    if not prompts.positive and not prompts.boxes:
        raise Sam3dError("nothing marks the target: add --click I,J,K or --box I0,I1,J0,J1,K0,K1")
    require_suffix(out, MASK_SUFFIXES, "a mask")
    require_unused(out, overwrite=overwrite, inputs=[image])
    require_inputs(image)
    require_weights(weights)
    import numpy as np

    from sam3d_label.cli.progress import stderr, steps
    from sam3d_label.image.volume import Volume, require_mask_geometry, save_mask

    with steps(stderr(), f"Reading {image.name} …") as say:
        volume = Volume.open(image)
        require_mask_geometry(out, volume)
        prompts.validate(volume.shape)
        result = segment_volume(volume, prompts, weights, device, say)
        save_mask(out, result.mask, volume)
    voxels = int(np.count_nonzero(result.mask))
    millilitres = voxels * float(np.prod(volume.spacing)) / 1000
    typer.echo(f"wrote {out}: {voxels} voxels, {millilitres:.1f} mL, in {result.seconds:.1f} s")


@app.command(epilog=examples("convert-reference best.pth.tar adapter.safetensors"))
def convert_reference(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of the authors (.pth.tar).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Weights file to write (.safetensors).")],
    dataset: Annotated[
        DatasetName, typer.Option(help="Data set that it was trained on, which sets how intensities are normalized.")
    ] = DatasetName.KITS21,
    prompt_heads: Annotated[
        int, typer.Option(metavar="N", min=1, help="Attention heads of its prompt encoder, which are not in the file.")
    ] = 8,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a checkpoint of 3DSAM-adapter's authors to this project's weights."""
    require_suffix(out, [".safetensors"], "converted weights")
    require_unused(out, out.with_suffix(".card.json"), overwrite=overwrite, inputs=[checkpoint])
    require_inputs(checkpoint)
    from sam3d_label.cli.progress import stderr, steps

    with steps(stderr()) as say:
        say(f"Converting {checkpoint.name} …")
        from sam3d_label.weights.reference import convert

        card = convert(checkpoint, out, dataset=dataset.value, prompt_heads=prompt_heads)
    typer.echo(f"wrote {out}: {(card.training.model_extra or {})['note']}")


@app.command(epilog=examples("convert-litemedsam lite_medsam.pth encoder.safetensors"))
def convert_litemedsam(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="LiteMedSAM's lite_medsam.pth.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write (.safetensors).")],
    fp32: Annotated[bool, typer.Option("--fp32", help="Store float32 instead of float16.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert the image encoder of LiteMedSAM to a file of this project."""
    require_suffix(out, [".safetensors"], "a converted encoder")
    require_unused(out, overwrite=overwrite, inputs=[checkpoint])
    require_inputs(checkpoint)
    from sam3d_label.cli.progress import stderr, steps

    with steps(stderr()) as say:
        say(f"Converting {checkpoint.name} …")
        import torch

        from sam3d_label.weights.litemedsam import convert

        convert(checkpoint, out, dtype=torch.float32 if fp32 else torch.float16)
    typer.echo(f"wrote {out}: {out.stat().st_size / 1e6:.0f} MB")


@app.command(epilog=examples("fetch vit_b", "fetch vit_h --folder /data/sam"))
def fetch(
    name: Annotated[SamName, typer.Argument(help="Size of the checkpoint.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to store it.", show_default="~/.cache/sam3d")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Download one of SAM's published checkpoints, on which the presets of the same names are built."""
    if folder is not None:
        require_folder(folder)
    from sam3d_label.weights import sam

    typer.echo(f"wrote {sam.fetch(name.value, folder or sam.cache_folder(), overwrite=overwrite)}")


@app.command(epilog=examples("benchmark", "benchmark --preset vit_b --json benchmark.json", "benchmark --device cuda"))
def benchmark(
    preset: Annotated[PresetName, typer.Option(help="Size of the network.")] = PresetName.VIT_B,
    device: DeviceOption = "cpu",
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the results to this file, too.", show_default=False),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure first click, next click and training step, and the same with the plain formulation of the network."""
    if json is not None:
        require_suffix(json, [".json"], "the file of results")
        require_unused(json, overwrite=overwrite)
    from sam3d_label.cli.progress import stderr, steps

    with steps(stderr()) as say:
        say(f"Measuring {preset.value} on {device} …")
        check_device(device)
        from sam3d_label.benchmark import run

        numbers = run(preset.value, device, console=Console())
    if json is not None:
        from sam3d_label.io import write_record

        write_record(json, numbers)


app.add_typer(serve.app)
app.add_typer(picture.app)
app.add_typer(train.app)
app.add_typer(evaluate.app)
app.add_typer(import_data.app)
app.add_typer(export.app)
app.add_typer(replay.app)
app.add_typer(versions.app, name="versions")
app.add_typer(api_keys.app, name="api-key")


def _fail(message: str) -> NoReturn:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)
