"""``python -m sam3d_label COMMAND``: volumes, clicks and measurements from a shell.

What the user can mend ends with one line on standard error and exit status 2. Heavy imports wait inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from sam3d_label import exporting_cli, importing_cli, replay_cli, versions_cli
from sam3d_label.errors import Sam3dError

if TYPE_CHECKING:
    from sam3d_label.evaluation.protocol import Cohort
    from sam3d_label.prompts import Box, Click
    from sam3d_label.weights import Weights

DEFAULT_CLICKS = "1,2,3,5,10"
_VOXEL = re.compile(r"-?\d+(,-?\d+){2}")
_LISTS = ("--click", "--exclude")
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


class ListedVoxels(TyperCommand):
    """A command whose voxel options take several voxels each: ``--click 1,2,3 4,5,6``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further voxel."""
        return super().parse_args(ctx, list(_spelled_out(args)))


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Click on a tumour in a CT or MR volume and get its 3D mask.",
    epilog="Each command shows examples: [bold]python -m sam3d_label COMMAND --help[/bold]",
)

WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="W", help="Weights: a file, or the name of shipped ones.", show_default="shipped"),
]
DeviceOption = Annotated[str, typer.Option(metavar="D", help="Where the network runs: cpu, cuda, cuda:1, mps.")]
ClickOption = Annotated[
    list[str] | None,
    typer.Option(metavar="I,J,K …", help="A voxel inside the target, counted in the stored image."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="I,J,K …", help="A voxel outside the target.")]


def _examples(*lines: str) -> str:
    return "\n\n".join(["[bold]Examples[/bold]", *(f"python -m sam3d_label {line}" for line in lines)])


@app.command(epilog=_examples("phantom phantoms --cases 20 --seed 1"))
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write images/ and labels/ into.")],
    cases: Annotated[int, typer.Option(metavar="N", help="How many volumes.")] = 3,
    seed: Annotated[int, typer.Option(metavar="S", help="The same seed makes the same volumes.")] = 0,
) -> None:
    """Make synthetic CT and MR volumes with lesions, and their labels."""
    if cases < 1:
        raise Sam3dError(f"--cases {cases}: give at least 1")
    if seed < 0:
        raise Sam3dError(f"--seed {seed}: give 0 or more")
    from sam3d_label.phantoms import write_phantoms

    written = write_phantoms(out, cases, seed)
    typer.echo(f"wrote {len(written)} volumes to {out / 'images'} and their labels to {out / 'labels'}")


@app.command(
    cls=ListedVoxels,
    epilog=_examples(
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
) -> None:
    """Segment what the clicks point at in one volume."""
    clicks, boxes = _clicks(click, exclude), [_box(text) for text in box or []]
    if not clicks and not boxes:
        raise Sam3dError("nothing points at the target; add --click I,J,K or --box I0,I1,J0,J1,K0,K1")
    _check_device(device)
    import numpy as np

    from sam3d_label.prompts import Prompts
    from sam3d_label.segmenter import Segmenter
    from sam3d_label.volume import Volume, require_mask_suffix, save_mask
    from sam3d_label.weights import open_weights

    require_mask_suffix(out)
    prompts = Prompts(clicks=tuple(clicks), boxes=tuple(boxes))
    volume = Volume.open(image)
    prompts.validate(volume.shape)
    result = Segmenter(volume, open_weights(weights, device)).segment(prompts)
    save_mask(out, result.mask, volume)
    voxels = int(np.count_nonzero(result.mask))
    millilitres = voxels * float(np.prod(volume.spacing)) / 1000
    typer.echo(f"wrote {out}: {voxels} voxels, {millilitres:.1f} mL, in {result.seconds:.1f} s")


@app.command(
    epilog=_examples(
        "evaluate sample-data/images sample-data/labels out",
        "evaluate images labels out --cases '*_mr*' --annotator jittered",
        "evaluate images labels out --label 5 --clicks 1,5 --noc 20",
        "evaluate images labels out --clicks 0,1,3,5,10",
    )
)
def evaluate(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of volumes, or one volume.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder of labels with the images' names, or one.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for tables, summary and pictures.")],
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Value of the target in the labels.", show_default="any but 0"),
    ] = None,
    weights: WeightsOption = None,
    clicks: Annotated[
        str, typer.Option(metavar="LIST", help="Click counts to report; 0 is before the first.")
    ] = DEFAULT_CLICKS,
    annotator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who clicks: error_centre, largest_component_centre, jittered, random_foreground.",
        ),
    ] = "error_centre",
    seed: Annotated[int, typer.Option(metavar="S", help="Of the annotator's chance.")] = 0,
    cases: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only the files that match; several globs by commas.", show_default="all"),
    ] = None,
    device: DeviceOption = "cpu",
    noc: Annotated[
        int | None,
        typer.Option(
            metavar="CAP",
            help="Click on to this count for the number of clicks (NoC) to reach Dice 0.80, 0.85 and 0.90; "
            "a case that does not reach it counts as CAP. The published cap is 20.",
            show_default="largest of --clicks",
        ),
    ] = None,
) -> None:
    """Measure the weights with a simulated annotator on labelled volumes.

    A click is given, the mask compared with the truth, the next click placed.
    The model sees clicks only. Seconds are those of the requests, the volume
    being open; Dice and surface Dice (NSD) are means over cases. OUT holds
    cases.csv, clicks.csv, summary.json, curve.png and worst.png, which shows
    the cases that end with the lowest Dice.
    """
    counts = _counts(clicks)
    cap = _cap(noc, counts)
    from sam3d_label.evaluation.annotators import ANNOTATORS

    if annotator not in ANNOTATORS:
        raise Sam3dError(f"--annotator {annotator}: there is no such one; choose from {', '.join(ANNOTATORS)}")
    _check_device(device)
    from sam3d_label.evaluation.protocol import find_cases
    from sam3d_label.evaluation.report import write_report
    from sam3d_label.weights import open_weights

    find_cases(images, labels, cases)
    opened = open_weights(weights, device)
    _check_learned(opened, annotator, counts)
    cohort = _measured(
        images,
        labels,
        opened,
        annotator=ANNOTATORS[annotator],
        label=label,
        clicks=counts,
        last=cap,
        seed=seed,
        cases=cases,
    )
    about = {
        "annotator": annotator,
        "seed": seed,
        "clicks": counts,
        "weights": {"name": weights or opened.card.preset, "version": opened.version},
        "device": device,
        "peak_memory_mib": _peak_memory_mib(),
        "peak_device_memory_mib": _peak_device_memory_mib(device),
        "command": shlex.join(["python", "-m", "sam3d_label", *sys.argv[1:]]),
    }
    _show_summary(write_report(out, cohort, counts, cap, about), out)


@app.command(
    cls=ListedVoxels,
    epilog=_examples("picture ct.nii.gz label.nii.gz click.png --click 120,88,31"),
)
def picture(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Volume to click on.")],
    truth: Annotated[Path, typer.Argument(metavar="LABEL", help="Its label.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="PNG to write.")],
    click: ClickOption = None,
    exclude: ExcludeOption = None,
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Value of the target in the label.", show_default="any but 0"),
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw a click, the mask it gives and the truth, side by side."""
    clicks = _clicks(click, exclude)
    if not clicks:
        raise Sam3dError("nothing points at the target; add --click I,J,K")
    _check_device(device)
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
    epilog=_examples(
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
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Value of the target in the labels.", show_default="any but 0"),
    ] = None,
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
    _check_device(device)
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


