import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from sam3d_label.cache import LruCache
from sam3d_label.errors import PromptError, VolumeError
from sam3d_label.image.intensity import Window
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D
from sam3d_label.segmentation.prompts import Box, Click, Prompts
from sam3d_label.segmentation.segmenter import Segmenter, changed_box
from sam3d_label.segmentation.view_search import ViewSearch
from tests.helpers.networks import Ball, bright

OBLIQUE = np.array([[-0.9, 0.2, 0, 40], [0.2, 0.9, 0, -30], [0, 0, 2.5, 10], [0, 0, 0, 1]])


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).gamma(3, 50, (40, 36, 14)), OBLIQUE)


@pytest.fixture
def segmenter(volume, small_weights):
    return Segmenter(volume, small_weights)


def test_the_mask_is_on_the_stored_grid_and_agrees_with_the_probability(segmenter):
    result = segmenter.segment([Click((20, 18, 7))])
    assert result.mask.shape == result.probability.shape == (40, 36, 14)
    assert result.mask.dtype == np.uint8
    assert set(np.unique(result.mask)) <= {0, 1}
    assert np.array_equal(result.mask, (result.probability > 0.5).astype(np.uint8))
    assert result.changed_box == changed_box(result.mask)
    assert result.model_version == "random"


def test_masks_are_in_the_order_of_files(segmenter):
    assert segmenter.segment([Click((20, 18, 7))]).mask.flags.f_contiguous
    assert segmenter.uncertainty([Click((20, 18, 7))]).map.flags.f_contiguous


def test_the_first_click_encodes_and_the_next_one_does_not(segmenter):
    assert segmenter.segment([Click((20, 18, 7)), Click((22, 18, 7))]).encoded >= 1
    assert segmenter.segment([Click((20, 18, 7)), Click((22, 18, 8))]).encoded == 0


def test_a_mask_is_a_pure_function_of_volume_weights_and_prompts(volume, small_weights):
    clicks = [Click((20, 18, 7)), Click((10, 9, 3), positive=False), Click((25, 20, 8)), Click((22, 8, 5))]
    warm = Segmenter(volume, small_weights)
    for count in range(1, len(clicks)):
        warm.segment(clicks[:count])
    expected = warm.segment(clicks).probability
    assert np.allclose(Segmenter(volume, small_weights).segment(clicks).probability, expected, atol=1e-5)


def test_only_which_click_inside_comes_first_matters(volume, small_weights):
    opening, outside, inside = Click((20, 18, 7)), Click((10, 9, 3), positive=False), Click((25, 20, 8))
    expected = Segmenter(volume, small_weights).segment([opening, outside, inside]).probability
    for order in itertools.permutations([opening, outside, inside]):
        found = Segmenter(volume, small_weights).segment(order).probability
        opens = order.index(opening) < order.index(inside)
        assert np.allclose(found, expected, atol=1e-5) == opens


def test_what_a_click_says_reaches_the_mask(segmenter):
    at = (20, 18, 7)
    alone = segmenter.segment([Click((25, 20, 8))]).probability
    inside = segmenter.segment([Click((25, 20, 8)), Click(at)]).probability
    outside = segmenter.segment([Click((25, 20, 8)), Click(at, positive=False)]).probability
    box = segmenter.segment([Click((25, 20, 8)), Box((5, 5, 2), (30, 30, 10))]).probability
    for first, second in itertools.combinations([alone, inside, outside, box], 2):
        assert np.abs(first - second).max() > 1e-4


def test_two_volumes_and_two_weights_share_a_cache_without_mixing(volume, small_weights):
    cache = LruCache(10**9)
    other = Volume(volume.array[::-1].copy(), OBLIQUE)
    stranger = replace(small_weights, signature="other")
    click = [Click((20, 18, 7))]
    first = Segmenter(volume, small_weights, cache=cache).segment(click)
    second = Segmenter(other, small_weights, cache=cache).segment(click)
    third = Segmenter(volume, stranger, cache=cache).segment(click)
    assert min(first.encoded, second.encoded, third.encoded) >= 1
    assert Segmenter(volume, small_weights, cache=cache).segment(click).encoded == 0
    assert np.allclose(second.probability, Segmenter(other, small_weights).segment(click).probability)


def test_a_changed_intensity_rule_is_not_served_from_the_cache(volume, small_weights):
    cache = LruCache(10**9)
    click = [Click((20, 18, 7))]
    Segmenter(volume, small_weights, cache=cache).segment(click)
    card = small_weights.card.model_copy(
        update={"intensity": small_weights.card.intensity.model_copy(update={"upper": 90})}
    )
    assert Segmenter(volume, replace(small_weights, card=card), cache=cache).segment(click).encoded >= 1


