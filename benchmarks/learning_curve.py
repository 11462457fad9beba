"""The learning loop in fast motion: Dice on cases that never train, over the number of annotated ones.

    python benchmarks/learning_curve.py HIPPOCAMPUS/images HIPPOCAMPUS/labels OUT --minutes 2

An arm of `sam3d` begins with the shipped weights. A strategy of the app chooses the next cases from a pool, the weights
that serve learn from all annotated ones with the app's settings, the result serves and is measured with the annotator
`error_centre` on the last cases by name, which no arm ever trains on. The gate is left out: every version serves. The
arm `unet` is MONAI's DynUNet with click channels (see `click_unet.py`): it begins with nothing, and gets the cases of
the strategy `random` and the same minutes.

Each point is a file in OUT/points, so that a run that was cut off goes on, and runs with other --strategies may share
OUT. OUT/learning_curve.csv, .json and .png are made from all points that are there.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "apps" / "sam3d")]

from click_unet import SETTINGS as UNET_SETTINGS  # noqa: E402
from click_unet import ClickUNet, open_unet  # noqa: E402
from curve_report import METRICS, UNET, UNETS, conclude, write_point  # noqa: E402

from lib.activelearning.strategies import DiversityStrategy, ScoredStrategy, ScoreFile, UncertaintyStrategy  # noqa: E402
from lib.trainers.sam3d import parse_train, train_settings  # noqa: E402
from sam3d_label.active_learning.score import ImageScore, score_volume  # noqa: E402
from sam3d_label.evaluation.annotators import error_centre  # noqa: E402
from sam3d_label.evaluation.metrics import noc  # noqa: E402
from sam3d_label.evaluation.session import evaluate_case  # noqa: E402
from sam3d_label.image.volume import Volume  # noqa: E402
from sam3d_label.io import write_json  # noqa: E402
from sam3d_label.segmentation.segmenter import Segmenter  # noqa: E402
from sam3d_label.training import TrainingCase, TrainingRun, TrainReport, TrainSettings, pair_cases  # noqa: E402
from sam3d_label.training.cases import OpenedCases  # noqa: E402
from sam3d_label.training.export import store  # noqa: E402
from sam3d_label.training.fine_tune import (  # noqa: E402
    CHECKPOINT,
    fine_tune,
    open_cases,
)
from sam3d_label.weights import DataSource, Weights, open_weights  # noqa: E402

STRATEGIES = ("random", "first", "uncertainty", "diverse")
STEPS_PER_EPOCH, TIMED_EPOCHS = 10, 4
CLICKS = ("positive_click", "negative_click")
SHARED = ("clicks", "inference_share", "inference_spacings", "homogeneous", "warmup", "average")
"""Settings of the app that the U-Net trains with as well."""

MOST_CLICKS = 10
"""Clicks after which the annotator gives up; a case that has not reached 0.85 by then counts as so many."""


@dataclass(frozen=True)
class Setup:
    """The settings that all points of a folder share.

    Attributes:
        weights: The weights to start from.
        pool: Cases that may be annotated, by name.
        held_out: Cases that are measured, opened.
        out: Folder of the results.
        steps: Steps of an update, by `sam3d` and `unet`.
        separate: Each point is one update of the weights that the arm begins with.
    """

    weights: Weights
    pool: Mapping[str, TrainingCase]
    held_out: OpenedCases
    out: Path
    steps: Mapping[str, int]
    separate: bool = False

    def point(self, arm: str, seed: int, annotated: int) -> Path:
        """Return the file of a point."""
        return self.out / "points" / f"{arm}_{seed}_{annotated:03d}.csv"

    def learned(self, arm: str, seed: int, annotated: int) -> Path:
        """Return the folder of the weights of a point."""
        return self.out / "weights" / f"{arm}_{seed}_{annotated:03d}"


class Choosing:
    """Chooses the cases of an arm, as the app's strategies do.

    Args:
        setup: What all points share.
        arm: The strategy, or a U-Net, which gets what `random` chooses.
        seed: Of chance.
    """

    def __init__(self, setup: Setup, arm: str, seed: int) -> None:
        self.setup, self.arm = setup, arm
        self.order = [str(name) for name in np.random.default_rng(seed).permutation(list(setup.pool))]
        scores = ScoreFile(setup.out)
        scored: dict[str, ScoredStrategy] = {
            "uncertainty": UncertaintyStrategy(scores),
            "diverse": DiversityStrategy(scores),
        }
        self.scored = scored.get(arm)

    def __call__(self, annotated: Sequence[str], size: int, serving: Weights) -> list[str]:
        """Return the annotated cases and the next ones to annotate, `size` in total."""
        if self.arm == "first":
            return sorted(self.setup.pool)[:size]
        if self.scored is None:
            return self.order[:size]
        doubted = set(self.setup.pool) - set(annotated) if self.arm == "uncertainty" and size > 1 else set[str]()
        chosen, scores = list(annotated), self._scores(serving, doubted)
        while len(chosen) < size:
            candidates = {name: scores[name] for name in self.setup.pool if name not in chosen}
            chosen.append(self.scored.choose(candidates, [scores[name] for name in chosen])[0])
        return chosen

    def _scores(self, serving: Weights, doubted: Collection[str]) -> dict[str, ImageScore]:
        """Score each case; uncertainty takes long and is computed for some only."""
        scores = {}
        for name, case in self.setup.pool.items():
            segmenter = Segmenter(Volume.open(case.image), serving)
            doubt = score_volume(segmenter).doubt if name in doubted else 0.0
            vector = segmenter.feature_vector().tolist()
            scores[name] = ImageScore(version=serving.version, doubt=doubt, click=(0, 0, 0), vector=vector)
        return scores


def settings_of(arm: str, cases: int, steps: int, card: Any, seed: int) -> TrainSettings:
    """Return the app's settings for this number of cases, or those of the U-Net, for a number of steps."""
    epochs = steps // STEPS_PER_EPOCH
    length = {"epochs": epochs, "steps_per_epoch": STEPS_PER_EPOCH, "seed": seed}
    ours = train_settings(parse_train({}), cases, epochs, card).model_copy(update=length)
    if arm not in UNETS:
        return ours
    shared = {name: getattr(ours, name) for name in SHARED}
    return UNET_SETTINGS.model_copy(update={**shared, **length, "validate_every": epochs})


