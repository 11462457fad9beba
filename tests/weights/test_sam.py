import re

import pytest
import torch
from segment_anything import sam_model_registry
from torch.nn import functional as F

from sam3d_label.errors import WeightsError
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.weights.sam import OFFICIAL, cache_folder, fetch, fresh_model, read_encoder, volumetric

UNTOUCHED = (".adapter.", ".necks.", "depth_embed")
"""Parts of the image encoder that SAM says nothing about."""


def test_the_whole_trunk_is_sams(sam_encoder, small):
    state = sam_encoder.state_dict()
    model = fresh_model(state, small)
    ours = model.image_encoder.state_dict()
    for name, tensor in state.items():
        if not name.startswith("neck."):
            assert torch.equal(ours[name.replace("patch_embed", "stem.patch_embed")], tensor)
    assert all(ours[f"blocks.{number}.attn.lr"] == 1 for number in range(small.depth))


def test_nothing_of_the_encoder_is_forgotten(sam_encoder, small):
    named = volumetric(sam_encoder.state_dict(), small).keys()
    encoder = [name for name in SAM3D(small).state_dict() if name.startswith("image_encoder.")]
    assert named == {name for name in encoder if not any(part in name for part in UNTOUCHED)}
    assert all(name in named for name in encoder if is_trunk(name))


def test_the_depth_table_is_the_mean_of_the_other_two(sam_encoder, small):
    ours = fresh_model(sam_encoder.state_dict(), small).image_encoder.state_dict()
    for number in range(small.depth):
        d, h, w = (ours[f"blocks.{number}.attn.rel_pos_{axis}"] for axis in "dhw")
        torch.testing.assert_close(d, (h + w) / 2)


def test_a_token_starts_as_sams_patch_embedding_averaged_over_depth(sam_encoder, small):
    stem = fresh_model(sam_encoder.state_dict(), small).image_encoder.stem
    crop = torch.randn(1, 1, *(small.crop,) * 3)
    enlarged = F.interpolate(crop, scale_factor=small.upsample, mode="trilinear", align_corners=False)
    slices = enlarged[0, 0].permute(2, 0, 1).unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        embedded = sam_encoder.patch_embed(slices).unflatten(0, (small.grid, small.patch)).mean(1)
        torch.testing.assert_close(stem(crop)[0], embedded.permute(1, 2, 0, 3), rtol=1e-3, atol=1e-4)


def test_a_fresh_model_is_frozen_where_sam_is(sam_encoder, small):
    model = fresh_model(sam_encoder.state_dict(), small)
    assert not model.training
    assert all(p.requires_grad != is_trunk(name) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    "name", ["pos_embed", "patch_embed.proj.bias", "blocks.2.norm1.weight", "blocks.3.mlp.lin1.weight"]
)
def test_a_missing_tensor_is_named(sam_encoder, small, name):
    state = sam_encoder.state_dict()
    del state[name]
    with pytest.raises(WeightsError, match=rf"lacks \S*{re.escape(name)}"):
        volumetric(state, small)


def test_an_encoder_of_another_size_is_refused(sam_encoder):
    with pytest.raises(WeightsError, match="does not fit"):
        volumetric(sam_encoder.state_dict(), PRESETS["vit_b"])


def test_a_checkpoint_is_read_through_the_registry(sam_checkpoint):
    stored = torch.load(sam_checkpoint, weights_only=True)
    encoder = read_encoder(sam_checkpoint, "vit_b")
    assert encoder.keys() == sam_model_registry["vit_b"]().image_encoder.state_dict().keys()
    assert all(torch.equal(tensor, stored[f"image_encoder.{name}"]) for name, tensor in encoder.items())


def broken_state(change):
    def write(path):
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return write


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.unlink(), path.mkdir()), "a folder"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated"),
        (lambda path: path.write_text("<html>not found</html>"), "not a PyTorch checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds a list"),
        (lambda path: torch.save(torch.nn.Linear(1, 1), path), "pickled objects"),
        (broken_state(lambda s: s.pop("image_encoder.pos_embed")), "lacks image_encoder.pos_embed"),
        (broken_state(lambda s: s.update(more=torch.ones(1))), "unexpected more"),
        (
            broken_state(lambda s: s.update({"image_encoder.pos_embed": torch.ones(2)})),
            r"pos_embed \(2,\) instead",
        ),
        (broken_state(lambda s: s["image_encoder.pos_embed"].fill_(float("nan"))), "NaN"),
        (broken_state(lambda s: s.update({"image_encoder.pos_embed": 3})), "holds no tensor for"),
    ],
)
def test_a_bad_checkpoint_is_reported(sam_checkpoint, damage, told):
    damage(sam_checkpoint)
    with pytest.raises(WeightsError, match=told):
        read_encoder(sam_checkpoint, "vit_b")


def test_an_unknown_encoder_is_reported(sam_checkpoint):
    with pytest.raises(WeightsError, match="vit_b, vit_l, vit_h"):
        read_encoder(sam_checkpoint, "vit_x")


def test_an_unknown_checkpoint_is_not_fetched(tmp_path):
    with pytest.raises(WeightsError, match="vit_b, vit_l, vit_h"):
        fetch("vit_x", tmp_path)


def test_the_official_checkpoints_are_those_of_the_presets():
    assert OFFICIAL.keys() == {name for name in PRESETS if name.startswith("vit_")}
    for name, remote in OFFICIAL.items():
        assert re.fullmatch(rf"https://dl\.fbaipublicfiles\.com/segment_anything/sam_{name}_\w{{6}}\.pth", remote.url)
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)


@pytest.mark.parametrize("name", ["vit_b"])
def test_a_real_size_checkpoint_of_segment_anything_is_taken_over(name, tmp_path):
    with torch.device("meta"):  # random values take seconds to draw
        shapes = sam_model_registry[name]().state_dict()
    torch.save({key: torch.zeros(tensor.shape) for key, tensor in shapes.items()}, tmp_path / "sam.pth")
    model = fresh_model(read_encoder(tmp_path / "sam.pth", name), PRESETS[name])
    assert sum(p.numel() for n, p in model.named_parameters() if is_trunk(n)) == 88_846_604


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_presets_have_the_sizes_of_segment_anything(name):
    with torch.device("meta"):
        encoder = sam_model_registry[name]().image_encoder.state_dict()
        fresh_model(encoder, PRESETS[name])


def test_checkpoints_are_kept_in_the_usual_folder_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "sam3d"
    (tmp_path / ".cache" / "sam3d").mkdir(parents=True)
    assert cache_folder() == tmp_path / ".cache" / "sam3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    (tmp_path / ".cache" / "sam3d").rmdir()
    assert cache_folder() == tmp_path / ".cache" / "sam3d"
