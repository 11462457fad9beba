"""The app's --conf keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.configs.app_config import ConfigError, parse_config
from sam3d_label.errors import Sam3dError
from sam3d_label.image.intensity import Percentile
from tests.helpers.app_helpers import make_app


def test_defaults_are_those_of_the_interface() -> None:
    config = parse_config({})
    assert (config.preset, config.weights, config.sam_checkpoint) == (None, None, None)
    assert config.labels == ("tumor",)
    assert config.auto_train_every == 0


def test_values_arrive_as_strings(tmp_path: Path) -> None:
    checkpoint = tmp_path / "sam.pth"
    checkpoint.touch()
    config = parse_config(
        {
            "preset": "vit_b",
            "weights": "adapter.safetensors",
            "sam_checkpoint": str(checkpoint),
            "labels": "tumor, cyst",
            "auto_train_every": "5",
            "auto_train_at": "02:00",
            "model_dir": str(tmp_path),
            "patient": r"sts_(\d+)_",
            "next_sample": "uncertainty",
            "cache_mb": "256",
            "spacing": "1.5",
            "server_mode": "true",
        }
    )
    assert config.labels == ("tumor", "cyst")
    assert (config.auto_train_every, config.cache_mb, config.spacing) == (5, 256, 1.5)
    assert (config.auto_train_at, config.model_dir, config.next_sample) == ("02:00", tmp_path, "uncertainty")
    assert config.sam_checkpoint == checkpoint


def test_a_team_chooses_how_much_an_update_may_lose(tmp_path: Path) -> None:
    assert (parse_config({}).reference_limit, parse_config({}).reference_cases) == (0.03, None)
    assert parse_config({"reference_limit": "none"}).reference_limit is None
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "case.nii.gz").touch()
    config = parse_config({"reference_limit": "0.1", "reference_cases": str(tmp_path), "reference_seconds": "60"})
    assert (config.reference_limit, config.reference_cases, config.reference_seconds) == (0.1, tmp_path, 60)


def test_an_empty_value_counts_as_not_given() -> None:
    assert parse_config({"weights": "", "labels": ""}) == parse_config({})


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"models": "sam3d"}, "--conf models: unknown key"),
        ({"preset": "vit_x"}, "--conf preset 'vit_x': give 'tiny', 'tiny-geodesic', 'vit_b', 'vit_l' or 'vit_h'"),
        ({"auto_train_every": "-1"}, "--conf auto_train_every '-1': give 0 or more"),
        ({"auto_train_every": "often"}, "--conf auto_train_every 'often': give a whole number"),
        ({"click_log": "maybe"}, "--conf click_log 'maybe': give true or false"),
        ({"infer_workers": "65"}, "--conf infer_workers '65': give at most 64"),
        ({"cache_mb": "9" * 5000}, f"--conf cache_mb '{'9' * 99}...: "),
        ({"reference_limit": "much"}, "--conf reference_limit 'much': give a number"),
        ({"reference_limit": "2"}, "--conf reference_limit '2': give at most 1"),
        ({"reference_cases": "/nowhere"}, "--conf reference_cases '/nowhere': "),
        ({"auto_train_at": "24:00"}, "time of day from 00:00 to 23:59"),
        ({"patient": "sts_\\d+"}, "one pair of parentheses"),
        ({"patient": "sts_("}, "not a regular expression"),
        ({"next_sample": "hardest"}, "--conf next_sample 'hardest'"),
        ({"cache_mb": "0"}, "--conf cache_mb '0'"),
        ({"spacing": "nan"}, "--conf spacing 'nan': give a finite number"),
        ({"spacing": "0"}, "--conf spacing '0': give more than 0"),
        ({"sam_checkpoint": "/nowhere/sam.pth"}, "/nowhere/sam.pth is not a file"),
        ({"intensity": "pet"}, "choose from ct, mr, ct_or_mr"),
        ({"labels": " , "}, "give at least one name"),
        ({"labels": "a,b,a"}, "given twice"),
        ({"labels": "tumor,background"}, "background is a word of the protocol"),
    ],
)
def test_a_bad_key_or_value_is_named_with_what_is_allowed(conf: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(conf)
    assert expected in str(caught.value)
    assert "Keys of --conf: preset, weights, sam_checkpoint, labels, auto_train_every, auto_train_at" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "rule"),
    [("mr", Percentile()), ('{"kind":"percentile","lower":1,"upper":99}', Percentile(lower=1, upper=99))],
)
def test_an_intensity_rule_has_a_name_or_is_written_out(value: str, rule: Percentile) -> None:
    assert parse_config({"intensity": value}).intensity == rule


def test_every_fault_is_in_one_message() -> None:
    with pytest.raises(ConfigError, match=r"colour.*unknown.*cache_mb|cache_mb.*colour.*unknown"):
        parse_config({"colour": "red", "cache_mb": "many"})


def test_a_wrong_precision_of_masks_is_reported_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM3D_PRECISION", "half")
    with pytest.raises(Sam3dError, match="SAM3D_PRECISION is 'half': it must be one of auto, bf16, fp32"):
        make_app(tmp_path, {})
