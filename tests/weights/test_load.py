import json
import shutil
from dataclasses import replace

import pytest
import torch

from sam3d_label.errors import Sam3dError, WeightsError
from sam3d_label.network import PRESETS, SAM3D
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.weights import DEFAULT, Base, load, load_model, locations, open_weights, shipped, untrained
from sam3d_label.weights.adapter import save_adapter, save_trunk, save_whole
from sam3d_label.weights.sam import OFFICIAL
from sam3d_label.weights.tensors import sha256


@pytest.fixture
def ship(model, make_card):
    """Ships the small network under a name."""

    def ship(name="tiny"):
        folder = locations.SHIPPED / name
        trunk = save_trunk(model, folder / "trunk.safetensors")
        save_adapter(model, make_card(base={"name": name, "sha256": sha256(trunk)}), folder)
        return folder

    return ship


@pytest.fixture
def on_sam(sam_checkpoint, card_values, tmp_path):
    """The folder of an adapter that was trained on the small SAM checkpoint."""
    start = untrained("vit_b", sam_checkpoint)
    card = start.card.model_copy(update={"version": "0001", "capabilities": ["positive_click"]})
    save_adapter(start.model, card, tmp_path / "version")
    return tmp_path / "version"


def close(model, other):
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=2**-8, atol=0)


def test_without_a_name_the_default_opens(ship, model):
    ship(DEFAULT)
    weights = open_weights()
    assert weights.version == weights.card.version == "0001"
    close(model, weights.model)
    assert open_weights(DEFAULT).signature == weights.signature


def test_weights_from_before_the_network_grew_open_as_they_were(ship, model):
    path = ship() / "card.json"
    values = json.loads(path.read_text())
    del values["config"]["deep"]
    path.write_text(json.dumps(values))
    weights = open_weights("tiny")
    assert weights.model.config == model.config
    close(model, weights.model)


def test_a_model_is_ready_to_serve(ship):
    ship()
    model = load_model("tiny")
    assert not model.training
    assert all(p.requires_grad != is_trunk(name) for name, p in model.named_parameters())


def test_shipped_names(ship):
    assert shipped() == []
    ship("tiny")
    ship("other")
    assert shipped() == ["other", "tiny"]
    assert open_weights("other").card.base.name == "other"


def test_a_folder_and_its_file_are_the_same_weights(ship, tmp_path):
    folder = shutil.copytree(ship(), tmp_path / "mine")
    by_folder, by_file = open_weights(folder), open_weights(str(folder / "adapter.safetensors"))
    assert by_folder.signature == by_file.signature


def test_an_adapter_finds_the_shipped_trunk(ship, model, make_card, tmp_path):
    trunk = ship() / "trunk.safetensors"
    save_adapter(model, make_card(base={"name": "tiny", "sha256": sha256(trunk)}), tmp_path / "tuned")
    close(model, open_weights(tmp_path / "tuned").model)


def test_a_trunk_beside_the_adapter_needs_no_name(model, make_card, tmp_path):
    save_trunk(model, tmp_path / "trunk.safetensors")
    save_adapter(model, make_card(), tmp_path)
    close(model, load_model(tmp_path))


def test_an_adapter_without_any_trunk_is_reported(model, make_card, tmp_path):
    save_adapter(model, make_card(), tmp_path)
    with pytest.raises(WeightsError, match=r"trunk\.safetensors is missing"):
        open_weights(tmp_path)


def test_the_trunk_of_other_weights_is_refused(ship, model, make_card, tmp_path):
    ship()
    save_adapter(model, make_card(base={"name": "tiny", "sha256": "0" * 64}), tmp_path / "tuned")
    with pytest.raises(WeightsError, match="is another file"):
        open_weights(tmp_path / "tuned")


def test_a_whole_file_needs_no_trunk(model, make_card, tmp_path):
    path = save_whole(model, tmp_path / "ours.safetensors")
    make_card(base={"name": path.name, "sha256": sha256(path)}).write(tmp_path / "ours.card.json")
    opened = load_model(path)
    assert all(torch.equal(opened.state_dict()[name], t) for name, t in model.state_dict().items())


def test_a_whole_file_with_the_card_of_another_is_refused(model, make_card, tmp_path):
    path = save_whole(model, tmp_path / "ours.safetensors")
    make_card(base={"name": path.name, "sha256": "0" * 64}).write(tmp_path / "ours.card.json")
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        open_weights(path)


def test_an_adapter_may_be_trained_on_a_whole_file(model, make_card, tmp_path):
    path = save_whole(model, tmp_path / "ours.safetensors")
    save_adapter(model, make_card(base={"name": path.name, "sha256": sha256(path)}), tmp_path / "tuned")
    with pytest.raises(WeightsError, match=r"Find the file ours\.safetensors"):
        open_weights(tmp_path / "tuned")
    close(model, load_model(tmp_path / "tuned", sam_checkpoint=path))


