import numpy as np
import pytest
import torch

from sam3d_label.errors import Sam3dError
from sam3d_label.network.precision import computes_bf16
from sam3d_label.segmentation.precision import PRECISION, mask_precision
from sam3d_label.segmentation.prompts import Click
from sam3d_label.segmentation.segmenter import Segmenter

CPU = torch.device("cpu")


def product_type() -> torch.dtype:
    with mask_precision(CPU):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(("chosen", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_variable_chooses(chosen, expected, monkeypatch):
    monkeypatch.setenv(PRECISION, chosen)
    assert product_type() == expected


@pytest.mark.parametrize("value", [None, "", "auto"])
@pytest.mark.parametrize("native", [True, False])
def test_by_default_it_is_bf16_only_where_the_processor_has_it(value, native, monkeypatch):
    monkeypatch.delenv(PRECISION, raising=False)
    if value is not None:
        monkeypatch.setenv(PRECISION, value)
    computes_bf16.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    try:
        assert product_type() == (torch.bfloat16 if native else torch.float32)
    finally:
        computes_bf16.cache_clear()


def test_another_value_is_rejected_with_the_possible_ones(monkeypatch):
    monkeypatch.setenv(PRECISION, "half")
    with pytest.raises(Sam3dError, match="auto, bf16, fp32"):
        mask_precision(CPU)


def test_both_precisions_give_about_the_same_mask(small_weights, monkeypatch):
    from sam3d_label.image.volume import Volume

    volume = Volume(np.random.default_rng(0).gamma(3, 50, (40, 36, 14)), np.diag([1, 1, 2.5, 1]))
    found = {}
    for precision in ("bf16", "fp32"):
        monkeypatch.setenv(PRECISION, precision)
        found[precision] = Segmenter(volume, small_weights).segment([Click((20, 18, 7))]).probability
    assert 0 < np.abs(found["bf16"] - found["fp32"]).mean() < 0.02
