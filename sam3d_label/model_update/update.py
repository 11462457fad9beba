"""Train a candidate on the saved labels, and publish it or keep it as rejected."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from pydantic import JsonValue

from sam3d_label.errors import NewerFormatError, Sam3dError, VolumeError
from sam3d_label.io import Record, read_record, write_json
from sam3d_label.model_update import learning_curve
from sam3d_label.model_update.gate import judge, means, score
from sam3d_label.model_update.report import CaseScore, GateScores, UpdateReport, Verdict
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.versions import REPORT, Versions
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.dataset import OpenedCase, TrainingCase
from sam3d_label.training.export import store, trained_card
from sam3d_label.training.files import CHECKPOINT, CURVES, LOG
from sam3d_label.training.fine_tune import fine_tune, open_cases
from sam3d_label.training.log import EpochLog
from sam3d_label.training.run import FineTune, TrainingRun, TrainReport
from sam3d_label.training.settings import TrainSettings, inference_spacings_of
from sam3d_label.weights import Card, DataSource, Weights
from sam3d_label.weights.card import lost

FEWEST_COMPARED = 3
"""Comparisons that the gate requires; with fewer validation cases, the oldest training cases are left out in turn."""

RUN, RUN_FILE = "run", "run.json"


class StartedRun(Record):
    """The inputs of a run; a run with the same inputs can be continued.

    Attributes:
        start: Signature of the weights that it started from.
        settings: How it trains.
    """

    start: str
    settings: dict[str, JsonValue]


@dataclass(frozen=True)
class LabelledCase:
    """One image and the structures labelled on it.

    Attributes:
        id: Its permanent id.
        group: Cases of one group, such as a patient, share a split.
        targets: Each structure labelled on it.
    """

    id: str
    group: str
    targets: tuple[TrainingCase, ...]


@dataclass
class UpdateProgress:
    """The progress of an update.

    Attributes:
        stage: `training`, or `leaving out CASE`, or `comparing`.
        epochs: The log of the current training.
        epochs_in_all: Epochs that it will have.
    """

    stage: str
    epochs: list[EpochLog] = field(default_factory=list)
    epochs_in_all: int = 0


@dataclass
class Update:
    """One model update: fine-tune the active weights, compare, and publish the candidate or reject it.

    The run in `folder` survives a kill: the next update continues from its last epoch if it starts from the same
    weights with the same settings, even if labels were added since.

    Args:
        serving: The active weights, which training starts from and the candidate is compared with.
        versions: The versions that the candidate is added to.
        ledger: Which cases train and which validate.
        folder: Folder for the run and the learning curve.
        settings: How to train.
        device: Where to train and to compare.
        start: Weights to start from instead of the active ones.
        data_name: Name of the cases in the card.
        licence: Licence of the cases in the card.
        watch: Called with the progress whenever it changes.
        pause: Called before each crop and case; returns when nobody else needs the device.
        train: Replacement for `fine_tune`, such as training on several GPUs.
    """

    serving: Weights
    versions: Versions
    ledger: Ledger
    folder: Path
    settings: TrainSettings
    device: str = "cpu"
    start: Weights | None = None
    data_name: str = "annotated cases"
    licence: str = "not stated"
    watch: Callable[[UpdateProgress], None] = lambda _: None
    pause: Callable[[], None] = lambda: None
    train: FineTune = fine_tune

    def __post_init__(self) -> None:
        card = (self.start or self.serving).card
        self.settings = self.settings.model_copy(update={"inference_spacings": inference_spacings_of(card)})

    def __call__(self, labelled: Sequence[LabelledCase], skipped: Mapping[str, str] | None = None) -> UpdateReport:
        """Train on the labelled cases and compare the result.

        Args:
            labelled: All usable cases.
            skipped: Cases that cannot be used, and why.

        Returns:
            The report that is stored with the version.

        Raises:
            VolumeError: Nothing can train.
            Sam3dError: As `fine_tune`, `Ledger` and `Versions` raise.
        """
        began = time.monotonic()
        splits = self.ledger.assign({case.id: case.group for case in labelled})
        training = [case for case in labelled if splits[case.id] == "train"]
        validation = [case for case in labelled if splits[case.id] == "validation"]
        if not training:
            raise VolumeError(no_training_reason(len(labelled), skipped or {}))
        self._begin_run()
        model, report = self._train(training, validation, self.folder / RUN, "training")
        held_out, _ = open_cases(targets(validation), self.serving.card.intensity, TrainReport())
        candidate, serving = self._compare(model, report, held_out)
        left_out = self._leave_one_out(training, FEWEST_COMPARED - len(validation))
        candidate, serving = candidate + left_out[0], serving + left_out[1]
        verdict = self._judge(candidate, serving).with_lost_capabilities(lost(self._card(report), self.serving.card))
        summary = UpdateReport(
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            started_from=(self.start or self.serving).version,
            serving=self.serving.version,
            annotated=len(labelled),
            train=[case.id for case in training],
            validation=[case.id for case in validation],
            left_out_one_by_one=[each.case for each in left_out[0]],
            skipped={**(skipped or {}), **report.skipped},
            ledger=self.ledger.digest,
            gate=verdict,
            scores=GateScores(candidate=candidate, serving=serving),
            means={"candidate": means(candidate), "serving": means(serving)} if candidate else {},
            memory=report.memory,
            epochs=report.epochs,
            seconds=round(time.monotonic() - began, 1),
        )
        return self._keep(model, report, summary)

    def _begin_run(self) -> None:
        """Keep a run that this update can continue; remove any other."""
        run = self.folder / RUN
        signature = (self.start or self.serving).signature
        same = StartedRun(start=signature, settings=self.settings.model_dump(mode="json"))
        recorded = run / RUN_FILE
        if _read_run(recorded) != same:
            shutil.rmtree(run, ignore_errors=True)
            write_json(recorded, same.model_dump(mode="json"), indent=None)

    def _train(
        self, training: Sequence[LabelledCase], validation: Sequence[LabelledCase], out: Path, stage: str
    ) -> tuple[PromptableNetwork, TrainReport]:
        start = self.start or self.serving
        model = copy.deepcopy(start.model)
        progress = UpdateProgress(stage, epochs_in_all=self.settings.epochs)

        def watch(log: EpochLog) -> None:
            progress.epochs.append(log)
            self.watch(progress)

        self.watch(progress)
        run = TrainingRun(
            cases=targets(training),
            validation=targets(validation),
            intensity=start.card.intensity,
            settings=self.settings,
            device=self.device,
            resume=(out / CHECKPOINT).is_file(),
        )
        return model, self.train(model, run, out, progress=watch, pause=self.pause)

    def _compare(
        self, model: PromptableNetwork, report: TrainReport, cases: Sequence[OpenedCase]
    ) -> tuple[list[CaseScore], list[CaseScore]]:
        """Score the candidate and the active weights on the same cases."""
        if not cases:
            return [], []
        self.watch(UpdateProgress("comparing"))
        candidate = Weights(model, self._card(report), "candidate", f"candidate {time.time_ns()}")
        return score(candidate, cases, self.pause), score(self.serving, cases, self.pause)

    def _card(self, report: TrainReport) -> Card:
        """Return the card of a trained candidate, before it has a version."""
        start = (self.start or self.serving).card
        return trained_card(start, report=report, settings=self.settings, data=[], version="candidate")

    def _leave_one_out(self, training: Sequence[LabelledCase], wanted: int) -> tuple[list[CaseScore], list[CaseScore]]:
        """Score the oldest training cases with models trained on all others, and with the active weights."""
        candidate: list[CaseScore] = []
        serving: list[CaseScore] = []
        if len(training) < 2 or wanted <= 0:
            return candidate, serving
        oldest = sorted(training, key=lambda case: (self.ledger.entries[case.id].since, case.id))
        for case in oldest[:wanted]:
            others = [other for other in training if other.group != case.group]
            opened, _ = open_cases(targets([case]), self.serving.card.intensity, TrainReport())
            if others and opened:
                out = self.folder / RUN / f"without_{len(candidate)}"
                model, report = self._train(others, [], out, f"leaving out {case.id}")
                ours, theirs = self._compare(model, report, opened)
                candidate, serving = candidate + ours, serving + theirs
        return candidate, serving

    def _judge(self, candidate: Sequence[CaseScore], serving: Sequence[CaseScore]) -> Verdict:
        if not candidate:
            return Verdict(passes=False, reason="there is no case yet to compare on: label at least two")
        current = self.versions.current()
        report = self.versions.report(current) if current else None
        return judge(candidate, serving, known={each.case for each in report.scores.candidate} if report else ())

    def _keep(self, model: PromptableNetwork, report: TrainReport, summary: UpdateReport) -> UpdateReport:
        """Store the version, publish it if it passed, and end the run."""
        run = self.folder / RUN
        with self.versions.new_version() as (version, folder):
            summary = summary.model_copy(update={"version": version})
            store(
                model,
                (self.start or self.serving).card,
                folder,
                report=report,
                settings=self.settings,
                data=[DataSource(name=self.data_name, licence=self.licence, cases=len(summary.train))],
                version=version,
                metrics={"gate": summary.means},
            )
            text = json.dumps(summary.model_dump(mode="json"), indent=1) + "\n"
            (folder / REPORT).write_text(text, encoding="utf-8")
            for name in (LOG, CURVES):
                shutil.copy(run / name, folder / name)
        if summary.gate and summary.gate.passes:
            self.versions.publish(version, "gate")
        learning_curve.append(self.folder, summary)
        shutil.rmtree(run, ignore_errors=True)
        return summary


def _read_run(path: Path) -> StartedRun | None:
    """Read the inputs of the interrupted run; None if there is none that can be continued."""
    try:
        return read_record(StartedRun, path)
    except NewerFormatError:
        raise
    except Sam3dError:
        return None


def targets(cases: Sequence[LabelledCase]) -> list[TrainingCase]:
    """Return the targets of all cases."""
    return [target for case in cases for target in case.targets]


def no_training_reason(usable: int, skipped: Mapping[str, str]) -> str:
    """Explain why there is no training case: all usable ones are in the validation split, or all were skipped."""
    if usable:
        return f"none of {usable} usable cases is on the training side: label more"
    if not skipped:
        return "no image has a final label yet: save one first"
    case, reason = next(iter(skipped.items()))
    others = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"no label can be used; {case}: {reason}{others}"