@pytest.mark.parametrize(
    ("capabilities", "drawn", "complaint"),
    [
        (
            ["positive_click"],
            [Click((1, 1, 1)), Click((5, 5, 5), positive=False)],
            "clicks outside, only: positive_click",
        ),
        (["positive_click"], [Box((1, 1, 1), (5, 5, 5))], "boxes"),
        ([], [Click((1, 1, 1))], "clicks inside, only: nothing"),
    ],
)
def test_prompts_that_the_weights_have_not_learned_are_refused(volume, small_weights, capabilities, drawn, complaint):
    card = small_weights.card.model_copy(update={"capabilities": capabilities})
    with pytest.raises(PromptError, match=complaint):
        Segmenter(volume, replace(small_weights, card=card)).segment(drawn)


def test_a_click_outside_the_volume_is_refused(segmenter):
    with pytest.raises(PromptError, match="outside the volume"):
        segmenter.segment([Click((40, 0, 0))])


def test_clicks_far_apart_both_get_a_view(small_weights):
    volume = Volume(np.random.default_rng(0).gamma(3, 50, (160, 30, 30)), np.eye(4))
    card = small_weights.card.model_copy(update={"scales": (1.0,)})
    result = Segmenter(volume, replace(small_weights, card=card)).segment([Click((5, 15, 15)), Click((150, 15, 15))])
    assert len(result.targets) == 2
    assert result.probability[5, 15, 15] > 0
    assert result.probability[150, 15, 15] > 0
    assert result.probability[80, 15, 15] == 0


@pytest.mark.parametrize(("radius", "spacing"), [(3, 0.5), (10, 1.0), (26, 2.0)])
def test_the_view_widens_for_a_large_target_and_closes_in_on_a_small_one(small_weights, radius, spacing):
    grid = np.indices((80, 80, 80)) - np.array([40, 40, 40])[:, None, None, None]
    ball = (grid**2).sum(0) <= radius**2
    volume = Volume(np.where(ball, 200.0, 50.0), np.eye(4))
    card = small_weights.card.model_copy(update={"intensity": Window(lower=50, upper=200, mean=125, std=75)})
    weights = replace(small_weights, model=Ball(small_weights.model), card=card)
    result = Segmenter(volume, weights).segment([Click((40, 40, 40))])
    overlap = 2 * (result.mask * ball).sum() / (result.mask.sum() + ball.sum())
    assert overlap > 0.9
    covered = [target.region[0].stop - target.region[0].start for target in result.targets]
    assert covered == [pytest.approx(32 * spacing, abs=1)]


def test_without_a_prompt_the_whole_volume_is_looked_at(small_weights):
    array = np.full((80, 70, 30), 50.0)
    array[5:12, 5:12, 5:12] = array[60:70, 50:60, 15:25] = 200
    shown = []
    result = bright(small_weights, array, ["no_click"]).segment_unprompted(lambda done, of: shown.append((done, of)))
    truth = array > 100
    assert 2 * (result.mask * truth).sum() / (result.mask.sum() + truth.sum()) > 0.8
    assert shown == [(done, len(shown)) for done in range(1, len(shown) + 1)]
    assert len(shown) > 1


def test_weights_that_have_not_learned_to_go_without_a_prompt_refuse(segmenter):
    with pytest.raises(PromptError, match="have not learned to segment without a prompt"):
        segmenter.segment_unprompted()


def test_a_target_larger_than_the_crop_is_finer_with_its_tiles(small_weights, monkeypatch):
    grid = np.indices((80, 80, 80)) - np.array([40, 40, 40])[:, None, None, None]
    truth = (grid**2).sum(0) <= 26**2
    truth &= (grid[0] % 6) > 2  # plates that a coarse view cannot tell apart
    segmenter = bright(small_weights, np.where(truth, 200.0, 50.0), ["positive_click", "mask"])

    def dice():
        mask = segmenter.segment([Click((45, 40, 40))]).mask
        return 2 * (mask * truth).sum() / (mask.sum() + truth.sum())

    tiled = dice()
    monkeypatch.setattr(ViewSearch, "tiles", lambda search, view: iter(()))
    assert 1 - tiled < (1 - dice()) / 1.5


def test_open_reads_the_volume_first(tmp_path):
    with pytest.raises(VolumeError, match="does not exist"):
        Segmenter.open(tmp_path / "missing.nii.gz")


