"""LiteMedSAM's encoder in our formulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sam3d_label.image.volume import Volume
from sam3d_label.network.tiny_vit import TinyViT
from sam3d_label.weights.litemedsam import read_encoder
from tests.helpers.litemedsam import CHECKPOINT, original_encoder, original_features, unpack

CASES = ("sts/images/sts_029_mr", "sts/images/sts_029_ct", "abdomen/images/abdomen_ct")


@pytest.fixture(scope="module")
def random_encoder() -> TinyViT:
    torch.manual_seed(0)
    encoder = TinyViT()
    for parameter in encoder.parameters():
        if parameter.ndim < 2:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return encoder.eval()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 40), (32, 28)])
def test_a_feature_covers_four_pixels(random_encoder, height, width):
    with torch.no_grad():
        middle, neck = random_encoder(torch.rand(2, 1, height, width))
    assert middle.shape == (2, 160, height // 4, width // 4)
    assert neck.shape == (2, 256, height // 4, width // 4)
    assert neck.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 30, 32), (1, 1, 32, 30), (1, 3, 32, 32), (1, 32, 32)])
def test_other_shapes_are_rejected(random_encoder, shape):
    with pytest.raises(ValueError, match="multiples of 4"):
        random_encoder(torch.rand(shape))


def test_slices_do_not_influence_one_another(random_encoder):
    slices = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        for together, alone in zip(random_encoder(slices), random_encoder(slices[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def real_slices(folder: Path, name: str, size: int) -> Tensor:
    """The middle axial slice of a volume, scaled to 0…1 and to size × size."""
    array = torch.from_numpy(Volume.open(folder / f"{name}.nii.gz").array).float()
    chosen = array[:, :, array.shape[2] // 2].clamp(min=-200)
    chosen = (chosen - chosen.min()) / (chosen.max() - chosen.min())
    return F.interpolate(chosen[None, None], size=(size, size), mode="bilinear")


@pytest.mark.parametrize("size", [64, 128, 256])
def test_features_are_those_of_the_original(size, real_data, tmp_path, monkeypatch):
    original, encoder = original_encoder(unpack(tmp_path), size, monkeypatch), TinyViT().eval()
    encoder.load_state_dict(read_encoder(tmp_path / CHECKPOINT))
    for name in CASES:
        slices = real_slices(real_data, name, size)
        with torch.no_grad():
            for ours, theirs in zip(encoder(slices), original_features(original, slices), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
