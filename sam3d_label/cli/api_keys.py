"""``python -m sam3d_label api-key``: make, list and revoke the API keys of a server."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sam3d_label.cli.options import examples


class RoleOption(str, Enum):
    """Roles of a key."""

    ANNOTATOR = "annotator"
    ADMIN = "admin"


app = typer.Typer(
    help="Make, list and revoke the API keys of a server; a running server uses them at once.",
    no_args_is_help=True,
    epilog=examples(
        "api-key add anna --role annotator --file /data/keys.json",
        "api-key list --file /data/keys.json",
        "api-key revoke anna --file /data/keys.json",
    ),
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="User or program that holds the key.")]
File = Annotated[Path, typer.Option("--file", help="File of keys, as in --conf api_keys FILE of the server.")]


@app.command()
def add(name: Name, file: File, role: Annotated[RoleOption, typer.Option(help="Permissions of the holder.")]) -> None:
    """Make a key and print it; only its hash is stored, so it cannot be printed again."""
    from sam3d_label.access.api_keys import ApiKeys

    typer.echo(ApiKeys(file).add(name, role.value))


@app.command("list")
def show_list(file: File) -> None:
    """Print names, roles and dates of all keys."""
    from rich.table import Table

    from sam3d_label.access.api_keys import ApiKeys

    table = Table("name", "role", "created")
    for key in ApiKeys(file).all():
        table.add_row(key.name, key.role, key.created)
    Console().print(table)


@app.command()
def revoke(name: Name, file: File) -> None:
    """Remove a key, and end the sessions that were opened with it."""
    from sam3d_label.access.api_keys import ApiKeys

    ApiKeys(file).revoke(name)
    typer.echo(f"revoked {name}")
