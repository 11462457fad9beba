"""Train a candidate on the saved labels, and publish it or keep it as rejected."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from sam3d_label.errors import VolumeError
from sam3d_label.io import write_json
from sam3d_label.model_update import learning_curve
from sam3d_label.model_update.gate import judge, knows_clicks, means, score
from sam3d_label.model_update.progress import StepClock, UpdateProgress, WorkClock
from sam3d_label.model_update.reference_set import open_reference_set
from sam3d_label.model_update.rehearsal import SOURCE, rehearsal_cases
from sam3d_label.model_update.report import Activation, CaseScore, Compared, GateScores, UpdateReport, Verdict
from sam3d_label.model_update.shares import SHARES, KnowledgeSettings, ShareSearch, Trained, find_baseline
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.started_run import RUN, StartedRun, begin_run, interrupted_run
from sam3d_label.model_update.versions import REPORT, Versions
from sam3d_label.network import PromptableNetwork
from sam3d_label.training.dataset import OpenedCase, TrainingCase
from sam3d_label.training.export import store, trained_card
from sam3d_label.training.files import CHECKPOINT, CURVES, LOG
from sam3d_label.training.fine_tune import fine_tune, open_cases
from sam3d_label.training.log import EpochLog
from sam3d_label.training.run import FineTune, TrainingRun, TrainReport
from sam3d_label.training.settings import TrainSettings, inference_spacings_of
from sam3d_label.weights import DataSource, Weights
from sam3d_label.weights.card import lost

FEWEST_COMPARED = 3
"""Comparisons that the gate requires; with fewer validation cases, the oldest training cases are left out in turn."""

REHEARSAL = "rehearsal"

WAITING = "it was saved after the interrupted training began: the next training uses it"
"""Why a case is left out of a run that is continued."""


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


@dataclass(frozen=True)
class _Comparison:
    """The weights that are stored, and how they compare with the active ones.

    Attributes:
        weights: They.
        share: Share of the new weights in them.
        candidate: Their scores.
        serving: Scores of the active weights on the same cases.
        search: The search for the share; None where there were no cases to compare on.
    """

    weights: Weights
    share: float = 1.0
    candidate: list[CaseScore] = field(default_factory=list)
    serving: list[CaseScore] = field(default_factory=list)
    search: ShareSearch | None = None

    @property
    def means(self) -> dict[Compared, dict[str, float]]:
        """Means of the scores; empty without scores."""
        return {"candidate": means(self.candidate), "serving": means(self.serving)} if self.candidate else {}


@dataclass
class Update:
    """One model update: fine-tune the active weights, compare, and publish the candidate or reject it.

    The run in `folder` survives a kill: the next update continues from its last epoch, with its cases and settings, if
    it starts from the same weights, the same settings are requested and no case has gone. Labels that were added since
    wait for the update after it.

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
        on_begin: Called before training with the ids of the cases that wait for the next update.
        watch: Called with the progress whenever it changes.
        pause: Called before each crop and case; returns when nobody else needs the device.
        train: Replacement for `fine_tune`, such as training on several GPUs.
        knowledge: How much of the earlier knowledge must be kept.
        active: The latest activation when `serving` was opened; None for that of now. If a person activates another
            version during the update, it stays active.
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
    on_begin: Callable[[Collection[str]], None] = lambda _: None
    watch: Callable[[UpdateProgress], None] = lambda _: None
    pause: Callable[[], None] = lambda: None
    train: FineTune = fine_tune
    knowledge: KnowledgeSettings = field(default_factory=KnowledgeSettings)
    active: Activation | None = None

    def __post_init__(self) -> None:
        self.active = self.active or self.versions.latest_activation()
        self._clock = WorkClock(self.pause)
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
        if "train" not in splits.values():
            raise VolumeError(no_training_reason(len(labelled), skipped or {}))
        waiting = dict.fromkeys((case.id for case in labelled), WAITING)
        labelled = self._begin_or_continue(labelled)
        for case in labelled:
            del waiting[case.id]
        self.on_begin(waiting)
        training = [case for case in labelled if splits[case.id] == "train"]
        validation = [case for case in labelled if splits[case.id] == "validation"]
        wanted = max(0, min(len(training), FEWEST_COMPARED - len(validation))) if len(training) > 1 else 0
        model, report = self._train(training, validation, self.folder / RUN, "training", following=wanted)
        held_out, _ = open_cases(targets(validation), self.serving.card.intensity, TrainReport())
        new = Trained(self._candidate(model, report), held_out)
        left_out = self._leave_one_out(training, wanted)
        compared = self._compare([new, *left_out])
        verdict = self._judge(compared).with_lost_capabilities(lost(new.weights.card, self.serving.card))
        summary = UpdateReport(
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            started_from=(self.start or self.serving).version,
            serving=self.serving.version,
            annotated=len(labelled),
            train=[case.id for case in training],
            validation=[case.id for case in validation],
            left_out_one_by_one=[case.name for each in left_out for case in each.cases],
            skipped={**(skipped or {}), **waiting, **report.skipped},
            ledger=self.ledger.digest,
            gate=verdict,
            scores=GateScores(candidate=compared.candidate, serving=compared.serving),
            means=compared.means,
            share=compared.share,
            shares=compared.search.results if compared.search else [],
            reference=compared.search.report(compared.share) if compared.search else None,
            memory=report.memory,
            epochs=report.epochs,
            seconds=round(time.monotonic() - began, 1),
        )
        return self._keep(compared.weights, report, summary)

    def _begin_or_continue(self, labelled: Sequence[LabelledCase]) -> list[LabelledCase]:
        """Return the cases of this run: those of the interrupted one, if it can be continued, with its settings."""
        run = self.folder / RUN
        signature = (self.start or self.serving).signature
        wanted = StartedRun.of(signature, self.settings, [case.id for case in labelled])
        begun = interrupted_run(run, wanted)
        if begun is None:
            begin_run(run, wanted)
            return list(labelled)
        self.settings = begun.train_settings()
        return [case for case in labelled if begun.cases is None or case.id in begun.cases]

    def _train(
        self,
        training: Sequence[LabelledCase],
        validation: Sequence[LabelledCase],
        out: Path,
        stage: str,
        following: int,
    ) -> tuple[PromptableNetwork, TrainReport]:
        start = self.start or self.serving
        model = copy.deepcopy(start.model)
        progress = UpdateProgress(stage, epochs_in_all=self.settings.epochs)

        def watch(log: EpochLog) -> None:
            progress.epochs.append(log)
            self.watch(progress)

        clock = StepClock(progress, self.settings.batch, following)

        def count(epoch: int, done: int, steps_per_epoch: int) -> None:
            clock(epoch, done, steps_per_epoch)
            self.watch(progress)

        self.watch(progress)
        run = TrainingRun(
            cases=[*targets(training), *self._rehearsal(targets(training))],
            validation=targets(validation),
            intensity=start.card.intensity,
            settings=self.settings,
            device=self.device,
            resume=(out / CHECKPOINT).is_file(),
        )
        return model, self.train(model, run, out, progress=watch, on_step=count, pause=self.pause)

    def _rehearsal(self, cases: Sequence[TrainingCase]) -> list[TrainingCase]:
        """Return the phantoms that are trained on in addition to some cases.

        If none of these is learned without a prompt, and the active weights can segment without one, phantoms keep
        this capability.
        """
        if not self._keeps_knowledge:
            return []
        salient = "no_click" in self.serving.card.capabilities and not any(case.salient for case in cases)
        return rehearsal_cases(self.folder / RUN / REHEARSAL, len(cases), self.pause, salient=salient)

    @property
    def _keeps_knowledge(self) -> bool:
        """Whether the update must not lose what the active weights know.

        New adapters are published whatever they lose, because somebody has asked for them. Weights that never learned
        clicks know nothing yet.
        """
        return self.knowledge.limit is not None and self.start is None and knows_clicks(self.serving)

    def _candidate(self, model: PromptableNetwork, report: TrainReport) -> Weights:
        """Return a trained network as weights, before they have a version."""
        start = (self.start or self.serving).card
        card = trained_card(start, report=report, settings=self.settings, data=[], version="candidate")
        return Weights(model, card, card.version, f"candidate {time.time_ns()}")

    def _leave_one_out(self, training: Sequence[LabelledCase], wanted: int) -> list[Trained]:
        """Return models that were trained without one of the oldest training cases, each with this case."""
        trained: list[Trained] = []
        oldest = sorted(training, key=lambda case: (self.ledger.entries[case.id].since, case.id))
        for number, case in enumerate(oldest[:wanted], 1):
            others = [other for other in training if other.group != case.group]
            opened, _ = open_cases(targets([case]), self.serving.card.intensity, TrainReport())
            if others and opened:
                out = self.folder / RUN / f"without_{hashlib.sha256(case.id.encode()).hexdigest()[:12]}"
                model, report = self._train(others, [], out, f"leaving out {case.id}", following=wanted - number)
                trained.append(Trained(self._candidate(model, report), opened))
        return trained

    def _compare(self, trained: Sequence[Trained]) -> _Comparison:
        """Choose the share of the new weights, and score it and the active weights on the same cases."""
        cases = [case for each in trained for case in each.cases]
        if not cases:
            return _Comparison(trained[0].weights)
        serving = self._measure(self.serving, cases)
        search = self._search()
        share = search.choose(trained)
        candidate = search.scores(trained, share)
        return _Comparison(search.weights(trained[0], share), share, candidate, serving, search)

    def _search(self) -> ShareSearch:
        """Return the search for the share of the new weights.

        New adapters are not interpolated with the active ones, since they were not trained from these.
        """
        reference = open_reference_set(self.serving.card.intensity, self.knowledge.own_cases)
        report = self._serving_report()
        return ShareSearch(
            before=self.serving,
            measure=self._measure,
            reference=reference,
            baseline=find_baseline(self.serving, report, reference, self._measure, self.knowledge.limit),
            limit=self.knowledge.limit if self._keeps_knowledge else None,
            shares=SHARES if self.start is None and knows_clicks(self.serving) else (1.0,),
            seconds=self.knowledge.seconds,
            clock=self._clock,
        )

    def _serving_report(self) -> UpdateReport | None:
        """Return the report of the update that made the active weights; None if no update did.

        It is not that of the link `current`: somebody may have activated another version since training began.
        """
        version = self.serving.version
        return self.versions.report(version) if version in self.versions.names() else None

    def _measure(self, weights: Weights, cases: Sequence[OpenedCase]) -> list[CaseScore]:
        """Score weights on cases, and report each case as progress."""
        numbers = itertools.count(1)

        def before_case() -> None:
            self.watch(UpdateProgress(f"comparing {weights.version}, case {next(numbers)} of {len(cases)}"))
            self._clock.wait()

        return score(weights, cases, before_case)

    def _judge(self, compared: _Comparison) -> Verdict:
        if not compared.candidate or compared.search is None:
            return Verdict(passes=False, reason="there is no case yet to compare on: label at least two")
        report = self._serving_report()
        known = {each.case for each in report.scores.candidate} if report else set[str]()
        verdict = judge(compared.candidate, compared.serving, known=known)
        return compared.search.apply_to(verdict, compared.share)

    def _keep(self, weights: Weights, report: TrainReport, summary: UpdateReport) -> UpdateReport:
        """Store the version, publish it if it passed, and end the run."""
        run = self.folder / RUN
        own = DataSource(name=self.data_name, licence=self.licence, cases=len(summary.train))
        with self.versions.new_version() as (version, folder):
            summary = summary.model_copy(update={"version": version})
            store(
                weights.model,
                (self.start or self.serving).card,
                folder,
                report=report,
                settings=self.settings,
                data=[own, SOURCE] if self._keeps_knowledge else [own],
                version=version,
                metrics={"gate": summary.means, "share": summary.share},
            )
            text = json.dumps(summary.model_dump(mode="json"), indent=1) + "\n"
            (folder / REPORT).write_text(text, encoding="utf-8")
            for name in (LOG, CURVES):
                shutil.copy(run / name, folder / name)
        summary = self._publish(version, summary) if summary.is_published else summary
        learning_curve.append(self.folder, summary)
        shutil.rmtree(run, ignore_errors=True)
        return summary

    def _publish(self, version: str, summary: UpdateReport) -> UpdateReport:
        """Activate a version unless a person has activated one since the update began; return the report of it."""
        active = self.versions.publish(version, "gate", after=self.active)
        if active.version == version:
            return summary
        summary = summary.with_active(active)
        write_json(self.versions.path(version) / REPORT, summary.model_dump(mode="json"), indent=1)
        return summary


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