def learn(setup: Setup, arm: str, seed: int, names: Sequence[str], serving: Weights, out: Path) -> Weights:
    """Return the active weights after an update on the annotated cases."""
    cases = [setup.pool[name] for name in names]
    settings = settings_of(arm, len(cases), setup.steps[kind(arm)], setup.weights.card, seed)
    model = copy.deepcopy(serving.model)
    resume = (out / CHECKPOINT).is_file()
    run = TrainingRun(cases=cases, intensity=setup.weights.card.intensity, settings=settings, resume=resume)
    report = fine_tune(model, run, out)
    if arm in UNETS:
        return open_unet(out / CHECKPOINT)
    data = [DataSource(name="learning curve", licence="not stated", cases=len(cases))]
    store(model, serving.card, out, report=report, settings=settings, data=data, version=out.name)
    return open_weights(str(out))


def kind(arm: str) -> str:
    """Return whose number of steps an arm has."""
    return UNET if arm == UNET else "sam3d"


def begin(setup: Setup, arm: str, seed: int) -> Weights:
    """Return the weights before any case is annotated."""
    if arm not in UNETS:
        return setup.weights
    torch.manual_seed(seed)
    card = setup.weights.card.model_copy(update={"version": "unet", "capabilities": [*CLICKS]})
    return Weights(ClickUNet().eval(), card, "unet", f"unet {seed}")


def measure(weights: Weights, cases: OpenedCases) -> dict[str, dict[str, float]]:
    """Return Dice after some numbers of clicks of `error_centre`, and the clicks to a Dice of 0.85, of each case."""
    scores = {}
    for case in cases:
        records = evaluate_case(
            Segmenter(case.volume, weights),
            case.target.array > 0,
            error_centre,
            spacing=case.volume.spacing.tolist(),
            clicks=(MOST_CLICKS,),
            ignored=None if case.ignored is None else case.ignored.array > 0,
        )
        dices = [record.dice for record in records]
        scores[case.name] = {f"dice_{clicks}": dices[clicks - 1] for clicks in (1, 3, 5)}
        scores[case.name]["noc85"] = noc(dices, 0.85, MOST_CLICKS).clicks
    return scores


