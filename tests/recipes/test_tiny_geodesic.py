"""The recipe of `tiny-geodesic`: targets, crops, the annotator, sessions, and what it starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recipes.tiny_geodesic import annotator, synthesis
from recipes.tiny_geodesic.crops import SIZE, Cropper, StoredVolume
from recipes.tiny_geodesic.pack import PackedVolume
from recipes.tiny_geodesic.session import BatchSession
from recipes.tiny_geodesic.sources import Source, find_targets
from recipes.tiny_geodesic.train import CONFIG, start_network, with_scales
from sam3d_label.image.volume import Volume
from sam3d_label.network import SAM3D
from sam3d_label.weights import open_weights

SIZES: dict[str, Any] = {
    "crop": 16,
    "patch": 8,
    "width": 16,
    "heads": 2,
    "window": 2,
    "sam_grid": 8,
    "sam_window": 3,
    "neck": 16,
}
SMALL = replace(
    CONFIG, **SIZES, prompt_heads=2, prompt_mlp=24, decoder=4, dense=5, fine=(4, 6), deep=()
)  # as `tiny`, but of a size that a test can train


def balls() -> tuple[np.ndarray, np.ndarray]:
    """An image of two balls and their label."""
    grid = np.indices((30, 40, 50))
    label = np.zeros((30, 40, 50), np.uint8)
    for value, centre in ((1, (10, 10, 10)), (7, (20, 25, 35))):
        label[((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < 50] = value
    return np.where(label > 0, 200, 50).astype(np.uint8), label


def source() -> Source:
    """The balls as a source of crops."""
    image, label = balls()
    return Source(
        "mr", image, label, np.ones(3), (0.0, 255.0, 60.0, 40.0), find_targets(label, np.random.default_rng(0))
    )


def test_targets_are_found_with_their_extent_and_voxels_in_them() -> None:
    _, label = balls()
    found = find_targets(label, np.random.default_rng(0), fewest=100)
    assert found.keys() == {1, 7}
    assert (label[tuple(found[7].voxels.T)] == 7).all()
    assert found[1].lower.tolist() == [3, 3, 3]
    assert found[1].upper.tolist() == [17, 17, 17]


@pytest.mark.parametrize("seed", range(4))
def test_a_crop_shows_its_target_brighter_than_the_rest(seed) -> None:
    cropper = Cropper(torch.device("cpu"), np.random.default_rng(seed))
    stored = StoredVolume.of(source(), torch.device("cpu"))
    place = cropper.place(stored, stored.source.targets[7])
    grey, label, _ = cropper.cut(stored, 7, place)
    assert grey.shape == (SIZE, SIZE, SIZE)
    assert label.max() > 0.5
    inside, around = grey[label > 0.9], grey[(label < 0.1) & (grey != 0)]
    assert inside.mean() > around.mean() + 1


def test_packed_volumes_are_read_as_written(tmp_path) -> None:
    image, label = balls()
    packed = PackedVolume.of("balls", "mr", Volume(image.astype(np.float32), np.diag([-1.0, -2.0, 3.0, 1.0])), label)
    packed.write(tmp_path / "balls.xz")
    again = PackedVolume.read(tmp_path / "balls.xz")
    np.testing.assert_array_equal(again.label, packed.label)
    assert again.spacing.tolist() == [3, 2, 1], "the axes are S, P, L"
    assert sorted(again.label.shape) == sorted(label.shape)
    assert (again.image[again.label > 0] > again.image[again.label == 0].max()).all()


def test_images_from_label_maps_hold_targets_of_the_map() -> None:
    image, label = balls()
    real = PackedVolume("balls", "organs", image, label, np.ones(3), (0.0, 255.0, 60.0, 40.0), pieces=label)
    for seed in range(5):
        made = synthesis.drawn(np.random.default_rng(seed), [real, replace(real, kind="mr")])
        assert made.image.shape == made.label.shape
        assert made.image.dtype == made.label.dtype == np.uint8
        assert made.targets.keys() <= set(range(1, 8))


def test_clicks_lie_in_the_larger_error_with_its_sign() -> None:
    torch.manual_seed(0)
    target, found = torch.zeros(2, 8, 8, 8, dtype=torch.bool), torch.zeros(2, 8, 8, 8, dtype=torch.bool)
    target[0, 1:6, 1:6, 1:6] = True
    found[1, 2:7, 2:7, 2:7] = True
    target[1, 2:4, 2:7, 2:7] = True
    for _ in range(20):
        at, signs = annotator.draw(target, found, first=True)
        assert signs.tolist() == [1, 0]
        assert target[0][tuple(at[0])]
        assert (found & ~target)[1][tuple(at[1])]


def test_depth_counts_steps_to_the_border_and_crops_end_targets() -> None:
    mask = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    mask[0, :5, :5, :5] = True
    depth = annotator.depth(mask)[0]
    assert depth[2, 2, 2] == 3
    assert depth[0, 2, 2] == 1, "the face of the crop is a border"
    assert depth[6, 2, 2] == 0


def test_boxes_are_around_their_targets() -> None:
    target = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    target[0, 2:5, 3:4, 1:7] = True
    lower, upper = annotator.spans(target)
    assert lower.tolist() == [[2, 3, 1]]
    assert upper.tolist() == [[4, 3, 6]]
    box = annotator.loose_boxes(target)
    assert box.shape == (1, 1, 2, 3)
    assert ((box[0, 0, 0] / 2 - lower[0]).abs() < 1).all()


@pytest.mark.parametrize("kind", ["click", "box", "rough", "none"])
def test_every_kind_of_session_teaches_the_network(kind) -> None:
    torch.manual_seed(0)
    model, rng = SAM3D(SMALL), np.random.default_rng(0)
    label = torch.zeros(2, 1, 16, 16, 16)
    label[:, :, 4:12, 4:12, 4:12] = 1
    told = BatchSession(model, rng).play(label * 2 + 0.3 * torch.randn(label.shape), label, kind)
    told["loss"].backward()
    assert torch.isfinite(told["loss"])
    assert model.fine_path.out.weight.grad.abs().sum() > 0
    assert (model.fine_path.candidates.out.weight.grad is not None) == (kind in ("click", "box"))


def test_the_network_starts_as_the_one_it_goes_on_from(tmp_path) -> None:
    torch.manual_seed(0)
    before = SAM3D(replace(SMALL, geodesic=(3.0, 12.0), candidates=0)).eval()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_file(before.state_dict(), tmp_path / "start.safetensors")
    after = start_network(tmp_path / "start.safetensors", SMALL).eval()
    crop, points, signs = torch.randn(1, 1, 16, 16, 16), torch.tensor([[[3, 9, 12], [7, 7, 7]]]), torch.tensor([[1, 0]])
    proposals = after.propose(after.encode(crop), points, signs)
    torch.testing.assert_close(proposals.logit, before.decode(before.encode(crop), points, signs))
    torch.testing.assert_close(proposals.candidates[:, :1], proposals.logit)
    torch.testing.assert_close(proposals.candidates[:, 1:2], proposals.logit + 1.5)


def test_kernels_without_maps_get_zeros_for_them() -> None:
    given, own = torch.randn(3, 6, 1, 1, 1), torch.randn(3, 20, 1, 1, 1)
    wider = with_scales(given, own)
    torch.testing.assert_close(wider[:, :6], given)
    assert not wider[:, 6:].any()


def test_the_weights_with_geodesic_maps_ship_as_the_default():
    weights = open_weights("tiny-geodesic")
    assert weights.model.config == CONFIG
    assert weights.card.training.data, "the card names what they learned from"
    assert open_weights().version == weights.version != open_weights("tiny").version
