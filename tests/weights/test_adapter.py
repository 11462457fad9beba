import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sam3d_label.errors import WeightsError
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.network.sam3d import is_fixed, is_trunk
from sam3d_label.weights.adapter import (
    assemble,
    load_adapter,
    load_trunk,
    save_adapter,
    save_trunk,
    save_whole,
    without_trunk,
)
from sam3d_label.weights.card import Card
from sam3d_label.weights.tensors import expected_shapes

LIMIT = 55e6
"""Largest size of a vit_b adapter, bytes."""


def rewrite(path, change):
    """Apply a change to the tensors of a file, keeping its metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.fixture
def saved(model, make_card, tmp_path):
    return save_adapter(model, make_card(), tmp_path / "version"), make_card()


def test_adapter_and_trunk_together_are_the_network(model, make_card, tmp_path):
    card = make_card()
    path = save_adapter(model, card, tmp_path, dtype=torch.float32)
    trunk = save_trunk(model, tmp_path / "trunk.safetensors", dtype=torch.float32)
    again = assemble(card.config, load_adapter(path, card) | load_trunk(trunk, card.config))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not again.training
    assert {name for name, p in again.named_parameters() if not p.requires_grad} == {
        name for name in model.state_dict() if is_trunk(name)
    }


def test_the_adapter_holds_only_what_trains_in_bf16(saved):
    tensors = load_file(saved[0])
    assert not any(is_trunk(name) for name in tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_bf16_rounds_and_no_more(model, saved):
    path, card = saved
    for name, tensor in load_adapter(path, card).items():
        torch.testing.assert_close(tensor.float(), model.state_dict()[name], rtol=2**-8, atol=0)


def test_saving_leaves_an_adapter_and_its_card(saved):
    path, card = saved
    assert sorted(p.name for p in path.parent.iterdir()) == ["adapter.safetensors", "card.json"]
    assert Card.read(path.with_name("card.json")) == card


def test_saving_again_replaces(saved, model, make_card):
    path, _ = saved
    save_adapter(model, make_card(version="0002"), path.parent)
    assert json.loads(path.with_name("card.json").read_text())["version"] == "0002"
    assert len(list(path.parent.iterdir())) == 2


def test_a_whole_file_holds_the_trunk_too(model, make_card, tmp_path):
    path = save_whole(model, tmp_path / "whole.safetensors")
    tensors = load_adapter(path, make_card())
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())
    assert load_trunk(path, model.config).keys() == {name for name in tensors if is_trunk(name)}


def test_the_encoder_of_slices_is_in_no_file_of_the_weights(make_card, card_values, tmp_path):
    card = make_card(config={**card_values["config"], "fine": [4, 6], "slice_features": True})
    tensors = {name: torch.rand(shape) for name, shape in expected_shapes(card.config).items()}
    model = assemble(card.config, tensors)
    path = save_adapter(model, card, tmp_path, dtype=torch.float32)
    trunk = save_trunk(model, tmp_path / "trunk.safetensors", dtype=torch.float32)
    assert not any(is_fixed(name) for name in (*load_file(path), *load_file(trunk)))
    again = assemble(card.config, load_adapter(path, card) | load_trunk(trunk, card.config))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_an_adapter_of_vit_b_fits_the_limit():
    shapes = without_trunk(expected_shapes(PRESETS["vit_b"]))
    header = sum(len(name) + 80 for name in shapes)
    assert sum(2 * math.prod(shape) for shape in shapes.values()) + header < LIMIT


def test_a_saved_adapter_of_vit_b_fits_the_limit(card_values, tmp_path):
    del card_values["config"]
    card = Card.model_validate({**card_values, "preset": "vit_b"})
    with torch.device("meta"):  # random values take seconds to draw
        model = SAM3D(PRESETS["vit_b"])
    model = model.to_empty(device="cpu")
    model.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
    path = save_adapter(model, card, tmp_path)
    assert path.stat().st_size < LIMIT
    load_adapter(path, card)


def test_a_card_of_another_network_is_not_saved(model, card_values, tmp_path):
    del card_values["config"]
    with pytest.raises(WeightsError, match="the model is"):
        save_adapter(model, Card.model_validate({**card_values, "preset": "tiny"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_diverged_model_is_not_saved(model, make_card, tmp_path):
    model.prompt_encoder.sign_embed.data[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN.*sign_embed"):
        save_adapter(model, make_card(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_reported(model, make_card, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        save_adapter(model, make_card(), tmp_path / "file")


NAME = "mask_decoder.fuse.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop(NAME), f"lacks {NAME}"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda t: t.update({NAME: torch.zeros(4, 3)}), rf"{NAME} \(4, 3\) instead of \(4, 17, 3, 3, 3\)"),
        (
            lambda t: t.update({NAME: torch.full_like(t[NAME], float("nan"))}),
            f"NaN or infinite values in {NAME}",
        ),
        (
            lambda t: t.update({NAME: torch.full_like(t[NAME], float("inf"))}),
            f"NaN or infinite values in {NAME}",
        ),
        (lambda t: [t.pop(name) for name in list(t)[:9]], "and 6 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, change, told):
    path, card = saved
    rewrite(path, change)
    with pytest.raises(WeightsError, match=told):
        load_adapter(path, card)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_adapter_is_reported(saved, kept):
    path, card = saved
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="truncated"):
        load_adapter(path, card)


def test_a_missing_adapter_is_reported(make_card, tmp_path):
    with pytest.raises(WeightsError, match="missing"):
        load_adapter(tmp_path / "adapter.safetensors", make_card())


@pytest.mark.parametrize(
    "changes",
    [{"base": {"name": "small", "sha256": "0" * 64}}, {"base": {"name": "small", "sha256": "f" * 64}}],
)
def test_the_card_of_another_adapter_is_refused(model, make_card, tmp_path, changes):
    path = save_adapter(model, make_card(base={"name": "small", "sha256": "1" * 64}), tmp_path)
    with pytest.raises(WeightsError, match="base_sha256"):
        load_adapter(path, make_card(**changes))


def test_another_format_is_refused(saved):
    path, card = saved
    save_file(load_file(path), path, {"format": "2"})
    with pytest.raises(WeightsError, match="format 2"):
        load_adapter(path, card)


def test_a_trunk_is_no_adapter(model, make_card, tmp_path):
    path = save_trunk(model, tmp_path / "trunk.safetensors")
    with pytest.raises(WeightsError, match="trunk only"):
        load_adapter(path, make_card())


def test_an_adapter_is_no_trunk(saved, small):
    with pytest.raises(WeightsError, match=r"the trunk in .* lacks"):
        load_trunk(saved[0], small)