def play(setup: Setup, arm: str, seed: int, sizes: Sequence[int], console: Console) -> None:
    """Measure all points of an arm that are missing."""
    serving, choose, annotated = begin(setup, arm, seed), Choosing(setup, arm, seed), list[str]()
    if arm not in UNETS and not setup.point("start", 0, 0).is_file():
        start = {"arm": "start", "seed": 0, "annotated": 0, "steps": 0, "seconds": 0}
        write_point(setup.point("start", 0, 0), start, measure(serving, setup.held_out))
    for size in sizes:
        point, out = setup.point(arm, seed, size), setup.learned(arm, seed, size)
        picks = out / "annotated.json"
        if picks.is_file():
            annotated = json.loads(picks.read_text(encoding="utf-8"))
        else:
            annotated = choose(annotated, size, serving)
            write_json(picks, annotated)
        if point.is_file():
            serving = open_unet(out / CHECKPOINT) if arm in UNETS else open_weights(str(out))
            continue
        began = time.monotonic()
        before = begin(setup, arm, seed) if setup.separate else serving
        serving = learn(setup, arm, seed, annotated, before, out)
        seconds = time.monotonic() - began
        scores = measure(serving, setup.held_out)
        columns = {"arm": arm, "seed": seed, "annotated": size, "steps": setup.steps[kind(arm)]}
        write_point(point, {**columns, "seconds": f"{seconds:.1f}"}, scores)
        shown = "  ".join(
            f"{name} {np.mean([score[key] for score in scores.values()]):.3f}" for key, name in METRICS.items()
        )
        console.print(f"{arm} {seed}: {size} cases, {seconds:.0f} s  {shown}", highlight=False)


def calibrate(weights: Weights, case: TrainingCase, minutes: float, out: Path) -> dict[str, int]:
    """Measure how many steps fit in the minutes; stored, so that all points of a folder use the same number."""
    steps_file = out / "steps.json"
    if not steps_file.is_file():
        steps = {}
        for arm, model in (("sam3d", copy.deepcopy(weights.model)), (UNET, ClickUNet())):
            settings = settings_of(arm, 1, TIMED_EPOCHS * STEPS_PER_EPOCH, weights.card, 0)
            run = TrainingRun(cases=[case], intensity=weights.card.intensity, settings=settings)
            report = fine_tune(model, run, out / "timing" / arm)
            epochs = 60 * minutes / float(np.mean([log.seconds for log in report.epochs]))
            steps[arm] = STEPS_PER_EPOCH * max(1, round(epochs))
        write_json(steps_file, {"minutes": minutes, "steps": steps})
    stored: dict[str, int] = json.loads(steps_file.read_text(encoding="utf-8"))["steps"]
    return stored


def main(
    images: Annotated[Path, typer.Argument(help="Folder of volumes.")],
    labels: Annotated[Path, typer.Argument(help="Folder of labels.")],
    out: Annotated[Path, typer.Argument(help="Folder for points, table and picture; an interrupted run continues.")],
    minutes: Annotated[float, typer.Option(help="Training time of each point.")] = 2.0,
    sizes: Annotated[str, typer.Option(help="Numbers of annotated cases.")] = "1,2,5,10,20,40",
    strategies: Annotated[
        str, typer.Option(help="Arms, of random, first, uncertainty, diverse, unet, unet_same_crops.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="Random seeds; each is a separate arm.")] = "0",
    label: Annotated[int | None, typer.Option(help="Value of the target; any but 0 without it.")] = None,
    weights: Annotated[str | None, typer.Option(help="A file, or the name of shipped ones.")] = None,
    pool: Annotated[int, typer.Option(help="Cases that may be annotated, drawn from those not held out.")] = 60,
    held_out: Annotated[int, typer.Option(help="Cases that are measured: the last by name.")] = 20,
    separate: Annotated[bool, typer.Option(help="Each point is one update of the weights before any case.")] = False,
    threads: int = 2,
) -> None:
    """Play the loop, print a table, write the numbers and a picture."""
    torch.set_num_threads(threads)
    counts, arms = sorted({int(size) for size in sizes.split(",")}), strategies.split(",") if strategies else []
    arms = arms or [*STRATEGIES, UNET]
    unknown = set(arms) - {*STRATEGIES, *UNETS}
    if unknown or counts[0] < 1 or counts[-1] > pool:
        raise typer.BadParameter(f"{', '.join(unknown) or sizes}: choose of {STRATEGIES}, and sizes up to {pool}")
    cases = [replace(case, value=label, salient=True) for case in pair_cases(images, labels)]
    if len(cases) <= held_out:
        raise typer.BadParameter(f"{len(cases)} cases leave none to train when {held_out} are held out")
    free, measured = cases[:-held_out], cases[-held_out:]
    drawn = sorted(np.random.default_rng(0).permutation(len(free))[:pool])
    opened = open_weights(weights)
    held, _ = open_cases(measured, opened.card.intensity, TrainReport())
    steps = calibrate(opened, free[drawn[0]], minutes, out)
    setup = Setup(opened, {free[index].name: free[index] for index in drawn}, held, out, steps, separate)
    console = Console(stderr=True)
    console.print(f"{opened.version}: {len(drawn)} cases to choose from, {len(held)} held out, steps {steps}")
    for arm in arms:
        for seed in map(int, seeds.split(",")):
            play(setup, arm, seed, counts, console)
    conclude(out, opened.version, minutes)


if __name__ == "__main__":
    typer.run(main)
