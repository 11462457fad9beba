"""``python -m sam3d_label versions``: the adapter versions of an app, and the active one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import MODEL_DIR, ModelDir, examples

if TYPE_CHECKING:
    from sam3d_label.model_update.report import UpdateReport
    from sam3d_label.model_update.versions import Versions

COLUMNS = ("dice_1", "dice_3", "nsd_3")
BY = "command line"

app = typer.Typer(
    help="List, show, publish and roll back the adapter versions of an app; a running server uses them at once.",
    epilog=examples(
        "versions",
        "versions rollback",
        "versions publish 0003 --model-dir /data/model",
    ),
)
Version = Annotated[str, typer.Argument(metavar="V", help="Number of the version, such as 0003.")]


@app.callback(invoke_without_command=True)
def versions(context: typer.Context, model_dir: ModelDir = MODEL_DIR) -> None:
    """List, show, publish and roll back the adapter versions of an app; without a command, list them."""
    if context.invoked_subcommand is None:
        show_list(model_dir)


@app.command("list")
def show_list(model_dir: ModelDir = MODEL_DIR) -> None:
    """List all versions with the decision of the gate, and mark the active one."""
    from rich.table import Table

    from sam3d_label.model_update.report import UpdateReport

    found = _open(model_dir)
    current = found.current()
    table = Table("version", "active", "made", "cases", "Dice@1", "Dice@3", "NSD@3 2 mm", "share", "reference", "gate")
    for version in found.names():
        report = found.report(version) or UpdateReport()
        means = report.means.get("candidate", {})
        measured = [f"{means[name]:.3f}" if name in means else "–" for name in COLUMNS]
        active = "◀" if version == current else ""
        made, cases = (report.at or "–")[:16], "–" if report.annotated is None else str(report.annotated)
        share = "–" if report.share is None else f"{report.share:.0%}"
        table.add_row(
            version, active, made, cases, *measured, share, _reference(report), _verdict(found, version, report)
        )
    Console().print(table)
    if current is None:
        typer.echo("no version is active: the app uses the weights that it was started with")


@app.command()
def show(version: Version, model_dir: ModelDir = MODEL_DIR) -> None:
    """Print the card and the report of a version as JSON."""
    from sam3d_label.weights.locations import CARD

    found = _open(model_dir)
    card = json.loads((found.path(version) / CARD).read_text(encoding="utf-8"))
    report = found.report(version)
    shown = report.model_dump(mode="json", exclude_unset=True) if report else {}
    Console().print_json(json.dumps({"card": card, "report": shown}))


@app.command()
def publish(version: Version, model_dir: ModelDir = MODEL_DIR) -> None:
    """Activate a version, whatever the gate decided."""
    found = _open(model_dir)
    found.publish(version, BY)
    typer.echo(f"version {version} is active")
    _warn(found, version)


@app.command()
def rollback(
    version: Annotated[
        str | None,
        typer.Argument(metavar="V", help="Number of the version, or shipped.", show_default="the one before"),
    ] = None,
    model_dir: ModelDir = MODEL_DIR,
) -> None:
    """Activate an earlier version again."""
    found = _open(model_dir)
    version = found.rollback(version, BY)
    typer.echo(f"version {version} is active again")
    _warn(found, version)


def _reference(report: UpdateReport) -> str:
    """Return mean Dice on each kind of reference cases, before and after."""
    changes = report.reference.changes if report.reference else []
    return ", ".join(f"{change.kind} {change.before:.2f} → {change.after:.2f}" for change in changes) or "–"


def _verdict(versions: Versions, version: str, report: UpdateReport) -> str:
    """Return the gate's reason for a version, and whether it was activated nevertheless."""
    reason = (report.gate.reason if report.gate else None) or "–"
    manual_activation = versions.manual_activation(version)
    if manual_activation is None:
        return reason
    return f"activated against the gate ({manual_activation.by}, {manual_activation.at[:16]}): {reason}"


def _warn(versions: Versions, version: str) -> None:
    """Print a warning when the gate rejected the active version."""
    from sam3d_label.model_update.versions import INITIAL

    if version != INITIAL and versions.manual_activation(version):
        report = versions.report(version)
        reason = report.gate.reason if report and report.gate else None
        typer.echo(f"the gate rejected version {version}: {reason or 'no reason given'}", err=True)


def _open(model_dir: Path) -> Versions:
    from sam3d_label.model_update.versions import Versions

    return Versions(model_dir / "versions")
