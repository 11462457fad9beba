"""Evaluation of interactive segmentation: simulated annotators, metrics, protocol and report."""

from sam3d_label.evaluation.annotators import ANNOTATORS
from sam3d_label.evaluation.cohort import evaluate_cohort
from sam3d_label.evaluation.report import write_report
from sam3d_label.evaluation.session import evaluate_case

__all__ = ["ANNOTATORS", "evaluate_case", "evaluate_cohort", "write_report"]
