"""The table of the memory of a training step."""

from __future__ import annotations

from training_memory import WAYS, needs_of


def test_kept_activations_and_fp32_need_more() -> None:
    steps, weights = needs_of("tiny", "cpu")
    of = dict(zip(WAYS, steps, strict=True))
    assert 0 < weights < of["bf16, recomputed"] < of["bf16, kept"] < of["fp32, kept"]
    assert of["bf16, recomputed"] < of["fp32, recomputed"] < of["fp32, kept"]