def test_a_file_without_a_card_is_reported(model, tmp_path):
    path = save_whole(model, tmp_path / "ours.safetensors")
    with pytest.raises(WeightsError, match=r"card\.json is missing"):
        open_weights(path)


def test_an_adapter_of_sam_takes_the_checkpoint_given(on_sam, sam_checkpoint):
    weights = open_weights(on_sam, sam_checkpoint=sam_checkpoint)
    stored = torch.load(sam_checkpoint, weights_only=True)
    assert isinstance(weights.model, SAM3D)
    assert torch.equal(weights.model.image_encoder.pos_embed, stored["image_encoder.pos_embed"])


def test_an_adapter_of_sam_takes_the_checkpoint_of_the_environment(on_sam, sam_checkpoint, monkeypatch):
    monkeypatch.setenv(load.SAM_CHECKPOINT, str(sam_checkpoint))
    assert open_weights(on_sam).version == "0001"


def test_an_adapter_of_sam_takes_the_downloaded_checkpoint(on_sam, sam_checkpoint, tmp_path):
    cache = tmp_path / "home" / ".cache" / "sam3d"
    cache.mkdir(parents=True)
    shutil.copy(sam_checkpoint, cache / OFFICIAL["vit_b"].name)
    assert open_weights(on_sam).version == "0001"


def test_without_the_checkpoint_the_message_says_how_to_get_it(sam_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(OFFICIAL, "vit_b", replace(OFFICIAL["vit_b"], sha256=sha256(sam_checkpoint)))
    start = untrained("vit_b", sam_checkpoint)
    on_sam = save_adapter(start.model, start.card, tmp_path / "version").parent
    assert start.card.base.checkpoint is None
    with pytest.raises(WeightsError, match=r"Download https.*SAM3D_SAM_CHECKPOINT") as caught:
        open_weights(on_sam)
    assert str(tmp_path / "home" / ".cache" / "sam3d" / OFFICIAL["vit_b"].name) in str(caught.value)


def test_another_checkpoint_than_the_adapters_is_reported(on_sam, tmp_path):
    (tmp_path / "other.pth").touch()
    with pytest.raises(WeightsError, match=r"other\.pth is another file"):
        open_weights(on_sam, sam_checkpoint=tmp_path / "other.pth")


@pytest.fixture
def medsam_checkpoint(sam_checkpoint, tmp_path):
    """A checkpoint in the form of MedSAM's: SAM's names and shapes, other values."""
    state = {name: tensor + 1 for name, tensor in torch.load(sam_checkpoint, weights_only=True).items()}
    torch.save(state, tmp_path / "medsam_vit_b.pth")
    return tmp_path / "medsam_vit_b.pth"


@pytest.fixture
def on_medsam(medsam_checkpoint, tmp_path):
    """The folder of an adapter that was trained on such a checkpoint."""
    start = untrained("vit_b", medsam_checkpoint)
    return save_adapter(start.model, start.card, tmp_path / "on_medsam").parent


def test_an_adapter_of_medsam_names_and_takes_its_checkpoint(on_medsam, medsam_checkpoint):
    weights = open_weights(on_medsam, sam_checkpoint=medsam_checkpoint)
    stored = torch.load(medsam_checkpoint, weights_only=True)
    assert weights.card.base == Base(name="vit_b", sha256=sha256(medsam_checkpoint), checkpoint="medsam_vit_b.pth")
    assert isinstance(weights.model, SAM3D)
    assert torch.equal(weights.model.image_encoder.pos_embed, stored["image_encoder.pos_embed"])


def test_medsam_is_found_next_to_sam(on_medsam, medsam_checkpoint, sam_checkpoint, tmp_path):
    cache = tmp_path / "home" / ".cache" / "sam3d"
    cache.mkdir(parents=True)
    shutil.copy(sam_checkpoint, cache / OFFICIAL["vit_b"].name)
    with pytest.raises(WeightsError, match=r"trained on medsam_vit_b\.pth.*Put that file at .*medsam_vit_b\.pth"):
        open_weights(on_medsam)
    shutil.copy(medsam_checkpoint, cache)
    assert open_weights(on_medsam).card.base.checkpoint == "medsam_vit_b.pth"


def test_sam_under_an_adapter_of_medsam_is_rejected(on_medsam, sam_checkpoint, monkeypatch):
    monkeypatch.setitem(OFFICIAL, "vit_b", replace(OFFICIAL["vit_b"], sha256=sha256(sam_checkpoint)))
    with pytest.raises(WeightsError, match=r"trained on medsam_vit_b\.pth, a vit_b .*sam_small\.pth is SAM itself"):
        open_weights(on_medsam, sam_checkpoint=sam_checkpoint)


def test_medsam_under_an_adapter_of_sam_is_rejected(on_sam, medsam_checkpoint):
    with pytest.raises(WeightsError, match=r"medsam_vit_b\.pth is another file"):
        open_weights(on_sam, sam_checkpoint=medsam_checkpoint)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_checkpoint_that_is_not_there_is_reported(on_sam, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv(load.SAM_CHECKPOINT, "nowhere.pth")
    with pytest.raises(WeightsError, match="nowhere"):
        open_weights(on_sam, sam_checkpoint="nowhere.pth" if by == "argument" else None)


def test_a_checkpoint_that_is_not_needed_may_be_missing(ship, monkeypatch):
    ship()
    monkeypatch.setenv(load.SAM_CHECKPOINT, "nowhere.pth")
    assert open_weights("tiny").version == "0001"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", r"nothing is neither .* \(other\)"),
        ("vit_b", "no weights are shipped for vit_b"),
        ("tiny", "no weights are shipped for tiny"),
    ],
)
def test_a_name_of_no_label_is_reported(ship, name, told):
    ship("other")
    with pytest.raises(WeightsError, match=told):
        open_weights(name)


