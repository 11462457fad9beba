from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from sam3d_label import Click, Segmenter, Volume
from sam3d_label.errors import Sam3dError
from sam3d_label.network import PRESETS
from sam3d_label.network.sam3d import is_trunk
from sam3d_label.training import TrainingCase, TrainSettings, settings
from sam3d_label.training import folder as runs
from sam3d_label.training.export import learned_capabilities
from sam3d_label.training.folder import split, train_folder
from sam3d_label.weights import Card, open_weights


class Quick(TrainSettings):
    steps_per_epoch: int = 2
    workers: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "fp32"


@pytest.fixture
def folders(phantom_cases, monkeypatch) -> tuple[Path, Path]:
    monkeypatch.setattr(runs, "TrainSettings", Quick)
    monkeypatch.setattr(settings, "MOST_STEPS", 2)
    return phantom_cases[0].image.parent, phantom_cases[0].label.parent


def test_what_was_trained_serves(small_weights, folders, tmp_path):
    images, labels = folders
    out = tmp_path / "0001"
    card = train_folder(small_weights, images, labels, out, epochs=1)
    opened = open_weights(out)
    assert opened.card == card
    assert opened.version == "0001"
    for name, tensor in small_weights.model.state_dict().items():
        assert torch.allclose(opened.model.state_dict()[name], tensor, rtol=1e-2, atol=1e-3), name
    volume = Volume.open(next(images.iterdir()))
    assert Segmenter(volume, opened).segment([Click((9, 9, 9))]).mask.shape == volume.shape


def recorded(card: Card) -> dict[str, Any]:
    """What the trainer adds to the record of a training."""
    return card.training.model_extra or {}


def test_the_card_says_what_trained_and_what_was_learned(small_weights, folders, tmp_path):
    images, labels = folders
    card = train_folder(small_weights, images, labels, tmp_path / "out", epochs=1)
    assert card.capabilities == ["positive_click", "negative_click", "mask", "box", "no_click"]
    told = recorded(card)
    assert told["start"] == small_weights.version
    assert len(told["cases"]) + len(told["validation"]) == 3
    assert sum(source.cases or 0 for source in card.training.data) == len(told["cases"])
    assert card.intensity == small_weights.card.intensity
    assert card.scales == (0.5, 1.0, 2.0)  # crops at a quarter of its 1 mm are too fine to be shown in training


def test_a_network_without_a_trunk_of_its_own_trains_whole(small_weights, folders, tmp_path):
    untrained = replace(small_weights, card=small_weights.card.model_copy(update={"capabilities": []}))
    before = {name: tensor.clone() for name, tensor in untrained.model.state_dict().items()}
    images, labels = folders
    train_folder(untrained, images, labels, tmp_path / "out", epochs=1)
    after = open_weights(tmp_path / "out").model.state_dict()
    assert any(is_trunk(name) and not torch.equal(after[name], before[name].bfloat16().float()) for name in before)


def test_trained_weights_learn_as_a_team_s_own_cases_let_them(small_weights, folders, tmp_path):
    images, labels = folders
    told = recorded(train_folder(small_weights, images, labels, tmp_path / "out", epochs=1))["settings"]
    assert told["alike"]
    assert told["learning_rate"] == settings.FEW_CASES["learning_rate"]
    assert told["encoder_share"] == 1
    assert tuple(told["serves_at"]) == settings.inference_spacings_of(small_weights.card)


def test_what_the_shipped_weights_know_they_know_after_a_team_s_training():
    card = open_weights(None).card
    few = settings.TrainSettings.few_cases(5, card)
    assert set(card.capabilities) <= set(learned_capabilities(few, salient=True, before=card.capabilities))


def test_with_a_fine_path_the_time_goes_to_what_follows_the_encoder(small_weights):
    card = small_weights.card.model_copy(update={"config": PRESETS["tiny"]})
    few = settings.TrainSettings.few_cases(5, card)
    assert 0 < few.encoder_share < 0.5
    assert few.clicks == 1
    assert settings.TrainSettings.few_cases(5, card, clicks=3).clicks == 3
    keeping = settings.TrainSettings.few_cases(5, card, keeping=True)
    assert keeping.clicks > 1, "sessions with corrections"
    assert keeping.learning_rate < few.learning_rate
    assert settings.TrainSettings.few_cases(5, small_weights.card, keeping=True).clicks == 2, "it has no fine path"


def test_folders_without_cases_report_it(small_weights, tmp_path):
    with pytest.raises(Sam3dError, match="no volumes"):
        train_folder(small_weights, tmp_path, tmp_path, tmp_path / "out")


def test_a_case_never_changes_sides(tmp_path):
    cases = [TrainingCase(tmp_path / f"case_{n}.nii.gz", tmp_path / "label.nii.gz") for n in range(200)]
    training, validation = split(cases[:100], 0.2)
    more_training, more_validation = split(cases, 0.2)
    assert set(training) <= set(more_training)
    assert set(validation) <= set(more_validation)
    assert 20 <= len(more_validation) <= 60


def test_with_too_few_cases_all_train(tmp_path):
    only = [TrainingCase(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")]
    assert split(only, 0.999) == (only, [])


def test_only_prompts_that_were_simulated_count_as_learned():
    assert learned_capabilities(TrainSettings(clicks=1, box_share=0)) == ["positive_click"]
    assert learned_capabilities(TrainSettings(clicks=1, box_share=0), before=["mask", "box"]) == [
        "positive_click",
        "mask",
    ]
    few = TrainSettings(clicks=1, two_passes=False)
    assert learned_capabilities(few, before=["negative_click", "mask"]) == ["positive_click", "negative_click", "box"]
    assert learned_capabilities(TrainSettings(two_passes=False)) == ["positive_click", "negative_click", "box"]
    assert "no_click" in learned_capabilities(TrainSettings(), salient=True)
    assert "no_click" not in learned_capabilities(TrainSettings(no_click_share=0), salient=True)


def test_what_was_trained_on_trained_weights_is_used_too(small_weights, folders, tmp_path):
    """Their trunk is nobody else's, so it goes along."""
    images, labels = folders
    train_folder(small_weights, images, labels, tmp_path / "first", epochs=1)
    train_folder(open_weights(tmp_path / "first"), images, labels, tmp_path / "second", epochs=1)
    first, second = (open_weights(tmp_path / name).model.state_dict() for name in ("first", "second"))
    assert all(torch.equal(second[name], first[name]) for name in first if is_trunk(name))