def test_a_closer_look_keeps_every_click_in_view(small_weights):
    """Two clicks that one crop shows, a mask at one of them only: looking closer would lose the other."""
    array = np.full((80, 80, 80), 50.0)
    array[30:33, 39:42, 39:42] = 200
    card = small_weights.card.model_copy(update={"intensity": Window(lower=50, upper=200, mean=125, std=75)})
    seen = []

    class Watching(Ball):
        def decode(self, embedding, points, signs, **more):
            seen.append(points.shape[1])
            return super().decode(embedding, points, signs, **more)

    weights = replace(small_weights, model=Watching(small_weights.model), card=card)
    Segmenter(Volume(array, np.eye(4)), weights).segment([Click((31, 40, 40)), Click((49, 40, 40))])
    assert seen == [1, 2], "the first click is looked at alone, and no view shows one without the other"


def test_an_embedding_stays_on_its_device(volume, small_weights):
    cache = LruCache(10**9)
    click = [Click((20, 18, 7))]
    Segmenter(volume, small_weights, cache=cache).segment(click)
    elsewhere = Segmenter(volume, small_weights, cache=cache).search(Prompts.of(click))
    elsewhere.encoder.device = torch.device("cpu", 0)
    list(elsewhere.targets())
    assert elsewhere.encoder.encoded >= 1


def test_equal_masks_have_equal_digests_and_others_have_not(volume, small_weights):
    one, again, other = (
        Segmenter(volume, small_weights).segment([Click(ijk)]) for ijk in ((20, 18, 7), (20, 18, 7), (5, 6, 2))
    )
    assert one.digest == again.digest
    assert one.voxels == np.count_nonzero(one.mask) > 0
    flipped = one.mask.copy()
    flipped[tuple(np.argwhere(one.mask)[one.voxels // 2])] = 0
    masks = [one.mask, other.mask, flipped, np.zeros_like(one.mask)]
    digests = {replace(one, mask=mask, changed_box=changed_box(mask)).digest for mask in masks}
    assert len(digests) == len(masks)


def test_a_next_click_makes_geodesic_maps_of_itself_alone(volume, small_weights, monkeypatch):
    config = replace(small_weights.model.config, geodesic=(3.0, 12.0))
    card = small_weights.card.model_copy(update={"config": config})
    weights = replace(small_weights, model=SAM3D(config).eval(), card=card, signature="with maps")
    made = []
    maps = SAM3D.geodesic_maps
    monkeypatch.setattr(SAM3D, "geodesic_maps", lambda self, *args: made.append(args[1].tolist()) or maps(self, *args))
    segmenter, first, second = Segmenter(volume, weights), Click((20, 18, 7)), Click((22, 18, 7), positive=False)
    one = segmenter.segment([first])
    before = [point for points in made for point in points[0]]
    both = segmenter.segment([first, second])
    after = [point for points in made for point in points[0]][len(before) :]
    assert before
    assert not [point for point in after if point in before], "the first click's maps are kept"
    alone = Segmenter(volume, weights, cache=LruCache(0))
    assert alone.segment([first]).digest == one.digest
    assert alone.segment([first, second]).digest == both.digest


def test_the_mask_of_the_first_click_is_not_decoded_again(volume, small_weights, monkeypatch):
    decoded = []
    decode = SAM3D.decode
    monkeypatch.setattr(SAM3D, "decode", lambda self, *args, **more: decoded.append(1) or decode(self, *args, **more))
    segmenter, clicks = Segmenter(volume, small_weights), [Click((20, 18, 7)), Click((22, 18, 7), positive=False)]
    segmenter.segment(clicks[:1])
    decoded.clear()
    following = segmenter.segment(clicks)
    after_one = len(decoded)
    decoded.clear()
    alone = Segmenter(volume, small_weights).segment(clicks)
    assert after_one < len(decoded)
    assert alone.digest == following.digest


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_modality_of_the_file_chooses_the_intensity_rule(small_weights, modality):
    from dataclasses import replace

    from sam3d_label.image.intensity import CtOrMr, Percentile, Window

    rule = CtOrMr(ct=Window(lower=-160, upper=240, mean=40, std=100), mr=Percentile())
    weights = replace(small_weights, card=small_weights.card.model_copy(update={"intensity": rule}))
    array = np.random.default_rng(0).normal(300, 50, (6, 6, 6))
    segmenter = Segmenter(Volume(array, np.eye(4), modality=modality), weights)
    assert segmenter.normalization.modality == modality
    assert (segmenter.normalization.upper == 240) == (modality == "CT")