def test_a_folder_without_weights_is_reported(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no adapter\.safetensors"):
        open_weights(tmp_path)


def test_a_checkpoint_of_the_authors_is_to_be_converted_first(tmp_path):
    (tmp_path / "best.pth.tar").touch()
    with pytest.raises(WeightsError, match="convert-reference"):
        open_weights(tmp_path / "best.pth.tar")


def test_an_unknown_device_is_reported(ship):
    ship()
    with pytest.raises(Sam3dError, match="'abacus'"):
        open_weights("tiny", device="abacus")


def test_the_signature_follows_trunk_adapter_and_card(ship, model, make_card, tmp_path):
    trunk = ship() / "trunk.safetensors"
    base = {"name": "tiny", "sha256": sha256(trunk)}
    seen = [open_weights("tiny").signature]
    save_adapter(model, make_card(base=base, spacing=2), tmp_path / "card")
    seen.append(open_weights(tmp_path / "card").signature)
    model.prompt_encoder.sign_embed.data += 1
    save_adapter(model, make_card(base=base), tmp_path / "adapter")
    seen.append(open_weights(tmp_path / "adapter").signature)
    model.image_encoder.pos_embed.data += 1
    save_trunk(model, tmp_path / "adapter" / "trunk.safetensors")
    save_adapter(model, make_card(), tmp_path / "adapter")
    seen.append(open_weights(tmp_path / "adapter").signature)
    assert len(set(seen)) == len(seen)


def test_new_adapters_on_sam_have_learned_nothing(sam_checkpoint, small):
    weights = untrained("vit_b", sam_checkpoint)
    assert weights.card.capabilities == []
    assert weights.card.base.name == "vit_b"
    assert weights.card.base.sha256 == sha256(sam_checkpoint)
    assert weights.model.config == small
    assert not weights.model.image_encoder.pos_embed.requires_grad


def test_new_adapters_need_the_checkpoint(sam_checkpoint):
    with pytest.raises(WeightsError, match="Download https"):
        untrained("vit_b")


def test_new_adapters_on_the_shipped_trunk(ship, model, monkeypatch, small):
    monkeypatch.setitem(PRESETS, "tiny", small)
    trunk = ship() / "trunk.safetensors"
    weights = untrained("tiny")
    assert weights.card.base.sha256 == sha256(trunk)
    assert isinstance(weights.model, SAM3D)
    torch.testing.assert_close(
        weights.model.image_encoder.pos_embed.detach(),
        model.image_encoder.pos_embed.detach(),
        rtol=2**-8,
        atol=0,
    )
    assert not weights.model.image_encoder.pos_embed.requires_grad
    assert not weights.model.mask_decoder.fuse_dense.weight.any()


def test_without_a_trunk_everything_starts_at_random_and_trains(monkeypatch, small):
    monkeypatch.setitem(PRESETS, "tiny", small)
    first, second = untrained("tiny"), untrained("tiny")
    assert first.card.base.sha256 is None
    assert all(p.requires_grad for p in first.model.parameters())
    assert first.signature != second.signature


def test_a_trained_whole_opens_again(monkeypatch, small, tmp_path):
    monkeypatch.setitem(PRESETS, "tiny", small)
    start = untrained("tiny")
    trunk = save_trunk(start.model, tmp_path / "trunk.safetensors")
    base = start.card.base.model_copy(update={"sha256": sha256(trunk)})
    save_adapter(start.model, start.card.model_copy(update={"base": base}), tmp_path)
    close(start.model, open_weights(tmp_path).model)


def test_an_unknown_preset_is_reported():
    with pytest.raises(WeightsError, match="tiny, tiny-geodesic, vit_b, vit_l, vit_h"):
        untrained("vit_x")