@app.command(epilog=_examples("convert-reference best.pth.tar adapter.safetensors"))
def convert_reference(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of the authors (.pth.tar).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Weights file to write (.safetensors).")],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Data set it was trained on, which fixes the intensities.")
    ] = "kits21",
    prompt_heads: Annotated[
        int, typer.Option(metavar="N", help="Attention heads of its prompt encoder; the file does not tell.")
    ] = 8,
) -> None:
    """Convert a checkpoint of 3DSAM-adapter's authors to this project's weights."""
    from sam3d_label.weights.reference import convert

    card = convert(checkpoint, out, dataset=dataset, prompt_heads=prompt_heads)
    typer.echo(f"wrote {out}: {(card.training.model_extra or {})['note']}")


@app.command(epilog=_examples("fetch vit_b", "fetch vit_h --folder /data/sam"))
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="vit_b, vit_l or vit_h.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to store it.", show_default="~/.cache/sam3d")
    ] = None,
) -> None:
    """Download one of SAM's published checkpoints, which the presets of its sizes build on."""
    from sam3d_label.weights import sam

    typer.echo(f"wrote {sam.fetch(name, folder or sam.cache_folder())}")


@app.command(epilog=_examples("benchmark", "benchmark --preset vit_b --json benchmark.json", "benchmark --device cuda"))
def benchmark(
    preset: Annotated[str, typer.Option(metavar="P", help="tiny, vit_b, vit_l or vit_h.")] = "vit_b",
    device: DeviceOption = "cpu",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here too.")] = None,
) -> None:
    """Time first click, next click and training step, beside the plain formulation of the same network."""
    _check_device(device)
    from sam3d_label.benchmark import run
    from sam3d_label.network.config import PRESETS

    if preset not in PRESETS:
        raise Sam3dError(f"--preset {preset}: there is no such one; choose from {', '.join(PRESETS)}")
    numbers = run(preset, device, console=Console())
    if json:
        from sam3d_label.evaluation.report import write_json

        write_json(json, numbers)


