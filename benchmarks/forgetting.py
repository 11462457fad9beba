"""How much an update on a few cases gains on their kind of target, and what it loses on others.

    python benchmarks/forgetting.py TEAM OUT --train 'sts_005*,sts_011*' --held-out 'sts_027*,sts_031*' \
        --other 'CT=STS:sts_029_ct*,sts_032_ct*' --other 'MR=STS:sts_029_mr*,sts_031_mr*'

Trains on some cases of the folder TEAM (images/ and labels/) from shipped weights, then measures interpolations between
the weights before and after on held-out cases of the same kind, on other folders, and on the reference set, with the
annotator `error_centre`. OUT gets the trained weights, and OUT/forgetting.csv a row for each case; a second call with
other --shares measures the same weights.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from sam3d_label.model_update.gate import score
from sam3d_label.model_update.reference_set import open_reference_set
from sam3d_label.model_update.rehearsal import rehearsal_cases
from sam3d_label.model_update.report import DICES, CaseScore
from sam3d_label.model_update.shares import interpolated
from sam3d_label.training import TrainingCase, TrainingRun, TrainReport, TrainSettings, pair_cases
from sam3d_label.training.dataset import OpenedCase
from sam3d_label.training.export import store
from sam3d_label.training.files import CHECKPOINT
from sam3d_label.training.fine_tune import fine_tune, open_cases
from sam3d_label.weights import DataSource, Weights, open_weights
from sam3d_label.weights.locations import ADAPTER

STEPS_PER_EPOCH = 20
COLUMNS = ("share", "set", "case", *DICES)


class Rehearsal(str, Enum):
    """Target of the phantoms that are rehearsed: what the network answered before, or their labels."""

    answers = "answers"
    labels = "labels"
    none = "none"


def learn(
    start: Weights, cases: Sequence[TrainingCase], settings: TrainSettings, rehearsal: Rehearsal, out: Path
) -> Weights:
    """Return the weights after an update, which are stored in `out`; those that are there already are read."""
    if (out / ADAPTER).is_file():
        return open_weights(str(out))
    model = copy.deepcopy(start.model)
    phantoms = [] if rehearsal is Rehearsal.none else rehearsal_cases(out / "rehearsal", len(cases))
    extra = [replace(case, rehearsed=rehearsal is Rehearsal.answers) for case in phantoms]
    run = TrainingRun(
        cases=[*(replace(case, salient=True) for case in cases), *extra],
        intensity=start.card.intensity,
        settings=settings,
        resume=(out / CHECKPOINT).is_file(),
    )
    began = time.monotonic()
    report = fine_tune(model, run, out)
    Console(stderr=True).print(f"{settings.steps} steps in {time.monotonic() - began:.0f} s")
    data = [DataSource(name="cases", licence="not stated", cases=len(cases))]
    store(model, start.card, out, report=report, settings=settings, data=data, version=out.name)
    return open_weights(str(out))


def case_sets(
    team: Path, held_out: str, others: Sequence[str], start: Weights
) -> Iterator[tuple[str, Sequence[OpenedCase]]]:
    """Yield the name and the cases of each set that is measured."""
    found = {"held out": pair_cases(team / "images", team / "labels", held_out)}
    for other in others:
        name, _, where = other.partition("=")
        folder, _, pattern = where.rpartition(":")
        found[name] = pair_cases(Path(folder) / "images", Path(folder) / "labels", pattern)
    for name, cases in found.items():
        yield name, open_cases(cases, start.card.intensity, TrainReport())[0]
    for case in open_reference_set(start.card.intensity).cases:
        yield f"reference {case.name.split()[0]}", [case]


def measure(start: Weights, trained: Weights, share: float, cases: Sequence[OpenedCase]) -> list[CaseScore]:
    """Score the weights of a share."""
    model = interpolated(start.model, trained.model, share)
    return score(replace(trained, model=model, signature=f"{trained.signature} {share}"), cases)


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Add rows to a table."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if new:
            table.writeheader()
        table.writerows(rows)


def summary(rows: Sequence[dict[str, str]]) -> Table:
    """Return the mean Dice after one, three and five clicks by share and set."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["share"], row["set"]), []).append(row)
    shares, sets = (list(dict.fromkeys(key[part] for key in groups)) for part in (0, 1))
    table = Table("share", *sets)
    for share in shares:
        of_sets = [groups.get((share, name), []) for name in sets]
        table.add_row(share, *(" / ".join(_means(of_set)) if of_set else "–" for of_set in of_sets))
    return table


def _means(rows: Sequence[dict[str, str]]) -> list[str]:
    return [f"{fmean(float(row[dice]) for row in rows):.3f}" for dice in DICES]


def main(
    team: Annotated[Path, typer.Argument(help="Folder with images/ and labels/ of the team's kind of target.")],
    out: Annotated[Path, typer.Argument(help="Folder for the trained weights and the table.")],
    train: Annotated[str, typer.Option(help="Globs of the cases that train.")],
    held_out: Annotated[str, typer.Option(help="Globs of the cases that are measured.")],
    other: Annotated[list[str] | None, typer.Option(help="Other cases that are measured: NAME=FOLDER:GLOBS.")] = None,
    shares: Annotated[str, typer.Option(help="Shares of the new weights; 0 for the weights before.")] = "0,0.5,1",
    steps: Annotated[int, typer.Option(help="Steps of the update.")] = 140,
    settings: Annotated[str, typer.Option(help="JSON of settings that replace the app's.")] = "{}",
    specialise: Annotated[bool, typer.Option("--specialise", help="Settings of `reference_limit none`.")] = False,
    rehearsal: Annotated[Rehearsal, typer.Option(help="Target of the phantoms among the cases.")] = Rehearsal.answers,
    weights: Annotated[str, typer.Option(help="Weights to start from.")] = "tiny",
    threads: int = 1,
) -> None:
    """Train once, measure each share, and print a table."""
    torch.set_num_threads(threads)
    start = open_weights(weights)
    cases = pair_cases(team / "images", team / "labels", train)
    length = {"epochs": max(1, steps // STEPS_PER_EPOCH), "steps_per_epoch": STEPS_PER_EPOCH, "validate_every": steps}
    chosen = TrainSettings.few_cases(len(cases), start.card, keeping=not specialise, **length)
    chosen = TrainSettings.model_validate(
        {**chosen.model_dump(), **TypeAdapter(dict[str, object]).validate_json(settings)}
    )
    trained = learn(start, cases, chosen, rehearsal, out)
    rows: list[dict[str, str]] = []
    for share in shares.split(","):
        for name, opened in case_sets(team, held_out, other or [], start):
            for each in measure(start, trained, float(share), opened):
                dices = {dice: f"{getattr(each, dice):.4f}" for dice in DICES}
                rows.append({"share": share, "set": name, "case": each.case, **dices})
        write(out / "forgetting.csv", [row for row in rows if row["share"] == share])
    Console().print(summary(rows))


if __name__ == "__main__":
    typer.run(main)
