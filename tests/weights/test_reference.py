import numpy as np
import pytest
import torch

from sam3d_label.errors import WeightsError
from sam3d_label.image.intensity import Window
from sam3d_label.network.sam3d import is_prompt_addition
from sam3d_label.weights import Card, load_model, open_weights
from sam3d_label.weights.reference import convert, load_reference

TOLERANCE = 1e-4


def authors_name(name):
    """The authors' dictionary and name of a tensor of ours."""
    part, _, rest = name.partition(".")
    if part == "image_encoder":
        return "encoder_dict", rest.replace("stem.", "").replace("necks.", "neck_3d.")
    if part == "prompt_encoder":
        return "feature_dict", f"transformer.{rest}"
    for index in range(4):
        rest = rest.replace(f"heads.{index}.", f"mlahead.head{index + 2}.")
    return "decoder_dict", rest.replace("fuse.", "cls.0.").replace("classify.", "cls.3.")


@pytest.fixture
def checkpoint(model):
    """A small checkpoint of the authors' layout."""
    parts: dict[str, dict[str, torch.Tensor]] = {"encoder_dict": {}, "decoder_dict": {}, "feature_dict": {}}
    for name, tensor in model.state_dict().items():
        if not is_prompt_addition(name):
            part, theirs = authors_name(name)
            parts[part][theirs] = tensor
    for index in range(0, model.config.depth, 2):
        parts["encoder_dict"][f"blocks.{index}.attn_mask"] = torch.zeros(8, 64, 64)
    parts["feature_dict"]["positional_encoding_gaussian_matrix"] = torch.zeros(3, 8)
    others = [{name: torch.zeros_like(t) for name, t in parts["feature_dict"].items()} for _ in range(3)]
    return {
        "epoch": 3,
        "best_val_loss": np.float64(0.25),
        "encoder_dict": parts["encoder_dict"],
        "decoder_dict": parts["decoder_dict"],
        "feature_dict": [*others, parts["feature_dict"]],
    }


@pytest.fixture
def stored(checkpoint, tmp_path):
    """Stores the checkpoint, after a change, and returns its path."""

    def store(change=lambda checkpoint: None):
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "best.pth.tar")
        return tmp_path / "best.pth.tar"

    return store


def farthest(model, golden):
    """The largest difference between a model's logits and the authors', over all prompts."""
    differences = []
    with torch.no_grad():
        embedding = model.encode(golden["volume"].float()[None, None])
        for name in ("one", "three", "edge"):
            points = golden[f"points_{name}"][None]
            logit = model.decode(embedding, points, torch.ones(points.shape[:2]))[0, 0]
            theirs, at_64 = (golden[f"logits_{name}{part}"] for part in ("", "_slice64"))
            differences.append((logit[::4, ::4, ::4] - (theirs[1] - theirs[0])).abs().max())
            differences.append((logit[64] - (at_64[1] - at_64[0])).abs().max())
    return float(max(differences))


def test_a_checkpoint_answers_as_in_the_authors_code_and_so_does_its_conversion(reference_files, tmp_path):
    checkpoint = reference_files / "reference_small.pth.tar"
    loaded = load_reference(checkpoint, prompt_heads=4)
    convert(checkpoint, tmp_path / "ours.safetensors", prompt_heads=4)
    converted = load_model(tmp_path / "ours.safetensors")
    assert not loaded.training
    assert converted.config == loaded.config
    assert all(torch.equal(converted.state_dict()[name], t) for name, t in loaded.state_dict().items())
    with np.load(reference_files / "reference_small.npz") as values:
        golden = {name: torch.from_numpy(values[name]) for name in values.files}
    assert farthest(converted, golden) < TOLERANCE


def test_every_tensor_and_size_is_found(model, stored):
    loaded = load_reference(stored(), prompt_heads=2)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        if not is_prompt_addition(name):
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_prompts_that_the_authors_do_not_know_have_no_effect(stored, small):
    loaded = load_reference(stored(), prompt_heads=2)
    embedding = loaded.encode(torch.randn(1, 1, *(small.crop,) * 3))
    points = torch.full((1, 1, 3), 9.0)
    inside, outside = (loaded.decode(embedding, points, torch.full((1, 1), sign)) for sign in (1, 0))
    masked = loaded.decode(embedding, points, torch.ones(1, 1), mask=torch.randn(1, 1, *(small.crop,) * 3))
    assert torch.equal(inside, outside)
    assert torch.equal(inside, masked)


def test_the_card_of_a_converted_checkpoint(stored, tmp_path, small):
    card = convert(stored(), tmp_path / "ours.safetensors", dataset="colon", prompt_heads=2)
    assert card == Card.read(tmp_path / "ours.card.json")
    assert card.config == small
    assert card.preset == "custom"
    assert card.capabilities == ["positive_click"]
    assert card.spacing == 1
    assert card.intensity == Window(lower=-57, upper=175, mean=65.175035, std=32.651197)
    assert card.training.data[0].name == "MSD-Colon"
    assert "MSD-Colon was named at conversion" in (card.training.model_extra or {})["note"]
    assert open_weights(tmp_path / "ours.safetensors").card == card


