import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from sam3d_label.image.intensity import SAMPLES, CtOrMr, IntensityRule, Percentile, Window, sample

CT = Window(lower=-160, upper=240, mean=40, std=100)


def test_a_window_clips_and_scales_the_same_for_every_volume():
    normalize = CT.fit(np.zeros((2, 2, 2)))
    assert normalize(torch.tensor([-1000.0, 40.0, 140.0, 3000.0])).tolist() == [-2.0, 0.0, 1.0, 2.0]


def test_percentiles_follow_the_volume_and_leave_background_aside():
    tissue = np.random.default_rng(0).normal(300, 50, 100_000)
    with_background = np.concatenate([tissue, np.zeros(300_000)])
    normalized = Percentile().fit(with_background)(torch.from_numpy(tissue))
    assert abs(float(normalized.mean())) < 0.02
    assert float(normalized.std()) == pytest.approx(1, abs=0.02)


def test_percentiles_do_not_depend_on_the_scale_of_the_scanner():
    volume = np.random.default_rng(0).gamma(3, 40, (20, 20, 20))
    first = Percentile().fit(volume)(torch.from_numpy(volume))
    second = Percentile().fit(volume * 17)(torch.from_numpy(volume * 17))
    assert torch.allclose(first, second, atol=1e-5)


def test_a_constant_volume_gives_finite_values():
    volume = np.full((3, 3, 3), 7.0)
    assert torch.isfinite(Percentile().fit(volume)(torch.from_numpy(volume))).all()


@pytest.mark.parametrize(("lowest", "expected"), [(-1000.0, -160.0), (0.0, None)])
def test_hounsfield_units_are_told_by_air(lowest, expected):
    volume = np.linspace(lowest, 900, 1000)
    lower = CtOrMr(ct=CT, mr=Percentile()).fit(volume).lower
    assert lower == expected if expected is not None else lower > 0


def test_rules_survive_json_and_refuse_unknown_kinds():
    adapter = TypeAdapter(IntensityRule)
    rule = CtOrMr(ct=CT, mr=Percentile(lower=1, upper=99))
    assert adapter.validate_json(adapter.dump_json(rule)) == rule
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "histogram"})
    with pytest.raises(ValidationError):
        Window(lower=0, upper=1, mean=0, std=0)


@pytest.mark.parametrize("shape", [(1024, 1024, 12), (1024, 12, 1024), (512, 512, 64)])
def test_a_sample_comes_from_every_slice(shape):
    axis = shape.index(min(shape))
    slices = np.expand_dims(np.arange(shape[axis], dtype=np.int16), [a for a in range(3) if a != axis])
    drawn = sample(np.broadcast_to(slices, shape))
    assert 100_000 < drawn.size <= SAMPLES
    counts = np.bincount(drawn, minlength=shape[axis])
    assert counts.min() > 0.9 * counts.max()


def scanned_ct() -> np.ndarray:
    """Noisy air, fat, soft tissue and bone in Hounsfield units."""
    rng = np.random.default_rng(0)
    shares = {-1000: 40_000, -100: 25_000, 50: 30_000, 700: 5_000}
    return np.concatenate([rng.normal(middle, 15, count) for middle, count in shares.items()]).clip(-1024)


def scanned_mr(scale: float) -> np.ndarray:
    """Dark background and tissue of many brightnesses, none negative."""
    rng = np.random.default_rng(1)
    return scale * np.concatenate([np.abs(rng.normal(0, 8, 40_000)), rng.gamma(4, 40, 60_000)])


RULE = CtOrMr(ct=CT, mr=Percentile())


def test_the_response_can_say_which_rule_was_used():
    assert RULE.fit(scanned_ct()).modality == "CT"
    assert RULE.fit(scanned_mr(1)).modality == "MR"
    assert Percentile().fit(scanned_mr(1)).modality is None


@pytest.mark.parametrize("scale", [0.2, 0.5, 1, 3, 10])
@pytest.mark.parametrize("padding", [-1000, -1024, -2000])
def test_mr_that_was_padded_is_no_ct_and_its_padding_does_not_count(scale, padding):
    tissue = scanned_mr(scale)
    plain, padded = RULE.fit(tissue), RULE.fit(np.concatenate([tissue, np.full(20_000, float(padding))]))
    assert padded.modality == "MR"
    assert padded.upper == pytest.approx(plain.upper, rel=0.05)
    assert padded.mean == pytest.approx(plain.mean, rel=0.05)


def test_ct_that_was_stored_with_an_offset_gets_the_same_window():
    plain, moved = RULE.fit(scanned_ct()), RULE.fit(scanned_ct() + 1024)
    assert moved.modality == "CT"
    assert (moved.lower, moved.upper, moved.mean, moved.std) == (plain.lower + 1024, plain.upper + 1024, 1064, 100)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_mr_is_no_ct_that_was_stored_with_an_offset(scale):
    assert RULE.fit(scanned_mr(scale)).modality == "MR"


def test_the_modality_of_the_file_goes_before_the_histogram():
    assert RULE.fit(scanned_ct(), "MR").modality == "MR"
    assert RULE.fit(scanned_mr(1), "CT").modality == "CT"
    assert RULE.fit(scanned_mr(1), "CT").lower == CT.lower


def test_one_dark_voxel_makes_no_ct():
    values = scanned_mr(1)
    values[0] = -3000
    assert RULE.fit(values).modality == "MR"
