"""Sessions of clicks with known scores."""

from __future__ import annotations

from sam3d_label.evaluation.cohort import CaseResult, Cohort, Skipped
from sam3d_label.evaluation.session import ClickRecord
from sam3d_label.segmentation.prompts import Click


def session(name: str, dices: list[float], *, stopped_after: int = 99) -> CaseResult:
    records = []
    for count, value in enumerate(dices, start=1):
        placed = min(count, stopped_after)
        asked = count <= stopped_after
        records.append(
            ClickRecord(
                clicks=count,
                placed=placed,
                click=Click((count, 0, 0)) if asked else None,
                dice=value,
                nsd=(value / 2, value),
                seconds=(3.0 if count == 1 else 0.5) if asked else 0.0,
                honoured=placed,
            )
        )
    return CaseResult(name, 12.5, tuple(records))


COHORT = Cohort(
    [session("a", [0.5, 0.7, 0.85, 0.9, 0.9]), session("b", [0.6, 0.8, 0.7, 0.7, 0.7], stopped_after=4)],
    [Skipped("c", "the label is empty")],
)
