"""What the commands' options mean, and how they are told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.prompts import Box, Click

_VOXEL = re.compile(r"-?\d+(,-?\d+){2}")
_LISTS = ("--click", "--exclude")

WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="W", help="Weights: a file or folder, or the name of shipped ones.", show_default="shipped"),
]
DeviceOption = Annotated[str, typer.Option(metavar="D", help="Where the network runs: cpu, cuda, cuda:1, mps.")]
ClickOption = Annotated[
    list[str] | None,
    typer.Option(metavar="I,J,K …", help="A voxel inside the target, counted in the stored image."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="I,J,K …", help="A voxel outside the target.")]
LabelOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Value of the target in the labels.", show_default="any but 0"),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
LONGEST_NAME = 255
"""Bytes of a file's name that every usual file system takes."""

MOST_NAMED = 3
"""Files that a message names."""

MODEL_DIR = Path("apps/sam3d/model")
ModelDir = Annotated[
    Path, typer.Option("--model-dir", metavar="DIR", help="The app's model folder, as --conf model_dir names it.")
]


def require_unused(*outputs: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that a command writes over nothing that its user has not named for that.

    Args:
        outputs: Files that the command writes.
        overwrite: Whether they may replace others.
        inputs: Files that the command reads: these are never written to.

    Raises:
        Sam3dError: An output is an input, a folder or another output, exists although it must not be overwritten, or
            cannot be a file.
    """
    for output in outputs:
        _require_file_name(output)
    if twice := [output for number, output in enumerate(outputs) if output.absolute() in _absolute(outputs[:number])]:
        raise Sam3dError(f"{twice[0]} is named for two files to write: give each a name of its own")
    there = [output for output in outputs if os.path.lexists(output)]
    for output in there:
        if any(entry.exists() and output.exists() and output.samefile(entry) for entry in inputs):
            raise Sam3dError(f"{output} is what the command reads: give another file to write to")
    if there and not overwrite:
        named = ", ".join(map(str, there[:MOST_NAMED]))
        if len(there) > MOST_NAMED:
            named += f" and {len(there) - MOST_NAMED} more"
        exist, them = ("exists", "it") if len(there) == 1 else ("exist", "them")
        raise Sam3dError(f"{named} {exist}: write elsewhere, or add --overwrite to replace {them}")


def _absolute(paths: Iterable[Path]) -> list[Path]:
    return [path.absolute() for path in paths]


def _require_file_name(output: Path) -> None:
    """Raise `Sam3dError` unless a file can be at a path."""
    try:
        size = len(output.name.encode())
    except UnicodeEncodeError:
        raise Sam3dError(f"{str(output)!r} is not valid UTF-8: give another name") from None
    if size > LONGEST_NAME:
        raise Sam3dError(f"{output.name[:40]}... has {size} bytes in UTF-8: a file name has at most {LONGEST_NAME}")
    if output.is_dir():
        raise Sam3dError(f"{output} is a folder: give the name of a file")
    above = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if not above.is_dir():
        raise Sam3dError(f"{above} is not a folder: {output.name} cannot be in it")


def examples(*lines: str) -> str:
    """The end of a command's help: what follows `python -m sam3d_label`, or a line of torchrun as it stands."""
    whole = (line if line.startswith("torchrun") else f"python -m sam3d_label {line}" for line in lines)
    return "\n\n".join(["[bold]Examples[/bold]", *whole])


class ListedVoxels(TyperCommand):
    """A command whose voxel options take several voxels each: ``--click 1,2,3 4,5,6``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further voxel."""
        return super().parse_args(ctx, list(spelled_out(args)))


def spelled_out(args: Iterable[str]) -> Iterable[str]:
    """The arguments, an option of voxels repeated before each of them."""
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


def clicks_of(inside: Sequence[str] | None, outside: Sequence[str] | None) -> list[Click]:
    """Clicks inside and outside, as the options tell them."""
    from sam3d_label.prompts import Click

    return [
        *(Click(voxel("--click", text), positive=True) for text in inside or []),
        *(Click(voxel("--exclude", text), positive=False) for text in outside or []),
    ]


def voxel(option: str, text: str) -> tuple[int, int, int]:
    """A voxel i, j, k."""
    i, j, k = whole_numbers(option, text, 3, "I,J,K, such as 120,88,31")
    return (i, j, k)


def box_of(text: str) -> Box:
    """A box between two corners."""
    from sam3d_label.prompts import Box

    i0, i1, j0, j1, k0, k1 = whole_numbers("--box", text, 6, "I0,I1,J0,J1,K0,K1, such as 100,140,70,110,20,40")
    return Box.from_pairs((i0, i1, j0, j1, k0, k1))


def whole_numbers(option: str, text: str, count: int, form: str) -> list[int]:
    """So many whole numbers between commas."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise Sam3dError(f"{option} {text}: give {count} whole numbers as {form}")
    return numbers


def check_device(device: str) -> None:
    """Raise unless torch knows the device and this machine has it."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Sam3dError(f"--device {device}: not on this machine; use cpu ({str(error).splitlines()[0]})") from error
