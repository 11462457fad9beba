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


def padded_mr(edges: str) -> np.ndarray:
    """MR in a field of -1000 with what resampling and programs leave at its edges."""
    rng, tissue = np.random.default_rng(2), scanned_mr(1)
    jitter = {"jitter": 1e-3, "noise": 1.0}.get(edges, 0)
    padding = -1000 + jitter * rng.standard_normal(30_000)
    ends = {"linear": rng.uniform(-1000, 200, 4_000), "cubic": rng.uniform(-1100, 400, 6_000)}
    ends["two"] = np.full(9_000, -500.0)
    return np.concatenate([tissue, padding, ends.get(edges, np.empty(0))])


@pytest.mark.parametrize("edges", ["linear", "cubic", "jitter", "noise", "two"])
def test_the_edges_and_the_noise_of_padding_are_no_air(edges):
    assert RULE.fit(padded_mr(edges)).modality == "MR"


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).uniform(-4096, 4096, 50_000),
        np.random.default_rng(0).normal(0, 250, 50_000),
        np.concatenate([np.full(30_000, -1000), scanned_mr(1) - 15]),
        np.concatenate([np.abs(np.random.default_rng(0).normal(0, 5, 40_000)), 90 * scanned_mr(0.001) + 1100]),
        np.concatenate([np.zeros(40_000), np.random.default_rng(0).normal(1060, 80, 40_000)]),
    ],
    ids=["phase", "subtraction", "negative", "adc", "t1 map"],
)
def test_maps_and_phases_are_no_ct(values):
    assert RULE.fit(values).modality == "MR"


@pytest.mark.parametrize("offset", [0, 1024])
@pytest.mark.parametrize("noise", [0, 5, 30])
def test_ct_of_a_phantom_without_fat_is_ct(offset, noise):
    rng = np.random.default_rng(0)
    values = np.concatenate([np.full(40_000, -1000.0), np.full(30_000, 40.0), np.full(5_000, 90.0)])
    fitted = RULE.fit(values + noise * rng.normal(size=values.size) + offset)
    assert fitted.modality == "CT"
    assert fitted.upper - fitted.lower == 400


@pytest.mark.parametrize("window", [(-200, 300), (-160, 240), (-1000, 1000), (-1024, 3000)])
def test_ct_that_was_clipped_at_a_window_is_ct(window):
    fitted = RULE.fit(scanned_ct().clip(*window))
    assert fitted.modality == "CT"
    assert fitted.source == ("histogram" if window[0] < -500 else "guess")


def test_ct_with_much_lung_and_an_offset_is_ct():
    lung = np.random.default_rng(3).normal(-850, 60, 60_000)
    assert RULE.fit(np.concatenate([scanned_ct(), lung]) + 1024).lower == CT.lower + 1024


def test_the_response_says_where_the_modality_is_from():
    assert RULE.fit(scanned_ct()).source == RULE.fit(scanned_mr(1)).source == "histogram"
    assert RULE.fit(scanned_ct(), "CT").source == RULE.fit(scanned_mr(1), "MR").source == "file"
    organ = np.random.default_rng(4).normal(45, 18, 10_000)
    assert (RULE.fit(organ).modality, RULE.fit(organ).source) == ("MR", "guess")