app.add_typer(importing_cli.app)
app.add_typer(exporting_cli.app)
app.add_typer(replay_cli.app)
app.add_typer(versions_cli.app, name="versions")


def _fail(message: str) -> NoReturn:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)


def _spelled_out(args: Iterable[str]) -> Iterable[str]:
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


def _clicks(inside: Sequence[str] | None, outside: Sequence[str] | None) -> list[Click]:
    from sam3d_label.prompts import Click

    return [
        *(Click(_voxel("--click", text), positive=True) for text in inside or []),
        *(Click(_voxel("--exclude", text), positive=False) for text in outside or []),
    ]


def _voxel(option: str, text: str) -> tuple[int, int, int]:
    i, j, k = _whole_numbers(option, text, 3, "I,J,K, such as 120,88,31")
    return (i, j, k)


def _box(text: str) -> Box:
    from sam3d_label.prompts import Box

    i0, i1, j0, j1, k0, k1 = _whole_numbers("--box", text, 6, "I0,I1,J0,J1,K0,K1, such as 100,140,70,110,20,40")
    return Box.from_pairs((i0, i1, j0, j1, k0, k1))


def _whole_numbers(option: str, text: str, count: int, form: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise Sam3dError(f"{option} {text}: give {count} whole numbers as {form}")
    return numbers


def _counts(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 0 or counts[-1] < 1:
        raise Sam3dError(f"--clicks {text}: give click counts from 1 on, such as {DEFAULT_CLICKS}, and 0 if wanted")
    return counts


def _cap(noc: int | None, counts: Sequence[int]) -> int:
    if noc is not None and noc < 1:
        raise Sam3dError(f"--noc {noc}: give at least 1, such as 20")
    return max(counts) if noc is None else noc


def _check_device(device: str) -> None:
    """Raise unless torch knows the device and this machine has it."""
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Sam3dError(f"--device {device}: not on this machine; use cpu ({str(error).splitlines()[0]})") from error


def _check_learned(weights: Weights, annotator: str, counts: Sequence[int]) -> None:
    """Raise when the annotator corrects with clicks, or no click is asked for, and the weights have not learned it."""
    from sam3d_label.evaluation.annotators import POSITIVE_ONLY

    if annotator not in POSITIVE_ONLY and "negative_click" not in weights.card.capabilities:
        allowed = ", ".join(sorted(POSITIVE_ONLY))
        raise Sam3dError(f"these weights know no clicks outside the target; use --annotator {allowed}")
    if 0 in counts and "no_click" not in weights.card.capabilities:
        raise Sam3dError("these weights have not learned to segment without a click; leave 0 out of --clicks")


def _measured(images: Path, labels: Path, weights: Weights, **options: Any) -> Cohort:
    """The cohort, with a progress bar on standard error; raises Sam3dError when no case could be measured."""
    from sam3d_label.evaluation.protocol import evaluate_cohort
    from sam3d_label.progress import bar
    from sam3d_label.segmenter import Segmenter

    errors = Console(stderr=True)
    with bar(errors) as show:
        cohort = evaluate_cohort(images, labels, lambda volume: Segmenter(volume, weights), progress=show, **options)
    for skipped in cohort.skipped if cohort.results else ():
        errors.print(f"skipped {skipped.case}: {skipped.reason}", highlight=False, markup=False, soft_wrap=True)
    if not cohort.results:
        first = cohort.skipped[0]
        raise Sam3dError(f"none of {len(cohort.skipped)} cases could be measured; {first.case}: {first.reason}")
    return cohort


def _peak_memory_mib() -> float | None:
    """The most main memory this process has held, MiB; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _peak_device_memory_mib(device: str) -> float | None:
    """The most memory that tensors have held on a CUDA device, MiB; ``None`` for other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def _show_summary(summary: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(title=f"{summary['cases']} cases · {summary['annotator']}", title_justify="left")
    for name in ("clicks", "Dice", "95 % interval", "NSD 2 mm", "NSD 5 mm"):
        table.add_column(name, justify="right")
    for count, value in summary["dice"].items():
        low, high = summary["dice_ci95"][count]
        surfaces = [f"{summary[name][count]:.3f}" for name in ("nsd_2mm", "nsd_5mm")]
        table.add_row(count, f"{value:.3f}", f"{low:.3f}–{high:.3f}", *surfaces)
    console = Console()
    console.print(table)
    cap, failed = summary["noc_cap"], summary["failures"]["noc85"]
    console.print(f"clicks to Dice 0.85: {summary['noc85']:.1f} ({failed} of {summary['cases']} not within {cap})")
    following = summary["seconds_next_click"]
    then = "" if following is None else f", next click {following:.2f} s"
    console.print(f"first click {summary['seconds_first_click']:.2f} s{then} (medians)")
    typer.echo(f"wrote {out}")
