"""The shipped weights `lite`, and how they are stored."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from recipes.lite.store import CARD, main, network_name
from sam3d_label.network import PRESETS
from sam3d_label.network.slice_features import SliceFeatures
from sam3d_label.network.tiny_vit import TinyViT
from sam3d_label.weights import open_weights
from sam3d_label.weights.litemedsam import load_encoder
from sam3d_label.weights.locations import SLICE_ENCODER
from sam3d_label.weights.tensors import expected_shapes, read_safetensors

MIDDLE, NECK = [-0.0551, -0.9049, -0.5845, -0.5322], [-0.0066, -0.1173, 0.0212, -0.0462]


def test_names_of_the_trial_become_names_of_the_network() -> None:
    assert network_name("side.level2.weight") == "slice_features.levels.1.weight"
    assert network_name("side.map4.bias") == "slice_features.deepest.bias"
    assert network_name("side.mix.2.0.weight") == "slice_features.mix.2.0.weight"
    assert network_name("fine_path.out.bias") == "fine_path.out.bias"


def test_a_stored_folder_opens(tmp_path) -> None:
    tensors = {name: torch.rand(shape) for name, shape in expected_shapes(CARD.config).items()}
    save_file(tensors, tmp_path / "trained.safetensors")
    main(tmp_path / "trained.safetensors", tmp_path / "weights")
    weights = open_weights(tmp_path / "weights")
    assert weights.card.base.sha256
    assert weights.card.preset == "lite"


def test_lite_ships_and_names_its_training_data() -> None:
    weights = open_weights("lite")
    assert weights.model.config == PRESETS["lite"]
    assert any("LiteMedSAM" in source.name for source in weights.card.training.data)
    assert isinstance(weights.model.slice_features, SliceFeatures)
    shared = load_encoder(SLICE_ENCODER)
    assert torch.equal(weights.model.slice_features.encoder.get_parameter("neck.0.weight"), shared["neck.0.weight"])


def test_the_shipped_encoder_gives_the_features_of_the_original() -> None:
    """The numbers are those of the authors' code in float32 on this slice; the file stores float16."""
    _, metadata = read_safetensors(SLICE_ENCODER)
    assert metadata["licence"] == "Apache-2.0"
    encoder = TinyViT().eval()
    encoder.load_state_dict(load_encoder(SLICE_ENCODER))
    along = torch.linspace(0, 1, 64)
    with torch.no_grad():
        middle, neck = encoder((along[:, None] * along)[None, None])
    torch.testing.assert_close(middle[0, :4, 5, 9], torch.tensor(MIDDLE), rtol=0, atol=0.02)
    torch.testing.assert_close(neck[0, :4, 5, 9], torch.tensor(NECK), rtol=0, atol=0.005)