def test_the_default_data_set_is_kits21_and_the_card_reports_it(stored, tmp_path):
    card = convert(stored(), tmp_path / "ours.safetensors", prompt_heads=2)
    assert card.intensity == Window(lower=-54, upper=247, mean=59.53867, std=55.457336)
    assert card.training.data[0].name == "KiTS21"


def test_converting_twice_gives_the_same_weights(stored, tmp_path):
    path = stored()
    for name in ("a", "b"):
        convert(path, tmp_path / f"{name}.safetensors", prompt_heads=2)
    first, second = (load_model(tmp_path / f"{name}.safetensors").state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unknown_data_set_is_reported(stored, tmp_path):
    with pytest.raises(WeightsError, match="kits21, lits17, pancreas, colon"):
        convert(stored(), tmp_path / "ours.safetensors", dataset="brain", prompt_heads=2)


def test_the_output_is_a_safetensors_file(stored, tmp_path):
    with pytest.raises(WeightsError, match=r"ends in \.safetensors"):
        convert(stored(), tmp_path / "ours.pth", prompt_heads=2)


@pytest.mark.parametrize("heads", [0, -1, 3, 16])
def test_heads_that_do_not_divide_are_reported(stored, heads):
    with pytest.raises(WeightsError, match="prompt_heads"):
        load_reference(stored(), prompt_heads=heads)


class Code:
    """Writes a file when it is unpickled by an unsafe reader."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_checkpoint_is_refused_and_not_run(stored, tmp_path):
    path = stored(lambda checkpoint: checkpoint.update(epoch=Code(tmp_path / "ran")))
    with pytest.raises(WeightsError, match="could run code"):
        load_reference(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:20_000]), "truncated"),
        (lambda path: path.write_text("text"), "not a PyTorch checkpoint"),
        (lambda path: torch.save(torch.ones(3), path), "holds a Tensor"),
        (lambda path: torch.save({}, path), "lacks encoder_dict, decoder_dict, feature_dict and has nothing"),
    ],
)
def test_a_bad_file_is_reported(stored, damage, told):
    path = stored()
    damage(path)
    with pytest.raises(WeightsError, match=told):
        load_reference(path, prompt_heads=2)


MASK = "blocks.0.attn.rel_pos_h"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.pop("decoder_dict"), "lacks decoder_dict"),
        (lambda c: c["feature_dict"].pop(), "3 entries instead of a list of 4"),
        (lambda c: c.update(feature_dict=c["feature_dict"][0]), "a dict instead of a list of 4"),
        (lambda c: c.update(encoder_dict=[1]), "encoder_dict is not a state dict"),
        (lambda c: c["decoder_dict"].update({"cls.0.weight": 3}), "decoder_dict is not a state dict"),
        (lambda c: c["encoder_dict"].pop("pos_embed"), "lacks 'pos_embed'"),
        (lambda c: c["encoder_dict"].update(pos_embed=torch.ones(2)), "unexpected shapes"),
        (lambda c: c["encoder_dict"].update(pos_embed=torch.ones(1, 7, 7, 24)), "unexpected shapes"),
        (lambda c: c["encoder_dict"].update(pos_embed=torch.ones(1, 16, 16, 0)), "unexpected shapes"),
        (lambda c: c["encoder_dict"].update({MASK: torch.ones(11, 0)}), "unexpected shapes"),
        (lambda c: c["encoder_dict"].update(depth_embed=torch.ones(3)), "unexpected shapes"),
        (lambda c: c["feature_dict"][3].clear(), r"lacks 'transformer\.layers"),
        (lambda c: c["decoder_dict"].pop("cls.3.weight"), r"lacks mask_decoder\.classify\.weight"),
        (
            lambda c: c["encoder_dict"].pop("blocks.1.norm1.bias"),
            r"lacks image_encoder\.blocks\.1\.norm1\.bias",
        ),
        (lambda c: c["decoder_dict"].update(bonus=torch.ones(1)), "unexpected bonus"),
        (
            lambda c: c["decoder_dict"].update({"cls.3.weight": torch.ones(2)}),
            r"classify\.weight \(2,\) instead",
        ),
        (lambda c: c["decoder_dict"]["cls.3.weight"].fill_(float("nan")), "NaN"),
    ],
)
def test_what_a_checkpoint_lacks_or_has_too_much_is_named(stored, change, told):
    with pytest.raises(WeightsError, match=told):
        load_reference(stored(change), prompt_heads=2)


def test_an_error_names_the_file(stored):
    with pytest.raises(WeightsError, match=r"best\.pth\.tar"):
        load_reference(stored(lambda c: c["decoder_dict"].pop("cls.3.weight")), prompt_heads=2)
