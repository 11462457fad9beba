"""Options that commands share, and their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sam3d_label.cli.bundle import default_model_folder
from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.cli.progress import Say
    from sam3d_label.image.volume import Volume
    from sam3d_label.segmentation.prompts import Box, Prompts
    from sam3d_label.segmentation.segmenter import Result

_VOXEL = re.compile(r"-?\d+(,-?\d+){2}")
_LISTS = ("--click", "--exclude")
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


class PresetName(str, Enum):
    """Presets of the network; the names of `network.PRESETS`, which takes longer to import."""

    TINY = "tiny"
    TINY_GEODESIC = "tiny-geodesic"
    VIT_B = "vit_b"
    VIT_L = "vit_l"
    VIT_H = "vit_h"


def _known_device(name: str) -> str:
    """Check the form of a device's name; whether this machine has it is checked by `check_device`."""
    if not _DEVICE.fullmatch(name):
        raise Sam3dError(f"--device {name}: there is no such device; give cpu, cuda, cuda:1, mps or xpu")
    return name


WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="W", help="Weights: a file, a folder, or the name of shipped weights.", show_default="shipped"
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="D", callback=_known_device, help="Where the network runs: cpu, cuda, cuda:1, mps."),
]
ClickOption = Annotated[
    list[str] | None,
    typer.Option(metavar="I,J,K …", help="A voxel inside the target, counted from 0 in the stored image."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="I,J,K …", help="A voxel outside the target.")]
LabelOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Value of the target in the labels.", show_default="any but 0"),
]
SeedOption = Annotated[int, typer.Option(metavar="S", min=0, help="The same seed gives the same result.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
MODEL_DIR = default_model_folder()
ModelDir = Annotated[
    Path, typer.Option("--model-dir", metavar="DIR", help="Model folder of the app, as in --conf model_dir.")
]


def examples(*lines: str) -> str:
    """Return the end of a command's help.

    Args:
        lines: Arguments of `python -m sam3d_label`, or whole commands that begin with torchrun.
    """
    whole = (line if line.startswith("torchrun") else f"python -m sam3d_label {line}" for line in lines)
    return "\n\n".join(["[bold]Examples[/bold]", *whole])


class ListedVoxels(TyperCommand):
    """A command whose voxel options take several voxels each: ``--click 1,2,3 4,5,6``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer hides the class of contexts
        """Repeat the option before each further voxel."""
        return super().parse_args(ctx, list(repeat_options(args)))


def repeat_options(args: Iterable[str]) -> Iterable[str]:
    """Yield the arguments, with the option of a list of voxels repeated before each of them."""
    option, values = "", 0
    for arg in args:
        if arg in _LISTS:
            option, values = arg, 0
        elif option and (values == 0 or _VOXEL.fullmatch(arg)):
            if values:
                yield option
            values += 1
        else:
            option = ""
        yield arg


def prompts_of(inside: Sequence[str] | None, outside: Sequence[str] | None, boxes: Sequence[str] | None) -> Prompts:
    """Return the prompts that options describe.

    Args:
        inside: Values of --click.
        outside: Values of --exclude.
        boxes: Values of --box.

    Raises:
        Sam3dError: A value has another form.
    """
    from sam3d_label.segmentation.prompts import Click, Prompts

    clicks = [
        *(Click(voxel("--click", text), positive=True) for text in inside or ()),
        *(Click(voxel("--exclude", text), positive=False) for text in outside or ()),
    ]
    return Prompts(clicks=tuple(clicks), boxes=tuple(box_of(text) for text in boxes or ()))


def voxel(option: str, text: str) -> tuple[int, int, int]:
    """Return a voxel i, j, k."""
    i, j, k = whole_numbers(option, text, 3, "I,J,K, such as 120,88,31")
    return (i, j, k)


def box_of(text: str) -> Box:
    """Return a box between two corners."""
    from sam3d_label.segmentation.prompts import Box

    i0, i1, j0, j1, k0, k1 = whole_numbers("--box", text, 6, "I0,I1,J0,J1,K0,K1, such as 100,140,70,110,20,40")
    return Box.from_pairs((i0, i1, j0, j1, k0, k1))


def whole_numbers(option: str, text: str, count: int, form: str) -> list[int]:
    """Return whole numbers between commas; Sam3dError unless there are `count` of them."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise Sam3dError(f"{option} {text}: give {count} whole numbers as {form}")
    return numbers


def require_weights(name: str | None) -> None:
    """Check that weights of a name or path exist and the precision of masks, before torch is imported to use them.

    Raises:
        WeightsError: There are no such weights.
        Sam3dError: The environment variable of the precision has a wrong value.
    """
    from sam3d_label.segmentation.precision import chosen_precision
    from sam3d_label.weights.locations import adapter_file

    chosen_precision()
    adapter_file(name)


def check_device(device: str) -> None:
    """Check that this machine has a device; imports torch for any but the CPU.

    Raises:
        Sam3dError: It has none of this name.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Sam3dError(f"--device {device}: not on this machine; use cpu ({str(error).splitlines()[0]})") from error


def segment_volume(volume: Volume, prompts: Prompts, weights: str | None, device: str, say: Say) -> Result:
    """Load weights and segment a volume; report both steps, the first one before torch is imported."""
    from sam3d_label.cli.progress import loading

    say(loading(weights))
    check_device(device)
    from sam3d_label.segmentation.segmenter import Segmenter
    from sam3d_label.weights import open_weights

    segmenter = Segmenter(volume, open_weights(weights, device))
    say("Segmenting …")
    return segmenter.segment(prompts)
