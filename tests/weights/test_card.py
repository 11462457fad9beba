import json
from dataclasses import asdict, replace

import pytest
from pydantic import ValidationError

from sam3d_label.errors import WeightsError
from sam3d_label.image.intensity import Percentile
from sam3d_label.network import PRESETS
from sam3d_label.weights.card import Card


def test_a_written_card_reads_back_equal(make_card, tmp_path):
    card = make_card(scales=[1, 2], labels=["tumor"], metrics={"dice": {"1": 0.7}})
    card.write(tmp_path / "new" / "card.json")
    assert Card.read(tmp_path / "new" / "card.json") == card
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["card.json"]


def test_fields_have_the_types_that_serving_needs(make_card, small):
    card = make_card()
    assert card.config == small
    assert card.intensity == Percentile(lower=1, upper=99)
    assert card.scales == (1.0,)
    assert card.training.data[0].cases == 3
    assert card.training.model_extra == {"epochs": 2}


def test_the_file_holds_every_size_of_the_network(make_card, tmp_path, small):
    make_card().write(tmp_path / "card.json")
    stored = json.loads((tmp_path / "card.json").read_text())
    assert stored["config"] == {**asdict(small), "global_blocks": [1, 3], "fine": [], "deep": []}
    assert stored["format"] == 1


def test_a_named_preset_needs_no_sizes(card_values):
    del card_values["config"]
    assert Card.model_validate({**card_values, "preset": "tiny"}).config == PRESETS["tiny"]


def test_a_card_from_before_the_preset_grew_keeps_the_sizes_of_its_network(card_values):
    older = {name: size for name, size in asdict(PRESETS["tiny"]).items() if name != "deep"}
    card = Card.model_validate({**card_values, "preset": "tiny", "config": older})
    assert PRESETS["tiny"].deep
    assert card.config == replace(PRESETS["tiny"], deep=())


def test_a_card_from_before_geodesic_maps_is_that_of_a_network_without(card_values):
    older = {name: size for name, size in asdict(PRESETS["tiny"]).items() if name not in ("geodesic", "candidates")}
    card = Card.model_validate({**card_values, "preset": "tiny", "config": older})
    assert card.config.geodesic is None
    assert card.config.candidates == 0


def test_geodesic_maps_make_a_network_of_its_own_sizes(tmp_path, card_values):
    sizes = {**asdict(PRESETS["tiny"]), "geodesic": [3.0, 12.0], "candidates": 3}
    with pytest.raises(ValidationError, match="custom"):
        Card.model_validate({**card_values, "preset": "tiny", "config": sizes})
    Card.model_validate({**card_values, "preset": "custom", "config": sizes}).write(tmp_path / "card.json")
    stored = Card.read(tmp_path / "card.json").config
    assert (stored.geodesic, stored.candidates) == ((3.0, 12.0), 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"extra": 1}, "extra"),
        ({"preset": "huge"}, "huge"),
        ({"preset": "tiny"}, "differs from preset 'tiny'"),
        ({"config": {"width": 24}}, "missing"),
        ({"config": {**asdict(PRESETS["tiny"]), "layers": 3}}, "layers"),
        ({"config": {**asdict(PRESETS["tiny"]), "width": 7}}, "width must be a multiple of heads"),
        ({"base": {"name": "x", "sha256": "abc"}}, "sha256"),
        ({"base": {"name": ""}}, "base.name"),
        ({"spacing": 0}, "spacing"),
        ({"spacing": float("nan")}, "spacing"),
        ({"scales": []}, "scales"),
        ({"scales": [1, -1]}, "scales"),
        ({"intensity": {"kind": "window", "lower": 0, "upper": 1, "mean": 0, "std": 0}}, "std"),
        ({"intensity": {"kind": "guess"}}, "intensity"),
        ({"capabilities": ["telepathy"]}, "capabilities"),
        ({"capabilities": ["box", "box"]}, "capabilities repeat"),
        ({"training": {"data": [{"name": "x"}]}}, "licence"),
        ({"licence": ""}, "licence"),
        ({"version": ""}, "version"),
        ({"date": "yesterday"}, "date"),
        ({"format": 2}, "update sam3d_label"),
    ],
)
def test_a_card_that_breaks_a_rule_says_which(card_values, changes, told, tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({**card_values, **changes}))
    with pytest.raises(WeightsError, match=told) as caught:
        Card.read(tmp_path / "card.json")
    assert "\n" not in str(caught.value)
    assert "card.json" in str(caught.value)


@pytest.mark.parametrize("name", ["config", "base", "spacing", "intensity", "capabilities", "training", "licence"])
def test_a_missing_field_is_named(card_values, name, tmp_path):
    del card_values[name]
    (tmp_path / "card.json").write_text(json.dumps(card_values))
    with pytest.raises(WeightsError, match=name):
        Card.read(tmp_path / "card.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_what_is_not_a_json_object_is_reported(text, tmp_path):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(WeightsError, match=r"card\.json"):
        Card.read(tmp_path / "card.json")


def test_a_missing_card_is_reported(tmp_path):
    with pytest.raises(WeightsError, match="missing"):
        Card.read(tmp_path / "card.json")


def test_a_card_that_cannot_be_written_is_reported(make_card, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        make_card().write(tmp_path / "file" / "card.json")


def test_a_card_cannot_be_changed(make_card):
    with pytest.raises(ValidationError):
        make_card().spacing = 2.0


def test_sizes_may_be_given_as_they_are_in_the_network(card_values, small):
    assert Card.model_validate({**card_values, "config": replace(small)}).config == small
