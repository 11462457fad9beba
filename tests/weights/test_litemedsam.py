"""The converter of LiteMedSAM's checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sam3d_label.errors import WeightsError
from sam3d_label.network.tiny_vit import TinyViT
from sam3d_label.weights import litemedsam
from sam3d_label.weights.litemedsam import convert, folded, load_encoder
from sam3d_label.weights.tensors import read_safetensors, sha256

CHANNELS = 3


def as_published(encoder: TinyViT) -> dict[str, Tensor]:
    """The tensors of an encoder under the authors' names, with batch norms that change nothing."""
    state = {}
    for name, layer in encoder.named_modules():
        parts = {f"{name}.{part}": tensor.detach() for part, tensor in layer.named_parameters(recurse=False)}
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            theirs = name.replace("patch_embed.", "patch_embed.seq.")
            weight = layer.weight.detach()
            channels = CHANNELS if name == "patch_embed.0" else 1
            state[f"{theirs}.c.weight"] = weight.repeat(1, channels, 1, 1) / channels
            state[f"{theirs}.bn.weight"] = torch.full_like(layer.bias, (4 + 1e-5) ** 0.5).detach()
            state[f"{theirs}.bn.bias"] = layer.bias.detach()
            state[f"{theirs}.bn.running_mean"] = torch.zeros_like(layer.bias)
            state[f"{theirs}.bn.running_var"] = torch.full_like(layer.bias, 4).detach()
            state[f"{theirs}.bn.num_batches_tracked"] = torch.tensor(7)
        else:
            state |= parts
    return state


@pytest.fixture
def encoder() -> TinyViT:
    torch.manual_seed(0)
    return TinyViT()


@pytest.fixture
def checkpoint(encoder: TinyViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with the names of the published one, taken for it throughout the test."""
    path = tmp_path / "lite_medsam.pth"
    image = {f"image_encoder.{name}": tensor for name, tensor in as_published(encoder).items()}
    torch.save({**image, "mask_decoder.iou_token.weight": torch.zeros(1, 256)}, path)
    monkeypatch.setattr(litemedsam, "CHECKPOINT_SHA256", sha256(path))
    return path


def test_the_converted_encoder_is_that_of_the_checkpoint(encoder, checkpoint, tmp_path):
    tensors = load_encoder(convert(checkpoint, tmp_path / "encoder.safetensors", dtype=torch.float32))
    assert tensors.keys() == encoder.state_dict().keys()
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensors[name], tensor)


def test_the_file_names_source_licence_and_digest(checkpoint, tmp_path):
    _, metadata = read_safetensors(convert(checkpoint, tmp_path / "encoder.safetensors"))
    assert metadata["licence"] == "Apache-2.0"
    assert "bowang-lab/MedSAM" in metadata["source"]
    assert len(metadata["source_sha256"]) == 64
    assert "folded" in metadata["changes"]


def test_a_batch_norm_is_folded_into_its_convolution():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    layer = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), norm).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.2, 2)
    names = {"0": "part.c", "1": "part.bn"}
    state = {f"{names[name.split('.')[0]]}.{name.split('.')[1]}": t for name, t in layer.state_dict().items()}
    alone = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    alone.load_state_dict({name.removeprefix("part."): tensor for name, tensor in folded(state).items()})
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(alone(x), layer(x), rtol=1e-5, atol=1e-5)


def test_another_checkpoint_is_rejected(checkpoint, tmp_path):
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(WeightsError, match=r"sam\.pth is not LiteMedSAM's checkpoint"):
        convert(tmp_path / "sam.pth", tmp_path / "encoder.safetensors")
    assert not (tmp_path / "encoder.safetensors").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"lite\.pth is missing"):
        convert(tmp_path / "lite.pth", tmp_path / "encoder.safetensors")


def test_another_file_is_no_encoder(encoder, tmp_path):
    save_file(encoder.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="convert-litemedsam"):
        load_encoder(tmp_path / "other.safetensors")
